"""What a replay says of a package: what was made again, and whether it reproduces, agrees with, or contradicts it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from publisher.api import Gate, Interval, ReleaseReport
from publisher.api.intervals import share
from publisher.api.verdicts import decide
from publisher.errors import ExitCode
from publisher.release.finds import Reason, ReplayedFind

Outcome = Literal["reproduced", "agrees", "compatible", "contradicts", "undecided"]
CODES = {
    "reproduced": ExitCode.OK,
    "agrees": ExitCode.OK,
    "compatible": ExitCode.OK,
    "contradicts": ExitCode.REFUSED,
    "undecided": ExitCode.INCONCLUSIVE,
}
CHANCE = 0.001
"""Largest probability at which digests that differ for the hardened model alone are no chance."""
FEW, MANY = 0.05, 0.10
"""Share of judgements that may differ on another kind of machine; and largest upper end at which that is settled."""


@dataclass(frozen=True)
class ReplayedImage:
    """One line of the evidence, generated again by both models."""

    check: str
    concept: str
    prompt: str
    seed: int
    same_base: bool
    """The base model's image has the recorded digest."""
    same_hardened: bool
    """The hardened model's has."""
    agrees: bool | None
    """The scorer sees in both what the evidence says; None: nobody judges the images of this check."""
    shift: float
    """Distance of the two images to each other, less the recorded one, on [0, 1] pixels."""


@dataclass(frozen=True)
class FreshCheck:
    """A check that was made with new seeds."""

    check: str
    gate: Gate | None
    found: Interval | None
    """Number of the new images; None: it could not be measured."""
    claimed: Interval | None
    """Number of the package."""
    outcome: Outcome
    reason: str = ""
    """Why it could not be measured."""


@dataclass(frozen=True)
class Replay:
    """What became of it."""

    report: ReleaseReport
    sums: str
    """sha256 of the package's list of digests: what a statement is about."""
    seed: int
    """Of the choice of images, or the first of the new ones."""
    images: tuple[ReplayedImage, ...] = ()
    checks: tuple[FreshCheck, ...] = ()
    finds: tuple[ReplayedFind, ...] = ()
    left_out: tuple[str, ...] = ()
    """Checks that were not made again, because their attacks train, change weights or search."""
    lines_left_out: Mapping[Reason, int] = field(default_factory=dict)
    """Why lines of evidence, or finds, were not made again -> how many."""

    @property
    def outcome(self) -> Outcome:
        """The answer: of checks the worst, of finds that of :func:`compare_finds`, else of :func:`compare_images`.

        Where lines were left out that no release makes, nothing is shown of them: it is *undecided* at best.
        """
        if self.checks:
            kept = {check.outcome for check in self.checks if check.gate}
            return next((one for one in ("contradicts", "undecided") if one in kept), "compatible")
        found = compare_finds(self.finds) if self.finds else compare_images(self.images)
        strange = self.lines_left_out.keys() - {"not_given"}
        return "undecided" if strange and found != "contradicts" else found

    @property
    def code(self) -> ExitCode:
        """The command's exit code."""
        return CODES[self.outcome]


def compare_images(images: Sequence[ReplayedImage]) -> Outcome:
    """Return what images that were generated again say of the evidence.

    All digests equal: it is *reproduced*. It *contradicts* where images of the hardened model have another digest while
    those of the base model have the recorded one, far more often than the reverse: then this machine generates as the
    release's did, and the weights are not those that were tested. Otherwise judgements are compared: it *contradicts*
    where more than :data:`FEW` of them differ beyond the 95% interval, and *agrees* where that interval ends below
    :data:`MANY`.
    """
    if all(one.same_base and one.same_hardened for one in images):
        return "reproduced" if images else "undecided"
    from scipy.stats import binomtest

    alone = sum(one.same_base and not one.same_hardened for one in images)
    reverse = sum(one.same_hardened and not one.same_base for one in images)
    if alone and binomtest(alone, alone + reverse, alternative="greater").pvalue < CHANCE:
        return "contradicts"
    return _compare_judgements([one.agrees for one in images if one.agrees is not None])


def compare_finds(finds: Sequence[ReplayedFind]) -> Outcome:
    """Return what finds that were tried again say of the package.

    It *contradicts* where the package has not sealed one of them. All digests equal: it is *reproduced*. Otherwise
    judgements are compared, as for other images. Those that were left out say nothing.
    """
    if not all(one.sealed for one in finds):
        return "contradicts"
    if all(one.same == one.n for one in finds):
        return "reproduced" if any(one.n for one in finds) else "undecided"
    return _compare_judgements([agrees for one in finds for agrees in one.agrees])


def _compare_judgements(agree: Sequence[bool]) -> Outcome:
    """Compare judgements on another kind of machine, where pixels differ."""
    if not agree:
        return "undecided"
    found = share(agree.count(False), len(agree))
    return "contradicts" if found.low > FEW else "agrees" if found.high <= MANY else "undecided"


def compare_with_gate(gate: Gate | None, found: Interval) -> Outcome:
    """Return what a new number says of a gate: it keeps it, its whole interval is beyond one bound, or neither."""
    if gate is None:
        return "compatible"
    most = [one for one in (gate.upper_at_most, gate.value_at_most) if one is not None]
    least = [one for one in (gate.lower_at_least, gate.value_at_least) if one is not None]
    if any(found.low > bound for bound in most) or any(found.high < bound for bound in least):
        return "contradicts"
    return "compatible" if decide(gate, found)[0] == "passed" else "undecided"
