"""Orders of steps that are known to interfere, told from what steps change and add. Nothing is loaded, no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from publisher.api.freeze_mask import FILE as MASK
from publisher.api.membranes import FOLDER
from publisher.engine.plan import PlannedStep


@dataclass(frozen=True)
class _Pair:
    """Two steps of a plan, in their order."""

    earlier: PlannedStep
    later: PlannedStep
    denoiser: str

    @property
    def reweighed(self) -> bool:
        """The later one changes weights of the denoiser."""
        plan = self.later.plan
        return bool(plan and plan.changes.get(self.denoiser))

    def adds(self, start: str) -> bool:
        """The earlier one adds an artifact whose name begins so."""
        plan = self.earlier.plan
        return bool(plan and any(name.startswith(start) for name in plan.artifacts))

    def named(self, earlier: str, later: str) -> bool:
        """By the names of the plugins."""
        return (self.earlier.identity.name, self.later.identity.name) == (earlier, later)


@dataclass(frozen=True)
class _Rule:
    """When two steps interfere, and what to do."""

    applies: Callable[[_Pair], bool]
    sentence: str
    """With the ids as ``{earlier}`` and ``{later}``."""


RULES = (
    _Rule(
        lambda pair: pair.adds(MASK) and pair.reweighed,
        "{later!r} changes the denoiser after {earlier!r} has made the freeze mask: the release stops if it changes"
        " anything that is frozen. Put {earlier!r} behind {later!r}.",
    ),
    _Rule(
        lambda pair: pair.adds(f"{FOLDER}/") and pair.reweighed,
        "{earlier!r} makes membranes for weights that {later!r} changes afterwards: they were trained on others. Put"
        " {earlier!r} behind {later!r}.",
    ),
    _Rule(
        lambda pair: pair.named("immunize", "erase"),
        "{later!r} edits cross-attention after {earlier!r} has immunised it, and may undo that. Put {earlier!r} behind"
        " {later!r}.",
    ),
    _Rule(
        lambda pair: pair.earlier.identity.name == pair.later.identity.name,
        "{earlier!r} and {later!r} are the same kind of step: the second one works on what the first one left, and may"
        " undo it. One step for all concepts knows of all of them.",
    ),
)
"""What is known. A step that only others know of interferes where it changes or adds the same."""


def warnings(steps: Sequence[PlannedStep], denoiser: str) -> tuple[str, ...]:
    """One sentence for each two steps and each rule that applies to them.

    Args:
        steps: in their order. A step whose plan is not known yet is told by its name alone.
        denoiser: the component that denoises.
    """
    pairs = [_Pair(earlier, later, denoiser) for place, later in enumerate(steps) for earlier in steps[:place]]
    return tuple(
        rule.sentence.format(earlier=pair.earlier.identity.id, later=pair.later.identity.id)
        for pair in pairs
        for rule in RULES
        if rule.applies(pair)
    )
