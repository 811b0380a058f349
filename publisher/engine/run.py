"""Run the steps of a plan, one after the other, and keep what each of them left."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from publisher.api import StepEnd, StepPlan, StepRecord, StepStart
from publisher.engine.cache import StepCache, StepResult
from publisher.engine.plan import PlannedStep, guarded
from publisher.engine.progress import Progress
from publisher.engine.references import Source
from publisher.errors import PluginError, PublisherError
from publisher.model.digest import sha256_file
from publisher.model.inputs import input_digest
from publisher.model.state import Delta, State

if TYPE_CHECKING:
    from publisher.engine.context import RunningStep

Notify = Callable[[str, Any], object]


@dataclass(frozen=True)
class Hardened:
    """The states of a release: ``states[0]`` is the base, ``states[i]`` the model after step i."""

    states: tuple[State, ...]
    results: tuple[StepResult, ...]
    seconds: dict[str, float]
    """Step id -> wall seconds; of cached steps, of reading them."""
    cached: tuple[str, ...]
    """Ids of the steps that came from the cache."""

    @property
    def final(self) -> State:
        """The hardened model."""
        return self.states[-1]


def harden(base: State, steps: Sequence[PlannedStep], work: Path, progress: Progress, notify: Notify) -> Hardened:
    """Run every step that the cache does not hold.

    A killed run leaves its finished steps in ``work``; the same call goes on with the next one.

    Raises:
        PublisherError: a step failed; finished steps stay in the cache.
    """
    cache = StepCache(work)
    states, results, seconds, cached = [base], [], {}, []
    for number, step in enumerate(steps, 1):
        start = time.monotonic()
        progress.say(_phase(number, len(steps), step))
        key = step.identity.key(states[-1].digest)
        result = _reuse(cache, key, step, states[-1], progress)
        if result is None:
            notify("publisher_on_step_start", StepStart(step.identity.id, step.identity.name))
            result = _run(step, states[-1], cache, key, progress)
        else:
            cached.append(step.identity.id)
            progress.say(f"{step.identity.id}: unchanged, taken from the cache")
        seconds[step.identity.id] = time.monotonic() - start
        states.append(states[-1].after(result.delta))
        results.append(result)
        event = StepEnd(result.record, step.identity.id in cached, seconds[step.identity.id])
        notify("publisher_on_step_end", event)
    return Hardened(tuple(states), tuple(results), seconds, tuple(cached))


def _phase(number: int, of: int, step: PlannedStep) -> str:
    about = ", ".join(concept.id for concept in step.identity.scope.concepts)
    what = f": {step.step.summary}" if step.step.summary else ""
    return f"Step {number} of {of}, {step.identity.id} on {about}{what}"


def _reuse(cache: StepCache, key: str, step: PlannedStep, state: State, progress: Progress) -> StepResult | None:
    if not cache.has(key):
        return None
    result = cache.load(key)
    if result is None or not _fits(result, step, state):
        where = step.identity.id
        progress.warn(f"{where}: the cached result was changed or damaged; it is thrown away and computed again")
        cache.discard(key)
        return None
    return result


def _fits(result: StepResult, step: PlannedStep, state: State) -> bool:
    """Tell whether a cached result says of itself what the step would, and holds what the plan promises."""
    record, identity = result.record, step.identity
    if (record.id, record.name, record.params) != (identity.id, identity.name, identity.params):
        return False
    if step.plan and _promised(step.plan) != {part: sorted(names) for part, names in result.delta.tensors.items()}:
        return False
    return (record.input, record.output) == (state.digest, state.after(result.delta).digest)


def _run(step: PlannedStep, state: State, cache: StepCache, key: str, progress: Progress) -> StepResult:
    # Imports torch: only steps that really run pay for it.
    from publisher.engine.context import RunningStep

    identity = step.identity
    context = RunningStep(identity, state, cache.scratch(key), progress, _references(step, state))
    before = stamps(state)
    plan = guarded(identity, lambda: step.step.plan(step.params, identity.scope, state))
    for note in plan.notes:
        context.warn(note)
    guarded(identity, lambda: step.step.run(step.params, context))
    if stamps(state) != before:
        raise PluginError(f"step {identity.id!r} changed the files of its input", hint="A step may only use ctx.write.")
    _check_plan(identity.id, plan, context)
    read = {name: input_digest(name, path) for name, path in step.step.files.items()}
    if read != dict(identity.inputs) or _seen(step, state) != identity.references:
        raise PublisherError(f"a file that step {identity.id!r} reads changed meanwhile", hint="Run it again.")
    folder = cache.begin(key)
    context.save(folder)
    written = {part: sha256_file(folder / "delta" / f"{part}.safetensors") for part in context.changed()}
    cache.commit(key, folder, _record(step, context, state, Delta.of(folder / "delta", written)))
    result = cache.load(key)
    if result is None:
        raise PublisherError(f"the result of step {identity.id!r} cannot be read back", where=str(folder.parent / key))
    return result


def _references(step: PlannedStep, state: State) -> Source | None:
    import torch

    if step.references is None:
        return None
    device = step.identity.device
    where = torch.device(device.name), getattr(torch, device.dtype)
    return step.references.source(step.identity.scope, state.base.path, state.anatomy, *where)


def _seen(step: PlannedStep, state: State) -> dict[str, Any]:
    return step.references.identity(state.base.digest) if step.references else {}


def _record(step: PlannedStep, context: RunningStep, state: State, delta: Delta) -> StepRecord:
    identity = context.identity
    return StepRecord(
        id=identity.id,
        name=identity.name,
        version=identity.version,
        summary=step.step.summary,
        origin=identity.origin,
        params=identity.params,
        input=state.digest,
        output=state.after(delta).digest,
        changed={component: len(names) for component, names in context.changed().items()},
        changed_parameters=sum(tensor.numel() for tensor in context.tensors.values()),
        artifacts=tuple(sorted(context.artifacts)),
        inputs=dict(identity.inputs),
        credits=guarded(identity, lambda: tuple(step.step.credits(step.params))),
        numbers=tuple(context.numbers),
        curves=tuple(context.curves),
        warnings=tuple(context.warnings),
    )


def _check_plan(step: str, plan: StepPlan, context: RunningStep) -> None:
    promised = _promised(plan)
    if promised != context.changed() or sorted(plan.artifacts) != sorted(context.artifacts):
        raise PluginError(
            f"step {step!r} did something else than its plan says",
            hint=f"Planned tensors: {_counts(promised)}; written: {_counts(context.changed())}. "
            f"Planned artifacts: {sorted(plan.artifacts)}; written: {sorted(context.artifacts)}.",
        )


def _promised(plan: StepPlan) -> dict[str, list[str]]:
    return {component: sorted(names) for component, names in plan.changes.items() if names}


def _counts(changes: dict[str, list[str]]) -> str:
    return ", ".join(f"{len(names)} of {component}" for component, names in sorted(changes.items())) or "none"


def stamps(state: State) -> dict[str, tuple[int, int, int]]:
    """Return size, mtime and ctime of each file of the base model: other ones mean that it was written to."""
    stats = {name: path.stat() for name, path in state.base.files.items()}
    return {name: (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for name, stat in stats.items()}
