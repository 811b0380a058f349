"""Distances of pixels between two models' images of the same request. No scorer judges them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from publisher.api import Interval, Measurement, Metric, NoParams, Params, PixelPair
from publisher.api.intervals import median, quantile, share, widened
from publisher.builtin.metrics.rates import grouped_by_concept, grouped_by_prompt

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
ENDS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Ends of the bins of permeability: shut, four quarters, and more than one membrane's worth."""


class ImageDistance(Metric[NoParams]):
    """Median root mean square distance between the two models' images of the same request, on [0, 1] pixels."""

    name = "image-distance"
    version = "1"
    better = "lower"
    unit = "rms"
    summary = "median distance of images with the same seed, order statistics"
    judged = False

    def measure(self, params: NoParams, observations: Sequence[PixelPair]) -> Measurement:  # noqa: ARG002
        """Return the median and further quantiles; for each concept alone where it has six images or more.

        Raises:
            ValueError: fewer than six images.
        """
        distances = [row.distance for row in observations]
        enough = {name: rows for name, rows in grouped_by_concept(observations).items() if len(rows) >= 6}
        return Measurement(
            hardened=median(distances),
            by_concept={name: median([row.distance for row in rows]) for name, rows in enough.items()},
            prompts=len(grouped_by_prompt(observations)),
            details={"quantiles": {f"{p:g}": quantile(distances, p) for p in QUANTILES}},
        )

    def best(self, params: NoParams, n: int) -> Interval:  # noqa: ARG002
        """Return the number of ``n`` equal pairs; fewer than six raise ``ValueError`` as in :meth:`measure`."""
        return median([0.0] * n)


class ChangedImages(Metric[NoParams]):
    """Share of the images that are not the other model's, to the last bit, generated after the same request.

    A gate ``value_at_most: 0`` holds only where every image is equal. The interval says how many of the images that
    nobody asked for may still differ.
    """

    name = "changed-images"
    version = "1"
    better = "lower"
    summary = "share of images that differ at all from the base model's"
    judged = False

    def measure(self, params: NoParams, observations: Sequence[PixelPair]) -> Measurement:  # noqa: ARG002
        """Return the share of all images and of each concept's, and the largest distance.

        Raises:
            ValueError: no image.
        """
        if not observations:
            raise ValueError("there are no images to compare")
        farthest = max(observations, key=lambda row: row.distance)
        return Measurement(
            hardened=_changed(observations),
            by_concept={name: _changed(rows) for name, rows in grouped_by_concept(observations).items()},
            prompts=len(grouped_by_prompt(observations)),
            details={"largest": {"distance": farthest.distance, "prompt": farthest.prompt, "seed": farthest.seed}},
        )

    def best(self, params: NoParams, n: int) -> Interval:  # noqa: ARG002
        """Return the share where none of ``n`` differs."""
        return share(0, n)


def _changed(rows: Sequence[PixelPair]) -> Interval:
    clusters = [[float(row.distance > 0) for row in group] for group in grouped_by_prompt(rows).values()]
    return widened(share(sum(row.distance > 0 for row in rows), len(rows)), clusters, "changed-images")


class KeptDistanceParams(Params):
    """Parameters of ``kept-distance``: what is listed beside the number."""

    worst: int = Field(default=5, ge=1, le=100)
    """Number of the concepts that changed most to name."""


class KeptDistance(Metric[KeptDistanceParams]):
    """Distance by which the images of what stays have moved from the base model's, generated from the same noise.

    The number is that of ``image-distance``: the median root mean square distance on [0, 1] pixels. Beside it stand the
    concepts that moved most, the share of images that are the base model's bit for bit, and where membranes open by the
    prompt the distance by permeability: it tells whether what moved is what the membranes let through.
    """

    name = "kept-distance"
    version = "1"
    better = "lower"
    unit = "rms"
    summary = "median distance of what stays to the base model, worst concepts, by permeability"
    judged = False

    def measure(self, params: KeptDistanceParams, observations: Sequence[PixelPair]) -> Measurement:
        """Return the median of all images, and for each concept alone where it has six images or more.

        Raises:
            ValueError: fewer than six images.
        """
        found = median([row.distance for row in observations])
        concepts = {name: [row.distance for row in rows] for name, rows in grouped_by_concept(observations).items()}
        same = sum(row.distance == 0 for row in observations)
        return Measurement(
            hardened=found,
            by_concept={name: median(distances) for name, distances in concepts.items() if len(distances) >= 6},
            prompts=len(grouped_by_prompt(observations)),
            details={
                "unchanged": share(same, len(observations)).as_json(),
                "worst": _farthest(concepts, params.worst),
                **_by_permeability(observations),
            },
        )

    def best(self, params: KeptDistanceParams, n: int) -> Interval:  # noqa: ARG002
        """Return the number of ``n`` equal pairs; fewer than six raise ``ValueError`` as in :meth:`measure`."""
        return median([0.0] * n)


DISTANCES: tuple[type[Metric[Any]], ...] = (ImageDistance, ChangedImages, KeptDistance)


def _farthest(concepts: dict[str, list[float]], k: int) -> list[dict[str, Any]]:
    """Return the largest medians first; equal ones in the order of the check."""
    medians = {name: quantile(distances, 0.5) for name, distances in concepts.items()}
    ordered = sorted(medians, key=lambda name: -medians[name])[:k]
    return [{"concept": name, "median": medians[name], "n": len(concepts[name])} for name in ordered]


def _by_permeability(observations: Sequence[PixelPair]) -> dict[str, Any]:
    """Return n and median of the images between two neighbours of :data:`ENDS`; nothing without a membrane."""
    bins: dict[int, list[float]] = {}
    for row in observations:
        if row.permeability is not None:
            bins.setdefault(bisect_left(ENDS, row.permeability), []).append(row.distance)
    if not bins:
        return {}
    return {
        "by_permeability": [
            {"permeability": _between(place), "n": len(distances), "median": quantile(distances, 0.5)}
            for place, distances in sorted(bins.items())
        ]
    }


def _between(place: int) -> str:
    if place == 0:
        return "0"
    if place == len(ENDS):
        return f"> {ENDS[-1]:g}"
    return f"> {ENDS[place - 1]:g} to {ENDS[place]:g}"
