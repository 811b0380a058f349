"""What the report gets: numbers, curves, warnings. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from publisher.api.freeze_mask import FreezeMask, jaccard
from publisher.api.steps import MOST_POINTS

if TYPE_CHECKING:
    from publisher_freeze_mask.learn import Learned
    from publisher_freeze_mask.make import Masks
    from publisher_freeze_mask.units import Units

Number = tuple[str, float, str]
Curve = tuple[str, list[float], list[float], str]
SIDES = ("illegal", "innocent")


def numbers(masks: Masks, mask: FreezeMask, units: Units) -> list[Number]:
    """Both ratios; what the fine-tunings gained and what the scores add up to; how alike masks are."""
    candidates = mask.candidates
    found: list[Number] = [
        ("parameters frozen", mask.parameters.value, "of all"),
        ("tensors frozen", mask.tensors.value, "of all"),
    ]
    for side in SIDES:
        found += _side(masks.learned, side, units)
    for seed, other in enumerate(masks.others, 1):
        found.append((f"alike: seed-{seed}", jaccard(masks.learned.mask, other.mask, candidates), "Jaccard"))
    if masks.swapped:
        found.append(("alike: sides exchanged", jaccard(masks.learned.mask, masks.swapped.mask, candidates), "Jaccard"))
    if masks.learned.initial is not None:
        alike = jaccard(masks.learned.mask, masks.learned.initial, candidates)
        found.append(("alike: its initialisation", alike, "Jaccard"))
    return found


def curves(learned: Learned) -> list[Curve]:
    """The fine-tunings' losses as means over windows, and what the relaxed mask took from each side."""
    found = [(f"{one.job.label} loss", *_thin(one.losses), "") for one in learned.adapted]
    for column, side in enumerate(SIDES):
        values = [row[column] for row in learned.lost]
        if values:
            found.append((f"relaxed mask: {side} gain lost", *_thin(values), "of it"))
    return found


def warnings(learned: Learned, tolerance: float) -> list[str]:
    """An empty mask; fine-tunings whose scores do not add up to what was gained."""
    found = [] if learned.mask else ["nothing is frozen: the mask is empty"]
    return found + [
        f"the scores of {one.job.label!r} add up to {one.path.predicted:.4f}, the loss fell by {one.path.gain:.4f}: "
        "take more points (score.points)"
        for one in learned.adapted
        if abs(one.path.predicted - one.path.gain) > tolerance * abs(one.path.gain)
    ]


def _side(learned: Learned, side: str, units: Units) -> list[Number]:
    paths = [one.path for one in learned.adapted if one.job.side == side]
    if not paths:
        return []
    marked = units.marked(learned.mask)
    inside = [float((units.vector(path.scores) * marked).sum()) / path.predicted for path in paths]
    return [
        (f"{side}: loss fell by", _mean([path.gain for path in paths]), ""),
        (f"{side}: scores add up to", _mean([path.predicted for path in paths]), ""),
        (f"{side}: scores of what is frozen", _mean(inside), "of all"),
    ]


def _thin(values: Sequence[float]) -> tuple[list[float], list[float]]:
    size = max(1, -(-len(values) // MOST_POINTS))
    windows = [values[i : i + size] for i in range(0, len(values), size)]
    return [float(min((i + 1) * size, len(values))) for i in range(len(windows))], [_mean(w) for w in windows]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
