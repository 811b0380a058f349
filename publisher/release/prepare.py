"""From a manifest to all that is known before anything runs. Imports no torch; ``publisher plan`` ends here."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from publisher.api import Check, Limits
from publisher.api.diffusion.process import require_trainable
from publisher.api.words import neighbours
from publisher.engine.device import Device, choose
from publisher.engine.orders import require_possible, warnings
from publisher.engine.plan import PlannedModel, PlannedStep, locate_model, plan_steps
from publisher.errors import InconclusiveError, ModelError, UsageError
from publisher.evaluate.context import StepClaim, Tools, Unmeasured
from publisher.evaluate.plan import CheckPlan, Models, images, plan_check
from publisher.evaluate.prepare import settle
from publisher.evaluate.searching.costs import expected_seconds
from publisher.evaluate.store import ImageStore
from publisher.manifest.resolve import Resolved, read
from publisher.model.files import nbytes
from publisher.package.own_card import OwnCard, read_own_card
from publisher.policy import facts_of_plan
from publisher.policy.facts import ReleaseFacts
from publisher.program import command
from publisher.registry import Contribution, Registry, load_registry
from publisher.release.base import require_base
from publisher.release.claims import collect_claims
from publisher.release.ends import require_ends
from publisher.release.places import require_writable
from publisher.release.tools import collect_tools


@dataclass(frozen=True)
class PreparedRelease:
    """A release before it runs."""

    path: Path
    """Path of the manifest."""
    resolved: Resolved
    registry: Registry
    device: Device
    model: PlannedModel | None
    """The base model; None: it has to be fetched first."""
    retrained: PlannedModel | None
    """A model that never knew the concepts; None: the manifest names none, or it has to be fetched first."""
    steps: tuple[PlannedStep, ...]
    claims: tuple[StepClaim, ...]
    """Claims of the steps, with the manifest's gates, and the manifest's own."""
    tools: Tools
    checks: tuple[CheckPlan, ...]
    images: Mapping[str, int]
    """Distinct images of the ``"base"`` model, and of the hardened one with safeguards attached (``"on"``) and without
    (``"off"``)."""
    used: tuple[Contribution, ...]
    """Every plugin class that takes part, the report formats excepted."""
    dropped: tuple[str, ...] = ()
    """Safeguards of the base model that the release does without, as the manifest says; one sentence each."""
    warnings: tuple[str, ...] = ()
    """Sentences about what is dropped, orders of steps that are known to interfere, and numbers of too few prompts."""
    own_card: OwnCard | None = None
    """The publisher's own part of the model card; None: there is none."""

    @property
    def open_checks(self) -> tuple[CheckPlan, ...]:
        """Checks that cannot be decided and hold up the release; those that promise nothing do not."""
        told = {
            check.id for item in self.claims for check in item.claim.checks if item.claim.discloses and not check.gate
        }
        return tuple(check for check in self.checks if check.undecidable and check.check not in told)

    @property
    def disk(self) -> int | None:
        """Bytes of the package and of what the work folder keeps of the steps; None while the model is not here."""
        if self.model is None:
            return None
        folder = self.model.folder
        written = 0
        for step in self.steps:
            for component, names in (step.plan.changes if step.plan else {}).items():
                written += sum(nbytes(folder.tensors(component)[name]) for name in names)
        return folder.bytes + written

    def require_decidable(self) -> None:
        """Refuse to spend hours on a release that cannot pass.

        Raises:
            InconclusiveError: a claim has no check, or a check cannot be measured, or not with so few images.
        """
        problems = [f"{check.check}: {check.undecidable}" for check in self.open_checks]
        problems += [f"{item.claim.id}: the claim has no check" for item in self.claims if not item.claim.checks]
        if problems:
            few = any(check.too_few for check in self.open_checks)
            raise_them = ["Too few images or seeds: raise seeds or evaluate.sampling.images."] if few else []
            raise InconclusiveError(
                "this release could only end as unknown: "
                + ("too little" if few else "not everything")
                + " would be measured",
                where=str(self.path),
                hint="\n".join([*problems, *raise_them, f"See all checks with: {_plan(self.path)}"]),
            )


def prepare(path: Path, work: Path, *, fetch: bool, out: Path | None = None) -> PreparedRelease:
    """Read a manifest, find its model and its plugins, and plan.

    Args:
        path: of the manifest.
        work: the work folder, for what is cached; it need not exist.
        fetch: get the model where it is not on this machine, as a release does and a plan does not.
        out: where a package is going to be made; None: none is.

    Raises:
        ManifestError: with all that is wrong in the manifest.
        PublisherError: the model, a step, a report format, a folder or the time to sign with cannot be used.
    """
    registry = load_registry()
    resolved = read(path, registry.catalog())
    if not resolved.steps:
        hint = f"Name one under steps. To test a model as it is: {command('evaluate MODEL MANIFEST')}"
        raise UsageError("the manifest has no step, so there is nothing to release", where=str(path), hint=hint)
    require_writable(*(folder for folder in (work, out) if folder))
    device = choose(resolved.device, resolved.dtype)
    model = locate_model(resolved.model, registry, path.parent, fetch=fetch)
    retrained = (
        locate_model(resolved.evaluate.retrained, registry, path.parent, fetch=fetch)
        if resolved.evaluate.retrained
        else None
    )
    dropped = require_base(model.folder, resolved.base_safeguards) if model else ()
    steps = plan_steps(resolved, registry, device, model, work, path.parent, fetch=fetch)
    require_possible(steps)
    claims = tuple(collect_claims(resolved, steps, registry))
    checks = [check for item in claims for check in item.claim.checks]
    registry.require_single("report_format")  # every release renders all of them
    tools, used = collect_tools(resolved, registry, checks, path.parent, fetch=fetch)
    for found in (model, retrained):
        used += [found.source, found.family] if found else []
    sampling = resolved.evaluate.sampling
    tools, unread = _with_neighbours(tools, resolved, model)
    ids, trained = tuple(step.identity.id for step in steps), [found for found in (model, retrained) if found]
    models = Models(
        ids,
        retrained=bool(resolved.evaluate.retrained),
        untrainable=_untrainable(trained),
        anatomies=tuple(found.folder.anatomy for found in trained),
    )
    plans = tuple(
        plan_check(check, resolved.scope, tools, sampling, models, item.step)
        for item in claims
        for check in item.claim.checks
    )
    plans = tuple(_timed(plan, model, device, work) for plan in plans)
    own_card = read_own_card(path.parent / resolved.release.card) if resolved.release.card else None
    few = (f"{plan.check}: {plan.few_prompts}" for plan in plans if plan.few_prompts)
    prepared = PreparedRelease(
        path=path,
        resolved=resolved,
        registry=registry,
        device=device,
        model=model,
        retrained=retrained,
        steps=steps,
        claims=claims,
        tools=tools,
        checks=plans,
        images=images(plans),
        used=tuple(_once([*(step.contribution for step in steps), *used])),
        dropped=dropped,
        own_card=own_card,
        warnings=(*dropped, *warnings(steps, model.folder.anatomy.denoiser if model else ""), *unread, *few),
    )
    if out is not None:
        require_ends(prepared, slow=fetch)
    return prepared


def planned_facts(prepared: PreparedRelease) -> ReleaseFacts:
    """Return what a policy can be compared with before anything runs."""
    resolved, plans = prepared.resolved, {plan.check: plan for plan in prepared.checks}
    checks = [
        (
            item.claim.binds,
            check,
            None if plans[check.id].trainings or plans[check.id].limits else plans[check.id].samples,
            _judges(check, item.step, prepared),
        )
        for item in prepared.claims
        for check in item.claim.checks
    ]
    concepts = {one.id: one.kind for one in resolved.scope.concepts}
    formats = prepared.registry.all("report_format")
    plugins = [entry.record() for entry in (*prepared.used, *formats)]
    return facts_of_plan(resolved.release.license, concepts, checks, plugins)


def _judges(check: Check, step: str, prepared: PreparedRelease) -> list[str]:
    """Return the registered names of the scorers of a check; none where it cannot be measured."""
    resolved, tools = prepared.resolved, prepared.tools
    try:
        settled = settle(check, resolved.scope, tools, resolved.evaluate.sampling, step)
    except Unmeasured:
        return []
    return [one.scorer.name for judge in settled.scorers.values() for one in tools.members(judge)]


def _with_neighbours(tools: Tools, resolved: Resolved, model: PlannedModel | None) -> tuple[Tools, tuple[str, ...]]:
    """Say which kept concepts are asked for more images, where these cannot be shared out evenly; or why nobody knows.

    Returns:
        The tools, and a warning where the model's words cannot be read.
    """
    scope = resolved.scope
    if model is None or not resolved.evaluate.sampling.leaves_some_over(len(scope.keep)):
        return tools, ()
    try:
        return replace(tools, neighbours=neighbours(scope, model.folder)), ()
    except ModelError as error:
        what = f"images of kept concepts that are left over go to the first of 'keep', not to neighbours: {error.what}"
        return tools, (what,)


def _timed(plan: CheckPlan, model: PlannedModel | None, device: Device, work: Path) -> CheckPlan:
    """Return the plan of a check that searches with the seconds that it takes here, where earlier searches tell."""
    if plan.limits is None or model is None:
        return plan
    judged = Limits(images=sum(plan.samples.values()) * (plan.models + 1))
    store = ImageStore(work / "images")
    seconds = expected_seconds(store, model.folder.digest, str(device), plan.limits + judged)
    return replace(plan, seconds=seconds)


def _untrainable(models: Iterable[PlannedModel]) -> str:
    """Return why attacks by training cannot train one of these models; empty: they can."""
    try:
        for model in models:
            require_trainable(model.folder, images=True)
    except ModelError as error:
        return f"{error.where}: {error.what}"
    return ""


def _plan(path: Path) -> str:
    return command(f"plan {shlex.quote(str(path))}")


def _once(entries: Iterable[Contribution]) -> list[Contribution]:
    return list({(entry.kind, entry.name): entry for entry in entries}.values())
