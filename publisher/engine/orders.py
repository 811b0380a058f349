"""Orders of steps that interfere or cannot be, told from what steps change and add. Nothing is loaded, no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from publisher.engine.plan import PlannedStep
from publisher.errors import UsageError
from publisher.safeguards import ALL
from publisher.safeguards.base import Safeguard

SAME = (
    "{earlier!r} and {later!r} are the same kind of step: the second one works on what the first one left, and may"
    " undo it. One step for all concepts knows of all of them."
)
UNDONE = "{later!r} may undo what {earlier!r} does: {reason}. Put {earlier!r} behind {later!r}."


def warnings(steps: Sequence[PlannedStep], denoiser: str) -> tuple[str, ...]:
    """Return one sentence for each two steps and each way in which they interfere.

    A step that only others know of interferes where it changes or adds the same.

    Args:
        steps: in their order. A step whose plan is not known yet is told by its name alone.
        denoiser: the component that denoises.
    """
    pairs = ((earlier, later) for place, later in enumerate(steps) for earlier in steps[:place])
    return tuple(
        sentence.format(earlier=earlier.identity.id, later=later.identity.id, reason=reason)
        for earlier, later in pairs
        for sentence, reason in _found(earlier, later, denoiser)
    )


def require_possible(steps: Sequence[PlannedStep]) -> None:
    """Refuse a step that changes weights before one that has to be the first, or after one that has to be the last.

    Args:
        steps: in their order. A step whose plan is not known yet may stand anywhere.

    Raises:
        UsageError: naming both, with the reason that the plan gives.
    """
    changing = [one for one in steps if one.plan and any(one.plan.changes.values())]
    for earlier, later in combinations(changing, 2):
        first, last = earlier.identity.id, later.identity.id
        if later.plan and later.plan.first:
            what = f"{first!r} changes weights before {last!r}: {later.plan.first}"
            raise UsageError(what, where="steps", hint=f"Put {last!r} before {first!r}.")
        if earlier.plan and earlier.plan.last:
            what = f"{last!r} changes weights after {first!r}: {earlier.plan.last}"
            raise UsageError(what, where="steps", hint=f"Leave {last!r} out, or change the parameters of {first!r}.")


def _found(earlier: PlannedStep, later: PlannedStep, denoiser: str) -> Iterator[tuple[str, str]]:
    """Yield each sentence, with the reason that the earlier step gives."""
    if later.plan and later.plan.changes.get(denoiser):
        yield from ((one.conflict, "") for one in ALL if _makes(earlier, one))
    reason = earlier.step.undone_by.get(later.identity.name)
    if reason:
        yield UNDONE, reason
    if earlier.identity.name == later.identity.name:
        yield SAME, ""


def _makes(step: PlannedStep, safeguard: Safeguard) -> bool:
    return bool(step.plan and any(safeguard.owns(name) for name in step.plan.artifacts))
