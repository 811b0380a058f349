"""What metrics of re-learning have in common: a control to be compared with."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from publisher.api import CurveMetric, Interval, Params
from publisher.builtin.metrics.curve_statistics import Curves


class AgainstParams(Params):
    """What the number is compared with."""

    against: str = Field(default="before", min_length=1)
    """The control: ``before``, ``base``, ``retrained`` or a step's id. It must be among the attack's ``controls``."""


class AgainstControl(CurveMetric[AgainstParams]):
    """What the metrics have in common."""

    version = "2"
    least_trials = 2

    def best(self, params: AgainstParams, n: int) -> Interval | None:  # noqa: ARG002
        """Nothing can be said beforehand: it depends on the evaluation steps and on the control."""
        return None


def about(hardened: Curves, params: AgainstParams) -> dict[str, Any]:
    """What every measurement says of its trials."""
    return {
        "against": params.against,
        "trials": hardened.trials,
        "images_a_evaluation_step": sum(
            images_per_evaluation * len(trials)
            for images_per_evaluation, trials in zip(hardened.images_per_evaluation, hardened.hits, strict=True)
        ),
        "full": dict(zip(hardened.concepts, hardened.full, strict=True)),
        "evaluation_steps": list(hardened.evaluation_steps),
    }
