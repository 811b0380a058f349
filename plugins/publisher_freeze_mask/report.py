"""What the report gets: numbers, curves, warnings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from publisher.api.diffusion.loop import thin
from publisher.api.freeze_mask import FreezeMask, jaccard

if TYPE_CHECKING:
    from publisher_freeze_mask.learn import LearnedMask, Masks
    from publisher_freeze_mask.units import Units

ReportNumber = tuple[str, float, str]
"""Name, value, unit."""
ReportCurve = tuple[str, list[float], list[float], str]
"""Name, steps, values, unit."""
SIDES = ("illegal", "innocent")


def numbers(masks: Masks, mask: FreezeMask, units: Units) -> list[ReportNumber]:
    """Return both ratios; what the fine-tunings gained and what the scores add up to; how alike masks are."""
    candidates = mask.candidates
    found: list[ReportNumber] = [
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


def curves(learned: LearnedMask) -> list[ReportCurve]:
    """Return the fine-tunings' losses, and what the relaxed mask took from each side, as means over windows."""
    found = [(f"{one.what.label} loss", *thin(one.losses), "") for one in learned.tunings]
    for column, side in enumerate(SIDES):
        values = [row[column] for row in learned.lost]
        if values:
            found.append((f"relaxed mask: {side} gain lost", *thin(values), "of it"))
    return found


def warnings(learned: LearnedMask, tolerance: float) -> list[str]:
    """Return warnings of an empty mask, and of fine-tunings whose scores do not add up to what was gained."""
    found = [] if learned.mask else ["nothing is frozen: the mask is empty"]
    return found + [
        f"the scores of {one.what.label!r} add up to {one.path.predicted:.4f}, the loss fell by {one.path.gain:.4f}: "
        "take more points (score.points)"
        for one in learned.tunings
        if abs(one.path.predicted - one.path.gain) > tolerance * abs(one.path.gain)
    ]


def _side(learned: LearnedMask, side: str, units: Units) -> list[ReportNumber]:
    paths = [one.path for one in learned.tunings if one.what.side == side]
    if not paths:
        return []
    marked = units.marked(learned.mask)
    inside = [float((units.vector(path.scores) * marked).sum()) / path.predicted for path in paths]
    return [
        (f"{side}: loss fell by", _mean([path.gain for path in paths]), ""),
        (f"{side}: scores add up to", _mean([path.predicted for path in paths]), ""),
        (f"{side}: scores of what is frozen", _mean(inside), "of all"),
    ]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
