"""What a scorer's features say of all images together, and what its texts say of each: no label is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from publisher.api import Interval, Measurement, Metric, NoParams, PixelPair, SetMetric
from publisher.api.intervals import mean_of_images, mean_of_pairs
from publisher.builtin.metrics.rates import grouped_by_concept, grouped_by_prompt

if TYPE_CHECKING:
    from publisher.api.metrics import Array

SIGMA = 10.0
"""Width of the kernel, for vectors of length 1."""
SCALE = 1000.0
MOST = 5000
"""Images that are compared: every two of them, so memory grows with the square."""


class SetDistance(SetMetric[NoParams]):
    """Distance of the hardened model's images to the base model's as two sets, by CMMD's kernel.

    S. Jayasumana et al., "Rethinking FID: Towards a Better Evaluation Metric for Image Generation" (2024): 1000 times
    the squared maximum mean discrepancy, with k(a, b) = exp(-|a - b|^2 / 200) of vectors of length 1. That is nearly
    10 times the squared distance of the mean vectors. Here the two sets share prompts and seeds, so it is the paired
    U-statistic, the mean over i != j of

        h_ij = k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) - k(x_j, y_i)

    which is 0 on average where hardening changed nothing; it can be below 0. The authors' own code keeps the diagonal
    in, and is above 0 for equal sets, the more the fewer images.

    The control is the base model against itself with other seeds: half of each prompt's images against the other half.
    """

    name = "set-distance"
    version = "1"
    better = "lower"
    unit = "x1000"
    summary = "distance of two sets of images by a scorer's features (CMMD's kernel, paired)"

    def compare(self, params: NoParams, pairs: Sequence[PixelPair], base: Array, hardened: Array) -> Measurement:  # noqa: ARG002
        """Return the distance, with a bootstrap over prompts; and of each concept alone that has six images.

        Raises:
            ValueError: fewer than six images, or more than :data:`MOST`.
        """
        if len(pairs) > MOST:
            raise ValueError(f"{len(pairs)} images are too many to compare every two of them; ask for {MOST} or fewer")
        prompts = list(grouped_by_prompt(pairs))
        clusters = [prompts.index((pair.concept, pair.prompt)) for pair in pairs]
        concepts = {
            name: [i for i, pair in enumerate(pairs) if pair.concept == name] for name in grouped_by_concept(pairs)
        }
        return Measurement(
            hardened=_distance(base, hardened, clusters),
            base=_control(base, clusters),
            by_concept={
                name: _distance(base[rows], hardened[rows], [clusters[i] for i in rows])
                for name, rows in concepts.items()
                if len(rows) >= 6 and len(concepts) > 1
            },
            prompts=len(prompts),
        )

    def best(self, params: NoParams, n: int) -> Interval | None:  # noqa: ARG002
        """Return None: how wide the interval is depends on the images."""
        return None


class PromptMatch(Metric[NoParams]):
    """Change of the cosine between image and prompt, pair by pair against the base model with the same seeds.

    Times 100 it is the change of the CLIP score, where no cosine is below 0.
    """

    name = "prompt-match"
    version = "1"
    better = "higher"
    unit = "cosine"
    summary = "change of the cosine of image and prompt (CLIP score), paired with the base model"
    judged = False
    matches = True

    def measure(self, params: NoParams, observations: Sequence[PixelPair]) -> Measurement:  # noqa: ARG002
        """Return the mean change, and of each concept alone that has six images.

        Raises:
            ValueError: fewer than three images, or a pair without its cosines.
        """
        if any(row.base_match is None or row.hardened_match is None for row in observations):
            raise ValueError("the cosines of images and prompts are not there")
        enough = {name: rows for name, rows in grouped_by_concept(observations).items() if len(rows) >= 6}
        before, after = (
            [float(getattr(row, name) or 0) for row in observations] for name in ("base_match", "hardened_match")
        )
        return Measurement(
            hardened=_change(observations),
            by_concept={name: _change(rows) for name, rows in enough.items() if len(enough) > 1},
            prompts=len(grouped_by_prompt(observations)),
            details={name: round(sum(some) / len(some), 6) for name, some in (("base", before), ("hardened", after))},
        )

    def best(self, params: NoParams, n: int) -> Interval | None:  # noqa: ARG002
        """Return None: how wide the interval is depends on the images."""
        return None


SETS: tuple[type[Metric[NoParams]], ...] = (SetDistance, PromptMatch)


def _change(observations: Sequence[PixelPair]) -> Interval:
    groups = grouped_by_prompt(observations).values()
    changes = [[(row.hardened_match or 0.0) - (row.base_match or 0.0) for row in rows] for rows in groups]
    return mean_of_images(changes, "prompt-match")


def _distance(base: Array, hardened: Array, clusters: Sequence[int]) -> Interval:
    numbers = {cluster: i for i, cluster in enumerate(dict.fromkeys(clusters))}
    cross = _kernel(base, hardened)
    pairs = _kernel(base, base) + _kernel(hardened, hardened) - cross - cross.T
    return mean_of_pairs(SCALE * pairs, [numbers[one] for one in clusters], "set-distance")


def _kernel(first: Array, second: Array) -> Array:
    """Return exp(-|a - b|^2 / (2 sigma^2)) of rows of length 1, for which |a - b|^2 = 2 - 2 a b."""
    import numpy as np

    return np.exp((first @ second.T - 1) / SIGMA**2)


def _control(base: Array, clusters: Sequence[int]) -> Interval | None:
    """Return the distance of the base model to itself with other seeds; None: no prompt has two images."""
    of_prompt: dict[int, list[int]] = {}
    for i, cluster in enumerate(clusters):
        of_prompt.setdefault(cluster, []).append(i)
    pairs = [(one, other) for rows in of_prompt.values() for one, other in zip(rows[::2], rows[1::2], strict=False)]
    if len(pairs) < 6:
        return None
    first, second = [one for one, _ in pairs], [other for _, other in pairs]
    return _distance(base[first], base[second], [clusters[i] for i in first])
