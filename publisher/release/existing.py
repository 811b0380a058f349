"""Test a model as it is, against its base: the checks of a release without steps, package or signature."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial as bound
from pathlib import Path

from pydantic import ValidationError

from publisher import __version__
from publisher.api import (
    CheckRecord,
    Claim,
    ClaimRecord,
    ModelRecord,
    ReleaseReport,
    Verdict,
)
from publisher.api.claims import Check
from publisher.api.model_files import RELEASE
from publisher.api.verdicts import overall
from publisher.engine.device import choose, require, versions
from publisher.engine.plan import PlannedModel, locate_model, plan_steps
from publisher.engine.progress import Progress
from publisher.errors import ExitCode, ModelError, UsageError
from publisher.evaluate.checks import Evaluation, run_checks
from publisher.evaluate.context import ModelsUnderTest, ModelUnderTest, Setting, StepClaim, Tools
from publisher.evaluate.dispatch import closed_after
from publisher.evaluate.measure import unknown
from publisher.evaluate.sheets import FOLDER as SHEETS
from publisher.evaluate.store import ImageStore
from publisher.evaluate.vault import Vault
from publisher.manifest.loader import parse
from publisher.manifest.plugins import add_plugin_problems
from publisher.manifest.resolve import Resolved, read, resolve
from publisher.model.files import partial, write_atomic
from publisher.model.lock import locked
from publisher.package.layout import REPORT, REPORTS, RESOLVED
from publisher.program import command
from publisher.registry import Contribution, Registry, load_registry
from publisher.release.claims import claims_of_concepts, collect_claims
from publisher.release.make import CODES
from publisher.release.places import require_writable, told
from publisher.release.record import LIMITS, gone_concepts, publisher_of
from publisher.release.tools import collect_tools
from publisher.report import load, render_each
from publisher.strict_json import JsonError, strict_object

WITHOUT_BASE = "it compares with the base model, and none was given"
_CONCEPT = re.compile(r"(?:(?P<kind>object|style|person|unsafe):)?(?P<name>.+)", re.DOTALL)
_LIMITS = (
    "Signature and origin of the model were not checked: it was tested as it lies there.",
    "A check that compares with the model before a step cannot be made again: that model is not in a package.",
)


@dataclass(frozen=True)
class ModelTest:
    """What is tested, with what and on what."""

    resolved: Resolved
    root: Path
    """Folder that files of the concepts are relative to."""
    claims: Sequence[StepClaim]
    registry: Registry
    model: PlannedModel
    base: PlannedModel | None
    retrained: PlannedModel | None = None
    """Model that never knew the concepts, which ``evaluate.retrained`` names."""


@dataclass(frozen=True)
class TestOutcome:
    """End of a test."""

    report: ReleaseReport
    reports: Path
    """The folder with the report in all forms, and the evidence."""
    seconds: float
    """Wall seconds of the checks."""

    @property
    def decision(self) -> Verdict:
        """The worst verdict of all claims."""
        return self.report.decision

    @property
    def code(self) -> ExitCode:
        """The command's exit code: that of a release."""
        return CODES.get(self.decision, ExitCode.INCONCLUSIVE)


def evaluate_model(
    model: str,
    out: Path,
    work: Path,
    progress: Progress,
    *,
    base: str | None = None,
    manifest: Path | None = None,
    concepts: Sequence[str] = (),
) -> TestOutcome:
    """Make the checks of a manifest, of concepts, or of a package's own claims, of a model as it is.

    Args:
        model: a folder, a package or a pinned hub revision, as a manifest names one.
        out: the report goes to ``<out>/<model>.evaluation``.
        work: images stay here; a run that was stopped goes on from it.
        progress: is told how far it is.
        base: the base model; default the manifest's, or the one that the package was made from.
        manifest: its concepts, gates and sampling count; the claims of its steps are tested, and no step is run.
        concepts: names, with the kind before a colon where it is no object; in place of a manifest.

    Raises:
        PublisherError: it could not be decided what to test, or with what.
    """
    require_writable(out, work)
    with told(), locked(work):
        test = _find(model, base, manifest, concepts, work, progress)
        resolved = test.resolved
        device = choose(resolved.device, resolved.dtype)
        require(device)
        checks = [check for item in test.claims for check in item.claim.checks]
        tools, used = collect_tools(resolved, test.registry, checks, test.root, fetch=True)
        began = time.monotonic()
        with closed_after(tools.executor, progress.warn):
            found = _run(test, tools, Setting(device.name, device.dtype, root=test.root), work, progress)
        seconds = time.monotonic() - began
        used += [
            one
            for model_ in (test.model, test.base, test.retrained)
            if model_
            for one in (model_.source, model_.family)
        ]
        report = _report(test, found, str(device), used)
        return TestOutcome(report, _write(report, found, test, out), seconds)


def _find(
    model: str, base: str | None, manifest: Path | None, concepts: Sequence[str], work: Path, progress: Progress
) -> ModelTest:
    """Decide what is tested. What the user gives wins over what a package says of itself."""
    if manifest is not None and concepts:
        raise UsageError("a manifest names its concepts itself", hint="Give MANIFEST, or --concept NAME ...")
    registry = load_registry()
    here = Path()
    tested = located(model, registry, here)
    package = (tested.folder.path / REPORT).is_file()
    against: PlannedModel | None
    if manifest is not None:
        resolved, root = read(manifest, registry.catalog()), manifest.parent
        base_root = here if base else root
        against = located(base or resolved.model, registry, base_root)
        claims = _claims_of_steps(resolved, registry, against, manifest, work)
    elif concepts:
        against = located(base, registry, here) if base else None
        resolved, root = _resolved_of(concepts, base or model, registry), here
        claims = claims_of_concepts(resolved)
    elif package:
        resolved, claims = of_package(tested.folder.path)
        root = tested.folder.path
        progress.say(f"Claims: {len(claims)}, as the package makes them; its signature is not checked here")
        against = located(base or resolved.model, registry, here)
    else:
        raise UsageError(
            "it is not known what to test",
            where=model,
            hint=f"Give a manifest, or concepts: {command(f'evaluate {model} --base BASE --concept cigarette')}\n"
            "A package tells its own claims.",
        )
    if against and against.family.name != tested.family.name:
        raise ModelError(
            f"is of the family {tested.family.name}, its base model of {against.family.name}",
            where=model,
            hint="Numbers are against the base model: give the one that it was made from, with --base.",
        )
    named = resolved.evaluate.retrained
    retrained = located(named, registry, root) if named else None
    return ModelTest(resolved, root, claims, registry, tested, against, retrained)


def located(reference: str, registry: Registry, relative_to: Path) -> PlannedModel:
    """Return a model by its reference, fetched where it has to be.

    Raises:
        UsageError: the reference is malformed.
        ModelError: its source gave no model.
    """
    problem = registry.source_for(reference).make().check(reference)
    if problem:
        raise UsageError(problem, where=reference)
    found = locate_model(reference, registry, relative_to, fetch=True)
    if found is None:
        raise ModelError("the source gave no model", where=reference)
    return found


def _claims_of_steps(
    resolved: Resolved, registry: Registry, base: PlannedModel, path: Path, work: Path
) -> list[StepClaim]:
    """Return the claims that the manifest's steps make; of a manifest without steps, those of an eraser."""
    if not resolved.steps:
        return claims_of_concepts(resolved)
    device = choose(resolved.device, resolved.dtype)
    steps = plan_steps(resolved, registry, device, base, work, path.parent, fetch=True)
    return collect_claims(resolved, steps, registry)


def _resolved_of(concepts: Sequence[str], base: str, registry: Registry) -> Resolved:
    """Return the manifest that these concepts mean, everything else by defaults."""
    entries = []
    for given in concepts:
        match = _CONCEPT.fullmatch(given.strip())
        name = match["name"].strip() if match else ""
        name = "" if name.endswith(":") else name
        known = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        if match is None or not known:
            raise UsageError(f"--concept {given!r} names no concept", hint="Write a name, or KIND:NAME: style:noto")
        entries.append({"id": known, "name": name, "kind": match["kind"] or "object"})
    reference = os.path.relpath(base) if Path(base).is_dir() else base
    data = {
        "release": {"name": "evaluation", "version": "1", "license": "other"},
        "model": reference if not Path(base).is_dir() or reference.startswith(".") else f"./{reference}",
        "concepts": entries,
    }
    catalog = registry.catalog()
    document = parse(json.dumps(data).encode(), Path("--concept"), bound(add_plugin_problems, catalog=catalog))
    return resolve(document, catalog)


def of_package(folder: Path) -> tuple[Resolved, list[StepClaim]]:
    """Return a package's resolved manifest, and its claims with the checks that it reports.

    Raises:
        UsageError: they cannot be read.
    """
    report = load(folder)
    path = folder / RESOLVED
    try:
        resolved = Resolved.parse(strict_object(path.read_bytes()) | {"steps": []})  # no step is run
        resolved = _with_sheets(resolved, folder)
    except (OSError, JsonError, ValidationError) as error:
        hint = "Give a manifest, or --concept NAME."
        raise UsageError(f"its manifest cannot be read: {error}"[:300], where=str(path), hint=hint) from error
    return resolved, [StepClaim(claim.steps, _claim(claim)) for claim in report.claims]


def _with_sheets(resolved: Resolved, folder: Path) -> Resolved:
    """Return the manifest with the scorers' calibration sheets where they lie in the package."""
    scorers = []
    for one in resolved.evaluate.scorers:
        found = sorted((folder / REPORTS).glob(f"{SHEETS}{one.id}.*.json")) if one.calibration else []
        sheets = tuple(path.relative_to(folder).as_posix() for path in found)
        scorers.append(one.model_copy(update={"calibration": sheets}))
    return resolved.model_copy(update={"evaluate": resolved.evaluate.model_copy(update={"scorers": tuple(scorers)})})


def _claim(record: ClaimRecord) -> Claim:
    return Claim(
        id=record.id,
        sentence=record.sentence,
        binds=record.binds,
        limits=record.limits,
        checks=tuple(_check(check) for check in record.checks),
        discloses=record.discloses,
        deletes=record.deletes,
    )


def _check(record: CheckRecord) -> Check:
    return Check(
        id=record.id,
        attack=record.attack,
        attack_params=record.attack_params,
        metric=record.metric,
        metric_params=record.metric_params,
        concepts=record.concepts,
        gate=record.gate,
        membranes=record.membranes,
    )


def _run(test: ModelTest, tools: Tools, setting: Setting, work: Path, progress: Progress) -> Evaluation:
    folder, anatomy = test.model.folder.path, test.model.folder.anatomy
    if test.base is None:
        return _undecided(test)
    safeguards = folder / RELEASE if (folder / RELEASE).is_dir() else None
    base = ModelUnderTest.of(test.base.folder.path, test.base.folder.anatomy)
    never = test.retrained.folder if test.retrained else None
    retrained = ModelUnderTest.of(never.path, never.anatomy) if never else None
    models = ModelsUnderTest(base, ModelUnderTest.of(folder, anatomy, safeguards), retrained=retrained)
    setting = replace(
        setting,
        store=ImageStore(work / "images", progress.warn),
        work=work / "states",
        vault=Vault(work / "finds"),
        publish_finds=test.resolved.evaluate.finds == "publish",
        progress=lambda done, total, text: progress.update("evaluate", done, total, text),
        warn=progress.warn,
    )
    sampling = test.resolved.evaluate.sampling
    return run_checks(test.claims, test.resolved.scope, models, tools, sampling, setting)


def _undecided(test: ModelTest) -> Evaluation:
    """Return the end of a test without a base model: every number is against it, so none is made."""
    claims = tuple(
        ClaimRecord(
            id=item.claim.id,
            steps=item.steps,
            sentence=item.claim.sentence,
            binds=item.claim.binds,
            limits=item.claim.limits,
            verdict="unknown",
            checks=tuple(unknown(check, WITHOUT_BASE) for check in item.claim.checks),
        )
        for item in test.claims
    )
    return Evaluation(claims=claims, evidence={}, pairs=(), permeabilities=None, scorers={})


def _report(test: ModelTest, found: Evaluation, device: str, used: Sequence[Contribution]) -> ReleaseReport:
    about = test.resolved.release
    own = (test.model.folder.path / REPORT).is_file()
    formats = test.registry.all("report_format")
    tested = _record(test.model)
    return ReleaseReport(
        name=about.name if own else _name(test.model),
        version=about.version if own else "as it is",
        license=about.license if own else "",
        decision=overall(claim.verdict for claim in found.claims),
        model=_record(test.base) if test.base else tested.model_copy(update={"source": "not given", "digest": ""}),
        tested=tested,
        files=dict(test.model.folder.digests),
        publisher=publisher_of(test.resolved),
        concepts=gone_concepts(test.resolved),
        steps=(),
        claims=found.claims,
        scorers=dict(found.scorers),
        plugins=tuple({(one.kind, one.name): one.record() for one in (*used, *formats)}.values()),
        pairs=found.pairs if test.resolved.evaluate.images else (),
        permeabilities=found.permeabilities,
        seed=test.resolved.seed,
        device=device,
        versions={"python": platform.python_version(), "publisher": __version__, **versions()},
        manifest_sha256=test.resolved.manifest_sha256,
        limits=(*LIMITS, *_LIMITS),
    )


def _record(model: PlannedModel) -> ModelRecord:
    """Return what a report says of a model. It never has a path of this machine: of one, the last name alone."""
    folder = model.folder
    absolute = Path(model.reference.removeprefix("folder:")).is_absolute()
    return ModelRecord(
        source=_name(model) if absolute else model.reference,
        family=folder.anatomy.family,
        digest=folder.digest,
        parameters=folder.parameters,
        bytes=folder.bytes,
    )


def _name(model: PlannedModel) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", model.reference.rstrip("/").rpartition("/")[2]).strip("-.") or "model"


def _write(report: ReleaseReport, found: Evaluation, test: ModelTest, out: Path) -> Path:
    """Write all forms of the report and the evidence, in place of an earlier test's."""
    formats = [entry.cls for entry in test.registry.all("report_format")]
    views, problems = render_each(report, formats)
    files = {**views, **found.evidence}
    folder = out / f"{_name(test.model)}.evaluation"
    with partial(folder) as new:
        for name, data in files.items():
            write_atomic(new / name, data)
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)
    if problems:
        raise problems[0]
    return folder
