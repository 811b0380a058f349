"""What a release is going to do, said before anything is loaded. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from publisher.api import Claim, ModelError, Params, Scope, SignedInput, Step, StepPlan
from publisher.engine.cache import Identity, StepCache
from publisher.engine.device import Device, versions
from publisher.engine.references import ReferencePlan
from publisher.errors import CRASHES, PluginError, PublisherError, UsageError, in_words
from publisher.manifest.resolve import Resolved, ResolvedStep
from publisher.model.files import FULL, cannot_write
from publisher.model.folder import ModelFolder, read_configs
from publisher.model.inputs import input_digest, locate_input
from publisher.model.libraries import require_libraries
from publisher.package.dsse import BundleError, open_statement
from publisher.package.keys import load_public
from publisher.registry import Contribution, Registry
from publisher.runtime.usable import require_usable

T = TypeVar("T")


@dataclass(frozen=True)
class PlannedModel:
    """A model that the manifest names, as far as it is known before the run."""

    source: Contribution
    reference: str
    family: Contribution
    folder: ModelFolder


@dataclass(frozen=True)
class PlannedStep:
    """One step with everything that its result depends on."""

    identity: Identity
    step: Step[Params]
    params: Params
    claims: tuple[Claim, ...]
    """Claims with ids prefixed by the step's."""
    contribution: Contribution
    decided: Mapping[str, Any] = field(default_factory=dict)
    """Parameter that the manifest leaves to the step, as ``check.seeds`` -> what the step decided."""
    plan: StepPlan | None = None
    """Changes that the step will make; None while the base model or an input is not on this machine."""
    cached: bool = False
    """A finished result is in the work folder."""
    references: ReferencePlan | None = None
    """Reference images; None: the step asks for none."""
    missing: tuple[str, ...] = ()
    """Inputs that have to be fetched first."""


def locate_model(reference: str, registry: Registry, relative_to: Path, *, fetch: bool) -> PlannedModel | None:
    """Find a model and recognise it; None if it would have to be fetched and ``fetch`` is False.

    Args:
        reference: as the manifest has it.
        registry: of sources and families.
        relative_to: the manifest's folder.
        fetch: get it where it is not on this machine.

    Raises:
        ModelError: not usable, of no known family, or of a kind that no pipeline can generate with.
        PrerequisiteError: it cannot be fetched, or needs a library that is not installed.
    """
    source = registry.source_for(reference)
    adapter = source.make()
    with source.asked("for the model"):
        path = (adapter.fetch if fetch else adapter.locate)(reference, relative_to)
    if path is None:
        return None
    configs = read_configs(path)
    family, anatomy = registry.recognise(configs, str(path))
    require_libraries(configs, reference)
    folder = ModelFolder(path, anatomy, configs)
    require_usable(folder)
    return PlannedModel(source, reference, family, folder)


def plan_steps(
    resolved: Resolved,
    registry: Registry,
    device: Device,
    model: PlannedModel | None,
    work: Path,
    relative_to: Path = Path(),
    *,
    fetch: bool = False,
) -> tuple[PlannedStep, ...]:
    """Plan every step: its claims, the tensors it will change, and whether its result is already there.

    Files that parameters name are looked for under ``relative_to``, the manifest's folder, or fetched where ``fetch``
    says so.

    Raises:
        PublisherError: a step cannot work on this model or with these parameters.
    """
    library_versions = versions()
    cache = StepCache(work)
    state = model.folder.digest if model else None
    planned = []
    for step in resolved.steps:
        entry = registry.get("step", step.use)
        one = _plan_step(step, entry, resolved, _World(device, library_versions, model, relative_to, fetch))
        record = cache.peek(one.identity.key(state)) if state and not one.missing else None
        state = record.output if record else None
        planned.append(replace(one, cached=record is not None))
    return tuple(planned)


@dataclass(frozen=True)
class _World:
    """What all steps of a plan have in common."""

    device: Device
    versions: Mapping[str, str]
    model: PlannedModel | None
    relative_to: Path
    fetch: bool


def _plan_step(step: ResolvedStep, entry: Contribution, resolved: Resolved, world: _World) -> PlannedStep:
    scope = resolved.scope_of(step).model_copy(deep=True)  # the step may keep it; the checks have their own
    instance: Step[Params] = entry.make()
    params = entry.cls.Params.parse(step.given)
    identity = Identity(
        name=entry.name,
        version=entry.version,
        origin=entry.origin,
        id=step.id,
        params=params.as_json(),
        scope=scope,
        seed=resolved.seed,
        device=world.device,
        versions=world.versions,
    )
    decided: dict[str, Any] = {}
    if world.model:
        folder, asked = world.model.folder, params
        params = guarded(identity, lambda: instance.decide(asked, scope, folder))
        decided = dict(_differences(params.as_json(), identity.params))
        identity = replace(identity, params=params.as_json())
    names = guarded(identity, lambda: tuple(instance.inputs(params)))
    found = {
        one: locate_input(one, world.relative_to, f"step {step.id!r}", fetch=world.fetch, pickles=True) for one in names
    }
    missing = tuple(name for name, path in found.items() if path is None)
    instance.files = {name: path for name, path in found.items() if path is not None}
    for one in guarded(identity, lambda: tuple(instance.signed(params))):
        _require_signed(one, instance.files)
    identity = replace(identity, inputs={name: input_digest(name, path) for name, path in instance.files.items()})
    model = world.model
    references = None
    if entry.cls.references:
        references = ReferencePlan.of(scope, resolved.evaluate.sampling, world.relative_to)
        identity = replace(identity, references=references.identity(model.folder.digest if model else ""))
    claims = guarded(identity, lambda: tuple(prefixed(step.id, claim) for claim in instance.claims(params, scope)))
    here = model if not missing else None
    plan = guarded(identity, lambda: _plan_on(instance, params, scope, step.id, here)) if here else None
    return PlannedStep(identity, instance, params, claims, entry, decided, plan, references=references, missing=missing)


def _require_signed(one: SignedInput, files: Mapping[str, Path]) -> None:
    """Verify an input's signature, where it and its key are on this machine; without them nothing is run.

    Raises:
        UsageError: the input cannot be read or was not signed with this key, or the key is none.
    """
    if one.input not in files or one.key not in files:
        return
    path = files[one.input] / one.file
    try:
        open_statement(path.read_bytes(), load_public(files[one.key]))
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except BundleError as error:
        hint = "Name the public key that it was signed with, or get the file again from a source that you trust."
        raise UsageError(f"is not signed with {one.key}: {error}", where=str(path), hint=hint) from error


def _differences(after: Mapping[str, Any], before: Mapping[str, Any], inside: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in after.items():
        old = before.get(name)
        if isinstance(value, dict) and isinstance(old, dict) and old:
            yield from _differences(value, old, f"{inside}{name}.")
        elif value != old:
            yield f"{inside}{name}", value


def _plan_on(step: Step[Params], params: Params, scope: Scope, name: str, model: PlannedModel) -> StepPlan:
    families = step.requires.families
    if families and model.family.name not in families:
        raise ModelError(
            f"step {name!r} works on {', '.join(families)}, and this model is of the family {model.family.name}",
            where=model.reference,
        )
    try:
        model.folder.anatomy.require(step.requires.needs, f"step {name!r}")
    except ModelError as error:
        error.where = model.reference
        raise
    missing = sorted(set(step.requires.components) - set(model.folder.components))
    if missing:
        raise ModelError(f"step {name!r} needs {', '.join(missing)}, which the model lacks", where=model.reference)
    try:
        return step.plan(params, scope, model.folder)
    except PublisherError as error:
        error.where = error.where or f"step {name!r}"
        raise


def guarded(identity: Identity, action: Callable[[], T]) -> T:
    """Call a step's code; what it raises, other than our own errors, becomes one that names its origin.

    Raises:
        PluginError: the step crashed.
    """
    try:
        return action()
    except PublisherError:
        raise
    except CRASHES as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise cannot_write(error.filename or f"step {identity.id!r}", error) from error
        origin = identity.origin
        raise PluginError(
            f"step {identity.id!r} crashed: {in_words(error)}",
            hint=f"It is {origin.module} of {origin.distribution} {origin.version}. Run again with --debug for the "
            "traceback; the steps before it are kept.",
        ) from error


def prefixed(step: str, claim: Claim) -> Claim:
    """Put a claim's id and its checks' ids under the step's id, so that they are unique in a release."""
    own = claim.model_copy(deep=True)  # the step may keep what it returned
    checks = tuple(check.model_copy(update={"id": f"{step}.{check.id}"}) for check in own.checks)
    return own.model_copy(update={"id": f"{step}.{claim.id}", "checks": checks})
