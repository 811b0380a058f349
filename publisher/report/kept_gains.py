"""Trials under a mask as a table: the share of an attacker's gain that each mask leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from publisher.api import CheckRecord, Trial
from publisher.report.relearning import ConceptCurves, curves_by_concept, masked, models_of, title
from publisher.report.wording import figure

MOST_ROWS = 400
LARGEST = 1e6
"""Share from which on the control gained as good as nothing."""
NOTHING = "\u2013"
"""The model was not attacked, or the control gained nothing."""


@dataclass(frozen=True)
class GainRow:
    """Row of the table: one concept under one attack."""

    concept: str
    innocent: bool
    """Whether the check expects that the concept is still learned."""
    attack: str
    gain: str
    """Quantity that is read, loss or rate, and after how many training steps."""
    of: str
    """Title of the model whose gain counts as 100%."""
    cells: tuple[str, ...]
    """Share of the gain in percent, for each model of the table."""


@dataclass(frozen=True)
class KeptGains:
    """Table of all checks whose attacker honours masks."""

    models: tuple[str, ...]
    """Titles of the models: headings of the columns."""
    rows: tuple[GainRow, ...]
    left_out: int
    """Number of rows beyond the last one that is shown."""


def kept_gains(checks: Sequence[CheckRecord]) -> KeptGains | None:
    """Return the shares by concept and mask; None where no check has a mask."""
    under = [check for check in checks if check.trials and masked(check)]
    if not under:
        return None
    models = [model for model in models_of(under) if any(model != _reference(check) for check in under)]
    rows = list(dict.fromkeys(_row(check, curves, models) for check in under for curves in curves_by_concept(check)))
    headings = tuple(title(model, masked=True) for model in models)
    return KeptGains(headings, tuple(rows[:MOST_ROWS]), max(0, len(rows) - MOST_ROWS))


def _row(check: CheckRecord, curves: ConceptCurves, models: Sequence[str]) -> GainRow:
    reference, (of, evaluation_step) = _reference(check), _read(check, curves)
    trials = {model.name: model.trials for model in curves.models}
    innocents = check.metric_params.get("innocents")
    return GainRow(
        concept=curves.concept,
        innocent=isinstance(innocents, list | tuple) and curves.concept in innocents,
        attack=check.attack,
        gain=f"{of} after {evaluation_step} steps",
        of=title(reference, masked=True),
        cells=tuple(_cell(trials.get(model, ()), trials.get(reference, ()), of, evaluation_step) for model in models),
    )


def _reference(check: CheckRecord) -> str:
    """Return the model whose gain is the whole: the one without a mask, else what the check compares with."""
    models = models_of([check])
    against = check.metric_params.get("against")
    return "unmasked" if "unmasked" in models or not isinstance(against, str) else against


def _read(check: CheckRecord, curves: ConceptCurves) -> tuple[Literal["loss", "rate"], int]:
    """Return loss or rate, as the check's metric reads it, and after which evaluation step."""
    last = min(
        (trial.evaluation_steps[-1] for model in curves.models for trial in model.trials if trial.evaluation_steps),
        default=0,
    )
    of, evaluation_step = check.metric_params.get("of"), check.metric_params.get("evaluation_step")
    return "rate" if of == "rate" else "loss", evaluation_step if isinstance(evaluation_step, int) else last


def _cell(trials: Sequence[Trial], control: Sequence[Trial], of: Literal["loss", "rate"], evaluation_step: int) -> str:
    """Return the mean share of the pairs of trials with the same number."""
    whole = {trial.seed: trial for trial in control}
    pairs = [(trial, whole[trial.seed]) for trial in trials if trial.seed in whole]
    try:
        shares = [ours.gain(of, evaluation_step) / theirs.gain(of, evaluation_step) for ours, theirs in pairs]
        usable = all(theirs.gain(of, evaluation_step) > 0 for _, theirs in pairs) and abs(fmean(shares)) < LARGEST
    except (ValueError, ArithmeticError):
        return NOTHING
    return figure(round(fmean(shares), 3), "share") if usable else NOTHING
