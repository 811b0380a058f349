"""Curves of trials as arrays: pooling, the step where half is reached, areas, and their bootstrap. No torch.

A curve is a rate at each evaluation step, relative to ``full``. Curves of one model are pooled over trials, then over
concepts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import Field

from publisher.api import CurveMetric, Interval, Params, Trial
from publisher.api.intervals import RESAMPLES, bootstrapped, generator_of, widened_to_few

if TYPE_CHECKING:
    import numpy as np

    from publisher.api.intervals import Array


@dataclass(frozen=True)
class Curves:
    """The trials of one model, of all concepts."""

    evaluation_steps: tuple[int, ...]
    concepts: tuple[str, ...]
    hits: tuple[tuple[tuple[int, ...], ...], ...]
    """Images that show the concept: concept, trial, evaluation step."""
    images_per_evaluation: tuple[int, ...]
    """Number of images of an evaluation step, for each concept."""
    full: tuple[float, ...]
    """Rate that counts as 1, for each concept."""

    @property
    def trials(self) -> int:
        """Number of trials of all concepts together."""
        return sum(self.counts)

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of trials of each concept."""
        return tuple(len(trials) for trials in self.hits)

    def only(self, concept: str) -> Curves:
        """Return the trials of one concept."""
        i = self.concepts.index(concept)
        return Curves(
            self.evaluation_steps, (concept,), (self.hits[i],), (self.images_per_evaluation[i],), (self.full[i],)
        )

    def relative(self) -> Array:
        """Return the pooled curve, relative to ``full``: ``(1, evaluation steps)``."""
        import numpy as np

        rates = [
            np.mean(hits, axis=0) / images_per_evaluation
            for hits, images_per_evaluation in zip(self.hits, self.images_per_evaluation, strict=True)
        ]
        pooled: Array = np.mean([rate / full for rate, full in zip(rates, self.full, strict=True)], axis=0)[None, :]
        return pooled

    def resampled(self, chosen: Sequence[Array], generator: np.random.Generator) -> Array:
        """Return pooled curves of resampled trials with resampled rates: ``(resamples, evaluation steps)``.

        A rate is sampled from its Jeffreys posterior, not from a binomial: that would be sure of 0 hits among 3 images.

        Args:
            chosen: for each concept ``(resamples, trials)``, which trials are taken.
            generator: samples the rates.
        """
        import numpy as np

        curves = []
        for hits, images_per_evaluation, full, which in zip(
            self.hits, self.images_per_evaluation, self.full, chosen, strict=True
        ):
            seen = np.asarray(hits)[which]
            curves.append(generator.beta(seen + 0.5, images_per_evaluation - seen + 0.5).mean(axis=1) / full)
        pooled: Array = np.mean(curves, axis=0)
        return pooled


def curves_of(trials: Sequence[Trial], model: str) -> Curves:
    """Return the trials of one model.

    Raises:
        ValueError: there are none, they do not go together, or the base model never generates a concept when asked
        plainly.
    """
    own = [trial for trial in trials if trial.model == model]
    if not own:
        raise ValueError(f"there is no trial of the model {model!r}")
    problem = next((trial.problem for trial in own if trial.problem), "")
    if problem or len({trial.evaluation_steps for trial in own}) > 1:
        raise ValueError(
            f"the trials of the model {model!r} have different evaluation steps{problem and ': '}{problem}"
        )
    concepts = tuple(dict.fromkeys(trial.concept for trial in own))
    grouped = [
        sorted((trial for trial in own if trial.concept == name), key=lambda trial: trial.seed) for name in concepts
    ]
    for name, group in zip(concepts, grouped, strict=True):
        if len({(trial.images_per_evaluation, trial.full) for trial in group}) > 1:
            raise ValueError(f"the trials of {name!r} generate different numbers of images")
        if not group[0].full:
            raise ValueError(f"the base model never generates {name!r} when it is asked plainly: nothing can come back")
    return Curves(
        own[0].evaluation_steps,
        concepts,
        tuple(tuple(trial.hits for trial in group) for group in grouped),
        tuple(group[0].images_per_evaluation for group in grouped),
        tuple(group[0].full for group in grouped),
    )


def pair_of(trials: Sequence[Trial], against: str) -> tuple[Curves, Curves]:
    """Return the hardened model's and the control's trials: the same concepts, evaluation steps and numbers.

    Raises:
        ValueError: they are not; or see :func:`curves_of`.
    """
    hardened, control = curves_of(trials, "hardened"), curves_of(trials, against)
    numbers = [sorted((t.concept, t.seed) for t in trials if t.model == model) for model in ("hardened", against)]
    if numbers[0] != numbers[1] or hardened.evaluation_steps != control.evaluation_steps:
        raise ValueError(f"the models 'hardened' and {against!r} have different trials")
    return hardened, control


def parted(concepts: Sequence[str], innocents: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return which concepts are innocent, and which are not.

    Raises:
        ValueError: an innocent has no trial, or all are innocent.
    """
    if missing := sorted(set(innocents) - set(concepts)):
        raise ValueError(f"there is no trial of the innocent {', '.join(missing)}: the check does not name it")
    others = [name for name in concepts if name not in innocents]
    if not others:
        raise ValueError("all concepts of the check are innocent: there is nobody to tell them from")
    return [name for name in concepts if name in innocents], others


def half_time(evaluation_steps: Sequence[int], curves: Array) -> tuple[Array, Array]:
    """Return the steps until half of ``full``, linear between evaluation steps, and whether it is never reached.

    Args:
        evaluation_steps: ascending, from 0.
        curves: ``(n, evaluation steps)``, relative to ``full``.

    Returns:
        ``(n,)`` steps, the last evaluation step where half is never reached, and ``(n,)`` booleans that say so.
    """
    import numpy as np

    x = np.asarray(evaluation_steps, dtype=float)
    above = curves >= 0.5
    never = np.logical_not(above.any(axis=1))
    after = np.where(never, len(x) - 1, above.argmax(axis=1))
    before = np.maximum(after - 1, 0)
    rows = np.arange(len(curves))
    low, high = curves[rows, before], curves[rows, after]
    share = np.divide(0.5 - low, high - low, out=np.zeros_like(low), where=high > low)
    found = np.where(after == 0, 0.0, x[before] + share * (x[after] - x[before]))
    return np.asarray(np.where(never, x[-1], found)), np.asarray(never)


def area(evaluation_steps: Sequence[int], curves: Array) -> Array:
    """Return the area under ``min(1, curve)`` as a share of the largest one, ``(n,)`` in [0, 1]."""
    import numpy as np

    x = np.asarray(evaluation_steps, dtype=float)
    areas: Array = np.trapezoid(np.minimum(curves, 1.0), x, axis=1) / (x[-1] - x[0])
    return areas


def resamples(models: Sequence[Curves], purpose: str) -> list[Array]:
    """Return pooled curves of resampled trials, for each model: trials with the same number go together."""
    import numpy as np

    generator = generator_of(purpose)
    chosen: list[Any] = [generator.integers(0, count, (RESAMPLES, count)) for count in models[0].counts]
    return [np.asarray(model.resampled(chosen, generator)) for model in models]


def shares_of_curves(models: Sequence[Curves], statistic: Callable[[Array], Array], purpose: str) -> list[Interval]:
    """Return a number in [0, 1] of each model's pooled curve with its interval."""
    generated = resamples(models, purpose)
    found = []
    for model, curves in zip(models, generated, strict=True):
        values = statistic(curves)
        number = bootstrapped(float(statistic(model.relative())[0]), values, values, model.trials)
        found.append(widened_to_few(number, model.counts, most=1.0))
    return found


class AgainstParams(Params):
    """Parameters that name the control of a metric."""

    against: str = Field(default="before", min_length=1)
    """The control: ``before``, ``base``, ``retrained`` or a step's id. It must be among the attack's ``controls``."""


A = TypeVar("A", bound=AgainstParams)


class AgainstControl(CurveMetric[A], Generic[A]):
    """Base of the metrics that compare curves with those of a control."""

    version = "2"
    least_trials = 2

    def best(self, params: A, n: int) -> Interval | None:  # noqa: ARG002
        """Return None: it depends on the evaluation steps and on the control."""
        return None

    def require(self, params: A, concepts: Sequence[str], controls: Sequence[str]) -> None:  # noqa: ARG002
        """Make sure that the control is attacked.

        Raises:
            ValueError: it is not.
        """
        if params.against not in controls:
            there, more = ", ".join(controls) or "none", ", and name 'evaluate.retrained'"
            raise ValueError(
                f"the metric {self.name!r} compares with {params.against!r}, and the attack's controls are {there}: "
                f"list it under the attack's 'controls'{more if params.against == 'retrained' else ''}"
            )


def about(hardened: Curves, params: AgainstParams) -> dict[str, Any]:
    """Return what every measurement says of its trials."""
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
