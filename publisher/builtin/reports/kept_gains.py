"""Trials under a freeze mask as a table: the share of an attacker's gain that each mask leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from publisher.api import CheckRecord, Trial
from publisher.builtin.gains import gain
from publisher.builtin.reports.relearning import Lesson, arms_of, lessons, masked, title
from publisher.builtin.reports.text import figure

MOST_ROWS = 400
LARGEST = 1e6
"""Share from which on the control gained as good as nothing."""
NOTHING = "\u2013"
"""The model was not attacked, or the control gained nothing."""


@dataclass(frozen=True)
class Row:
    """One concept under one attack."""

    concept: str
    innocent: bool
    """The check expects that it is still learned."""
    attack: str
    gain: str
    """What is read: the loss or the rate, and after how many steps."""
    of: str
    """Whose gain counts as 100%."""
    cells: tuple[str, ...]
    """For each model of the table."""


@dataclass(frozen=True)
class KeptGains:
    """All checks whose attacker honours masks."""

    arms: tuple[str, ...]
    """Headings."""
    rows: tuple[Row, ...]
    left_out: int
    """Rows beyond the last one."""


def kept_gains(checks: Sequence[CheckRecord]) -> KeptGains | None:
    """Shares by concept and mask; None where no check has a mask."""
    under = [check for check in checks if check.trials and masked(check)]
    if not under:
        return None
    arms = [arm for arm in arms_of(under) if any(arm != _reference(check) for check in under)]
    rows = list(dict.fromkeys(_row(check, lesson, arms) for check in under for lesson in lessons(check)))
    headings = tuple(title(arm, masked=True) for arm in arms)
    return KeptGains(headings, tuple(rows[:MOST_ROWS]), max(0, len(rows) - MOST_ROWS))


def _row(check: CheckRecord, lesson: Lesson, arms: Sequence[str]) -> Row:
    reference, (of, horizon) = _reference(check), _read(check, lesson)
    trials = {arm.name: arm.trials for arm in lesson.arms}
    innocents = check.metric_params.get("innocents")
    return Row(
        concept=lesson.concept,
        innocent=isinstance(innocents, list | tuple) and lesson.concept in innocents,
        attack=check.attack,
        gain=f"{of} after {horizon} steps",
        of=title(reference, masked=True),
        cells=tuple(_cell(trials.get(arm, ()), trials.get(reference, ()), of, horizon) for arm in arms),
    )


def _reference(check: CheckRecord) -> str:
    """The model whose gain is the whole: without a mask where there is one, else what the check compares with."""
    arms = arms_of([check])
    against = check.metric_params.get("against")
    return "unmasked" if "unmasked" in arms or not isinstance(against, str) else against


def _read(check: CheckRecord, lesson: Lesson) -> tuple[str, int]:
    """Loss or rate, as the check's metric reads it, and after which horizon."""
    last = min((trial.horizons[-1] for arm in lesson.arms for trial in arm.trials if trial.horizons), default=0)
    of, horizon = check.metric_params.get("of"), check.metric_params.get("horizon")
    return "rate" if of == "rate" else "loss", horizon if isinstance(horizon, int) else last


def _cell(trials: Sequence[Trial], control: Sequence[Trial], of: str, horizon: int) -> str:
    """The mean share of the pairs of trials with the same number."""
    whole = {trial.seed: trial for trial in control}
    pairs = [(trial, whole[trial.seed]) for trial in trials if trial.seed in whole]
    try:
        shares = [gain(ours, of, horizon) / gain(theirs, of, horizon) for ours, theirs in pairs]
        usable = all(gain(theirs, of, horizon) > 0 for _, theirs in pairs) and abs(fmean(shares)) < LARGEST
    except (ValueError, ArithmeticError):
        return NOTHING
    return figure(round(fmean(shares), 3), "share") if usable else NOTHING
