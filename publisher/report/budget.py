"""Checks by training in words and as a table: what an attack had, and what it took to break the hardening."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from publisher.api import CheckRecord
from publisher.report.relearning import (
    HALF,
    MASKED,
    NEARLY_ALL,
    ConceptCurves,
    curves_by_concept,
    masked,
    models_of,
    title,
)
from publisher.report.wording import ALONE, HONOURS, count, figure, span

MOST_ROWS, MOST_MODELS = 400, 8
NOT_RUN = ("\u2013", "\u2013")
"""Cells of a model that a check did not attack."""


@dataclass(frozen=True)
class BudgetRow:
    """Row of the table: one check on one concept."""

    concept: str
    attack: str
    captions: str
    images: str
    trials: int
    """Number of trials of the hardened model on this concept."""
    cells: tuple[tuple[str, str], ...]
    """Steps to one half and to nine tenths, for each model of the table."""


@dataclass(frozen=True)
class BudgetTable:
    """Table of all checks by training: how many steps break the hardening."""

    models: tuple[str, ...]
    """Titles of the models: headings of the columns."""
    rows: tuple[BudgetRow, ...]
    left_out: int
    """Number of rows beyond the last one that is shown."""


def budget(checks: Sequence[CheckRecord]) -> BudgetTable:
    """Return the steps to break, of every check by training on every concept and model."""
    models = models_of(checks)[:MOST_MODELS]
    rows = [_row(check, curves, models) for check in checks for curves in curves_by_concept(check)]
    return BudgetTable(tuple(map(title, models)), tuple(rows[:MOST_ROWS]), max(0, len(rows) - MOST_ROWS))


def _row(check: CheckRecord, curves: ConceptCurves, models: Sequence[str]) -> BudgetRow:
    there = {model.name: model for model in curves.models}
    return BudgetRow(
        concept=curves.concept,
        attack=_attack(check),
        captions=str(check.attack_params.get("captions", "")),
        images=str(check.attack_params.get("images", "")),
        trials=len(there["hardened"].trials) if "hardened" in there else 0,
        cells=tuple(
            (there[model].delay(HALF).brief, there[model].delay(NEARLY_ALL).brief) if model in there else NOT_RUN
            for model in models
        ),
    )


def _attack(check: CheckRecord) -> str:
    how = [*([] if check.attached else [ALONE]), *([MASKED] if masked(check) else [])]
    return f"{check.attack} ({', '.join(how)})" if how else check.attack


def alone(check: CheckRecord, concept: str) -> str:
    """Return the number of one concept: ``"6.2x (3.9x to 9.1x)"``; empty where it was not measured alone.

    Where it is another figure than the check's, its name stands before it.
    """
    found = check.measurement.by_concept.get(concept) if check.measurement else None
    if found is None:
        return ""
    unit = check.concept_unit or check.unit
    number = f"{figure(found.value, unit)} ({span(found, unit)})"
    return f"{check.concept_figure}: {number}" if check.concept_figure else number


def steps(check: CheckRecord) -> list[str]:
    """Return the steps to one half of each concept: ``"cat: hardened 60, before 8.12, retrained not within 160"``."""
    return [
        f"{curves.concept}: " + ", ".join(f"{model.name} {model.delay().words}" for model in curves.models)
        for curves in curves_by_concept(check)
    ]


def attack(check: CheckRecord) -> str:
    """Return what the attacker had: ``"attack lora, captions: rare, 20 images, batches of 4, at most 160 steps"``."""
    given = check.attack_params
    parts = [f"attack {check.attack}"]
    parts += [f"captions: {given['captions']}"] if "captions" in given else []
    parts += [count(given["images"], "image")] if isinstance(given.get("images"), int) else []
    parts += [HONOURS] if masked(check) else []
    parts += [f"batches of {given['batch']}"] if isinstance(given.get("batch"), int) else []
    last = max((trial.evaluation_steps[-1] for trial in check.trials if trial.evaluation_steps), default=0)
    return ", ".join([*parts, f"at most {count(last, 'step')}"])
