"""Make a release: harden, package, evaluate, report, sign. ``<out>/<name>-<version>`` appears whole or not at all."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from publisher.api import (
    CheckEnd,
    CheckRecord,
    MatrixCell,
    PackageBuilt,
    ReleaseEnd,
    ReleaseReport,
    ReleaseStart,
    ReportFormat,
    Verdict,
)
from publisher.engine.cache import StepResult
from publisher.engine.device import require
from publisher.engine.progress import Progress
from publisher.engine.run import Hardened, harden, stamps
from publisher.errors import ExitCode, PluginError, PublisherError
from publisher.evaluate.checks import Evaluation, matrix_column, run_checks
from publisher.evaluate.context import ModelsUnderTest, ModelUnderTest, Setting, StepClaim
from publisher.evaluate.dispatch import closed_after
from publisher.evaluate.store import ImageStore
from publisher.evaluate.vault import Vault
from publisher.model.digest import sha256_list
from publisher.model.files import json_bytes, partial, write_atomic
from publisher.model.lock import locked, named
from publisher.model.state import State
from publisher.package import build
from publisher.package.dsse import Signer
from publisher.package.keys import KeySigner
from publisher.package.layout import BASE_CARD, CARD, RELEASE, is_payload
from publisher.package.sign import sign
from publisher.package.tree import Tree
from publisher.package.variants import FP16
from publisher.package.verify import verify
from publisher.policy import LoadedPolicy, facts_of_report, judge_facts, under_policy
from publisher.release.loadable import require_loadable
from publisher.release.places import (
    ReleasePlaces,
    complete,
    key_of,
    place,
    reports_of,
    require_writable,
    target_of,
    told,
)
from publisher.release.prepare import PreparedRelease, planned_facts, prepare
from publisher.release.record import make_report
from publisher.release.trial import generate_trial, require_shown
from publisher.report import render_each
from publisher.report.reader import TIMINGS
from publisher.safeguards import ALL

CODES = {"passed": ExitCode.OK, "failed": ExitCode.REFUSED, "unknown": ExitCode.INCONCLUSIVE}


@dataclass(frozen=True)
class Outcome:
    """End of a release."""

    report: ReleaseReport
    package: Path | None
    """The signed package; None unless everything passed."""
    reports: Path
    """The folder with the reports, whatever the decision."""
    seconds: dict[str, float]
    """Wall seconds of each step and of the checks."""
    cached: tuple[str, ...]
    """Steps that came from the cache."""
    relearning: Mapping[str, float] = field(default_factory=dict)
    """Check of an attack by training -> seconds of one training step here."""

    @property
    def decision(self) -> Verdict:
        """The worst verdict of all claims."""
        return self.report.decision

    @property
    def code(self) -> ExitCode:
        """The command's exit code."""
        return CODES[self.decision]


def release(
    path: Path,
    out: Path,
    work: Path,
    signer: Signer,
    progress: Progress,
    *,
    policy: LoadedPolicy | None = None,
    give_key: bool = False,
) -> Outcome:
    """Plan, harden, package, evaluate, report, sign.

    Args:
        path: of the manifest.
        out: where the package ``<name>-<version>`` and its report folder go.
        work: finished steps and images stay here; a run that was stopped goes on from it.
        signer: signs the package.
        progress: is told how far it is.
        policy: an organisation's minimum, which the release is held to besides its own gates.
        give_key: put the public key beside the package, as ``<name>-<version>.pub``, where it is signed with one.

    Raises:
        PolicyError: the policy asks for what this release cannot have; nothing was computed.
        PublisherError: it could not be decided; nothing is under the package's name.
    """
    require_writable(out, work)
    with told(), locked(work):
        prepared = prepare(path, work, fetch=True, out=out)
        target = target_of(prepared.resolved.release, out)
        if policy:
            judge_facts(policy, planned_facts(prepared), signer.hint).require()
        prepared.require_decidable()
        require(prepared.device)
        for warning in prepared.warnings:
            progress.warn(warning)
        with named(target), place(target) as folder:
            return _make(prepared, ReleasePlaces(target, folder, work, give_key=give_key), signer, progress, policy)


def _make(
    prepared: PreparedRelease,
    places: ReleasePlaces,
    signer: Signer,
    progress: Progress,
    policy: LoadedPolicy | None = None,
) -> Outcome:
    target, folder, work = places.target, places.folder, places.work
    tell = _Teller(prepared, progress)
    tell("publisher_on_release_start", _start(prepared))
    base = _base(prepared, work)
    before = stamps(base)
    with closed_after(prepared.tools.executor, progress.warn):
        progress.say(f"Base model {prepared.resolved.model}: one image, to see that it generates")
        generate_trial(prepared, work, progress)
        require_shown(prepared, work, progress)
        hardened = harden(base, prepared.steps, work, progress, tell)
        carried = {name: value for one in ALL for name, value in one.record(hardened.results, hardened.final).items()}
        laid = lay_out_hardened(hardened, folder)
        tell("publisher_on_package_built", _built(folder))
        began = time.monotonic()
        found, matrix, took = _evaluate(prepared, hardened, laid, work, tell)
    progress.say("Reports: one record in every form that is installed")
    seconds = {**hardened.seconds, "evaluate": time.monotonic() - began}
    _require_untouched(laid, base, before)
    formats = [entry.cls for entry in prepared.registry.all("report_format")]
    report = make_report(prepared, hardened, found, matrix, formats, files=laid.digests, carried=carried)
    if policy:
        report = under_policy(report, judge_facts(policy, facts_of_report(report), signer.hint))
    views, problems = render_each(report, formats)
    times = _times(seconds, hardened.cached, found, took)
    timely = [form for form in formats if form.timed is not ReportFormat.timed]
    timed, more = render_each(report, timely, took)
    problems += more
    reports = _write_reports(target, {**views, **timed, **found.evidence, TIMINGS: times})
    if problems:
        raise PluginError(
            problems[0].what,
            where=str(reports),
            hint=f"{problems[0].hint}\nThe other forms of the report are there; nothing was signed.".strip(),
        )
    passed = report.decision == "passed"
    if passed:
        progress.say("Signature: every claim holds, so the package is signed, and verified with the public key")
        resolved = json_bytes(prepared.resolved.as_json())
        digests = build.finish(
            folder,
            report=report,
            views=views,
            evidence=found.evidence,
            resolved=resolved,
            laid=laid,
            additions=build.Additions(prepared.own_card, FP16 in prepared.resolved.release.variants),
        )
        require_loadable(folder)
        _sign(folder, signer, prepared.resolved.release.date, digests)
        if places.give_key and isinstance(signer, KeySigner):
            write_atomic(key_of(target), signer.public.pem)
        folder.rename(target)
    with complete(target if passed else None):
        tell("publisher_on_release_end", ReleaseEnd(report.decision, report, str(target) if passed else ""))
        return Outcome(report, target if passed else None, reports, seconds, hardened.cached, found.seconds)


class _Teller:
    """Tells observers; what they raise becomes a warning."""

    def __init__(self, prepared: PreparedRelease, progress: Progress) -> None:
        self._registry = prepared.registry
        self.progress = progress

    def __call__(self, hook: str, event: Any) -> None:
        for problem in self._registry.notify(hook, event):
            self.progress.warn(problem)


def _start(prepared: PreparedRelease) -> ReleaseStart:
    about = prepared.resolved.release
    return ReleaseStart(about.name, about.version, tuple(step.identity.id for step in prepared.steps))


def _base(prepared: PreparedRelease, work: Path) -> State:
    if prepared.model is None:
        raise PublisherError("the source gave no model", where=prepared.resolved.model)
    return State(prepared.model.folder, (), work / "states")


def _artifacts(results: Sequence[StepResult]) -> dict[str, bytes]:
    """Collect the artifacts of all these steps, by name."""
    artifacts: dict[str, bytes] = {}
    for result in results:
        twice = sorted(set(artifacts) & set(result.artifacts))
        if twice:
            raise PublisherError(f"two steps made the artifact {twice[0]!r}", hint="Give one of them another name.")
        artifacts |= result.artifacts
    return artifacts


def _safeguards(results: Sequence[StepResult], work: Path) -> Path | None:
    """Put what these steps left of safeguards into a folder, as a package holds it below ``release/``."""
    artifacts = _artifacts(results)
    found = {name: data for name, data in artifacts.items() if any(one.owns(name) for one in ALL)}
    if not found:
        return None
    digest = sha256_list({name: hashlib.sha256(data).hexdigest() for name, data in found.items()})
    folder = work / "safeguards" / digest
    shutil.rmtree(folder, ignore_errors=True)
    for name, data in found.items():
        write_atomic(folder / name, data)
    return folder


def _under_test(state: State, safeguards: Path | None = None) -> ModelUnderTest:
    """Return a state as a model under test; its files have been hashed when it was read or written."""
    return ModelUnderTest.of(state.folder, state.anatomy, safeguards, state.folder_digests())


class After(Mapping[str, ModelUnderTest]):
    """Step's id -> the model after it. A model is written out and hashed when it is first asked for, then kept."""

    def __init__(self, states: Mapping[str, State]) -> None:
        self._states = states
        self._models: dict[str, ModelUnderTest] = {}

    def __getitem__(self, step: str) -> ModelUnderTest:
        if step not in self._models:
            self._models[step] = _under_test(self._states[step])
        return self._models[step]

    def __iter__(self) -> Iterator[str]:
        return iter(self._states)

    def __len__(self) -> int:
        return len(self._states)


def lay_out_hardened(hardened: Hardened, folder: Path) -> Tree:
    """Put the hardened model and the artifacts into the package's folder.

    No model is loaded. Files without a changed tensor are copies of the base's, and the others differ from the base's
    in the bytes of those tensors alone.

    Args:
        hardened: what the steps left.
        folder: empty.

    Returns:
        Digests and stamps of what lies there.

    Raises:
        PublisherError: a file cannot be copied, or the base model or a step's result is not what it was.
    """
    base, changed = hardened.final.base, hardened.final.changed_files()
    laid = build.lay_out(folder, base.files, _artifacts(hardened.results), changed)
    for delta in hardened.final.deltas:
        delta.require_unchanged()
    same = {BASE_CARD if name == CARD else name: digest for name, digest in base.digests.items() if name not in changed}
    build.refuse_exchanged(folder, {**laid.digests, **same}, laid.digests)
    return laid


def _require_untouched(laid: Tree, base: State, before: Mapping[str, object]) -> None:
    """Make sure that what was judged is what was laid out, and was it all the time.

    Raises:
        PublisherError: something wrote to the package's folder or to the base model.
    """
    touched = [finding.path for finding in laid.recheck()]
    if touched:
        raise build.exchanged(laid.root, touched)
    if stamps(base) != before:
        raise PublisherError(
            "the base model changed during the release", where=str(base.base.path), hint="Run it again."
        )


def _built(folder: Path) -> PackageBuilt:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return PackageBuilt(len(files), sum(path.stat().st_size for path in files))


def _evaluate(
    prepared: PreparedRelease, hardened: Hardened, laid: Tree, work: Path, tell: _Teller
) -> tuple[Evaluation, list[MatrixCell], dict[str, float]]:
    """Check the packaged model, and where the manifest asks for it the model before and after each step.

    The base model is asked for all claims, later models for those of the steps that have run. Trainings are expensive:
    between the steps they are made only where the manifest asks for that too. The red team has the package alone.

    Returns:
        What was found of the package, the matrix, and the seconds of each check.
    """
    progress = tell.progress
    resolved = prepared.resolved
    store = ImageStore(work / "images", progress.warn)
    anatomy = hardened.states[0].anatomy
    base = _under_test(hardened.states[0])
    silent = Setting(
        prepared.device.name, prepared.device.dtype, store, prepared.path.parent, work / "states", warn=progress.warn
    )
    silent = replace(silent, vault=Vault(work / "finds"), publish_finds=prepared.resolved.evaluate.finds == "publish")
    scope, sampling = resolved.scope, resolved.evaluate.sampling
    ids = [step.identity.id for step in prepared.steps]
    after = After(dict(zip(ids, hardened.states[1:], strict=True)))
    named = prepared.retrained.folder if prepared.retrained else None
    retrained = ModelUnderTest.of(named.path, named.anatomy) if named else None

    def run(
        stage: str,
        model: ModelUnderTest,
        setting: Setting,
        claims: Sequence[StepClaim],
        trained: Collection[str] | None,
    ) -> Evaluation:
        setting = replace(setting, progress=lambda done, total, text: progress.update(stage, done, total, text))
        models = ModelsUnderTest(base, model, after, retrained)
        tools = replace(prepared.tools, second=prepared.tools.second if stage == "evaluate" else ())
        return run_checks(claims, scope, models, tools, sampling, setting, trained=trained)

    cells: list[MatrixCell] = []
    repeated = [one for one in prepared.claims if not one.claim.discloses]
    if resolved.evaluate.after_each_step:
        for done, (name, state) in enumerate(zip(["base", *ids[:-1]], hardened.states[:-1], strict=True)):
            model = _under_test(state, _safeguards(hardened.results[:done], work))
            trained = ids[:done] if resolved.evaluate.trainings_after_each_step else ()
            claims = [one for one in repeated if not done or not set(one.steps) <= set(ids[done:])]
            progress.say(f"Evaluation {f'after {name}' if done else 'of the base model'}, before {ids[done]}")
            cells += matrix_column(run(f"evaluate {name}", model, silent, claims, trained), name)
    took: dict[str, float] = {}

    def check_end(claim: str, record: CheckRecord, seconds: float) -> None:
        took[record.id] = seconds
        tell("publisher_on_check_end", CheckEnd(claim, record, seconds))

    loud = replace(silent, check_end=check_end)
    progress.say(_asked(prepared))
    packaged = ModelUnderTest.of(laid.root, anatomy, laid.root / RELEASE, laid.untouched())
    found = run("evaluate", packaged, loud, prepared.claims, None)
    if resolved.evaluate.after_each_step:
        cells += matrix_column(found, ids[-1])
    for check in (check for claim in found.claims for check in claim.checks):
        took[check.id] += found.seconds.get(check.id, 0.0) * sum(one.evaluation_steps[-1] for one in check.trials)
    return found, cells, took


def _asked(prepared: PreparedRelease) -> str:
    """Say what the evaluation of the package does."""
    trainings = sum(check.trainings for check in prepared.checks)
    asked = f"{prepared.images['base']} images of the base model and as many of the hardened one"
    return f"Evaluation of the package by {len(prepared.checks)} checks: {asked}" + (
        f", {trainings} trainings" if trainings else ""
    )


def _times(seconds: Mapping[str, float], cached: Sequence[str], found: Evaluation, took: Mapping[str, float]) -> bytes:
    """Return what depends on this machine, and is therefore no part of the report."""
    return json_bytes(
        {
            "seconds": {name: round(value, 2) for name, value in seconds.items()},
            "cached": list(cached),
            "relearning": {check: round(value, 4) for check, value in found.seconds.items()},
            "checks": {check: round(value, 4) for check, value in took.items()},
        }
    )


def _write_reports(target: Path, files: Mapping[str, bytes]) -> Path:
    """Write all forms of the report, the evidence, and the times into ``<package>.report``."""
    folder = reports_of(target)
    with partial(target) as new:
        for name, data in files.items():
            write_atomic(new / name, data)
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)
    return folder


def _sign(folder: Path, signer: Signer, day: str | None, digests: Mapping[str, str]) -> None:
    """Sign the package with these payload digests, then verify it as everybody else will."""
    created = datetime.fromisoformat(day).replace(tzinfo=UTC) if day else None
    sign(folder, signer, created=created, expected=digests)
    checked = verify(folder, signer.anchor)
    if not checked.ok:
        raise PublisherError(
            "the signed package does not verify, so it was thrown away",
            where=str(folder),
            hint="\n".join(str(finding) for finding in checked.findings),
        )
    build.refuse_exchanged(folder, digests, {path: one for path, one in checked.digests.items() if is_payload(path)})
