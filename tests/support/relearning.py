"""A check of re-learning in the grey world."""

from __future__ import annotations

from typing import Any

from publisher.api import Check, CheckRecord, Gate
from publisher.evaluate.checks import Evaluation
from support.grey import check

SMALL = {
    "images": 3,
    "evaluation_steps": [0, 10, 20],
    "seeds": 3,
    "images_per_evaluation": 4,
    "controls": ["base", "before"],
}
STEPS = {"base": 10, "before": 10, "hardened": 20}


def relearn(**changes: Any) -> Check:
    """Return the check that ``cigarette`` takes at least 1.5 times as many steps as before."""
    params = SMALL | changes.pop("params", {})
    fields = {"attack": "relearn", "metric": "t50-ratio", "gate": Gate(lower_at_least=1.5), "attack_params": params}
    return check(**{**fields, "id": "relearn", **changes})


def only(result: Evaluation) -> CheckRecord:
    """Return the record of the only check."""
    return result.claims[0].checks[0]
