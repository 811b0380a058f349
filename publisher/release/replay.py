"""Check a package's numbers again: generate some of its images again, or new ones that its publisher never saw.

A sample of the evidence is generated again from its prompts and seeds. On the same kind of machine the pixels are the
same; elsewhere the scorers' judgements are compared. Fresh images have other seeds; what they say is compared with the
gates. Nothing of the package is believed but its claims and what its evidence says was asked. What follows from the
images is in :mod:`publisher.release.replayed`.
"""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from publisher.api import (
    Check,
    CheckRecord,
    ImageRequest,
    Scope,
    SearchAttack,
    TrainingAttack,
    WeightAttack,
)
from publisher.api.evidence import EvidenceRow, hits
from publisher.comparison.subjects import Subject, read_searches, read_subject
from publisher.engine.device import choose, require
from publisher.engine.progress import Progress
from publisher.errors import UsageError
from publisher.evaluate.checks import run_checks
from publisher.evaluate.context import COUNCIL, ModelsUnderTest, ModelUnderTest, Setting, StepClaim, Tools, Unmeasured
from publisher.evaluate.dispatch import closed_after
from publisher.evaluate.finetune.data import AttackerImages
from publisher.evaluate.images import Wanted, batches, without_concept
from publisher.evaluate.observe import Observations, observe
from publisher.evaluate.prepare import PreparedCheck, settle
from publisher.evaluate.requests import PRIVATE_KINDS
from publisher.evaluate.scorers import JUDGE, Task, both_judged
from publisher.evaluate.searching.images import Gallery
from publisher.evaluate.store import ImageStore
from publisher.manifest.resolve import Resolved
from publisher.model.digest import sha256_file
from publisher.package.layout import RELEASE, SUMS
from publisher.registry import load_registry
from publisher.release.existing import located, of_package
from publisher.release.finds import Reason, read_finds, try_again, why_left_out
from publisher.release.replayed import FreshCheck, Replay, ReplayedImage, compare_with_gate
from publisher.release.tools import collect_tools
from publisher.runtime.generate import batch_size
from publisher.runtime.refusals import is_refused


def replay(
    package: Path,
    progress: Progress,
    *,
    base: str | None = None,
    sample: int = 50,
    fresh: int | None = None,
    seed: int = 0,
    work: Path | None = None,
) -> Replay:
    """Generate images of a package's evidence again, or new ones.

    Args:
        package: its folder, verified by the caller.
        progress: is told how far it is.
        base: the base model; default the one that the package names.
        sample: lines of evidence to generate again, at least; all of them where there are fewer.
        fresh: in place of a sample, new images for each concept and check.
        seed: of the choice of lines, or the first of the new images' seeds.
        work: folder that keeps images; None: they are not kept.

    Raises:
        PublisherError: the package cannot be read, or its base model or a plugin is not to be had.
        UsageError: the new seeds are the release's own.
    """
    there = _Package.open(package, progress, base, work)
    again = [check for check in there.checks if _asks_by_prompt(check, there.tools)]
    result = there.result(seed=seed, left_out=tuple(check.id for check in there.checks if check not in again))
    with closed_after(there.tools.executor, progress.warn):
        if fresh is not None:
            return replace(result, checks=tuple(_fresh_checks(there, again, fresh, seed)))
        size = batch_size(there.models.base.anatomy.latents.size)
        rows = chosen_rows(there.subject, again, there.resolved.scope, size, sample, seed)
        images = _images(rows, again, there.resolved, there.models, there.tools, there.setting)
        strange = lines_left_out(there.subject, again, there.resolved.scope)
        return replace(result, images=tuple(images), lines_left_out=strange)


def replay_finds(
    package: Path, finds: Path, progress: Progress, *, base: str | None = None, work: Path | None = None
) -> Replay:
    """Generate again from what a package's searches found, on the recorded seeds.

    Args:
        package: its folder, verified by the caller.
        finds: folder of the finds; the package, if it publishes them.
        progress: is told how far it is.
        base: the base model; default the one that the package names.
        work: folder that keeps images; None: they are not kept.

    Raises:
        PublisherError: the package cannot be read, or its base model or a scorer is not to be had.
        UsageError: there are no finds, or they were made on another model.
    """
    there = _Package.open(package, progress, base, work)
    known, sealed = read_finds(finds, package, there.subject.report), read_searches(package, there.subject.report)
    setting = replace(there.setting, vault=known.vault)
    scope, sampling, model = there.resolved.scope, there.resolved.evaluate.sampling, there.models.base
    pictures = AttackerImages(model, scope, sampling, setting, there.tools.executor)
    gallery = Gallery(scope, there.tools, sampling, setting, model, pictures)
    checks = {check.id: check for check in there.checks}
    with closed_after(there.tools.executor, progress.warn):
        tried = tuple(try_again(known, checks, sealed, there.models.hardened, gallery))
    return there.result(
        finds=tried,
        left_out=tuple(name for name in sealed if name not in known.rows),
        lines_left_out=Counter(one.left_out for one in tried if one.left_out),
    )


@dataclass(frozen=True)
class _Package:
    """A package that is made again, with all that this needs."""

    folder: Path
    subject: Subject
    resolved: Resolved
    claims: Sequence[StepClaim]
    models: ModelsUnderTest
    tools: Tools
    setting: Setting

    @property
    def checks(self) -> list[Check]:
        """All checks of its claims."""
        return [check for item in self.claims for check in item.claim.checks]

    @classmethod
    def open(cls, package: Path, progress: Progress, base: str | None, work: Path | None) -> Self:
        """Read a package, and find its base model and its plugins."""
        subject = read_subject(package)
        resolved, claims = of_package(package)
        registry = load_registry()
        device = choose(resolved.device, resolved.dtype)
        require(device)
        model, against = located(str(package), registry, Path()), located(base or resolved.model, registry, Path())
        checks = [check for item in claims for check in item.claim.checks]
        tools, _ = collect_tools(resolved, registry, checks, package, fetch=True)
        setting = Setting(
            device.name,
            device.dtype,
            ImageStore(work / "images" if work else None, progress.warn),
            package,
            progress=lambda done, total, text: progress.update("replay", done, total, text),
            warn=progress.warn,
        )
        models = ModelsUnderTest(
            ModelUnderTest.of(against.folder.path, against.folder.anatomy),
            ModelUnderTest.of(model.folder.path, model.folder.anatomy, package / RELEASE),
        )
        return cls(package, subject, resolved, claims, models, replace(tools, second=()), setting)

    def result(self, **found: Any) -> Replay:
        """Return what was found of it."""
        return Replay(**{"report": self.subject.report, "sums": sha256_file(self.folder / SUMS), "seed": 0, **found})


def _fresh_checks(there: _Package, again: Sequence[Check], images: int, seed: int) -> Iterator[FreshCheck]:
    """Yield the checks, made with new seeds."""
    _require_fresh(there.subject, images, seed)
    sampling = there.resolved.evaluate.sampling.model_copy(update={"images": images, "seed": seed})
    claims = [item for item in (_only(one, again) for one in there.claims) if item.claim.checks]
    with tempfile.TemporaryDirectory() as folder:
        setting = replace(there.setting, work=Path(folder))
        found = run_checks(claims, there.resolved.scope, there.models, there.tools, sampling, setting)
    old = {check.id: check for claim in there.subject.report.claims for check in claim.checks}
    yield from (_fresh(record, old[record.id]) for claim in found.claims for record in claim.checks)


def chosen_rows(
    subject: Subject, checks: Sequence[Check], scope: Scope, size: int, count: int, seed: int
) -> list[EvidenceRow]:
    """Return a random choice of the evidence of these checks, in the order of the report.

    The last bits of an image depend on what it was generated together with. So whole batches are chosen, until they
    have enough lines.

    Args:
        subject: report with its evidence.
        checks: whose lines count, in the order in which the release made them.
        scope: says which concepts are private.
        size: of a batch.
        count: lines, at least; all where there are fewer.
        seed: of the choice.

    Raises:
        UsageError: there is no evidence of them that may be generated.
    """
    rows = [row for row in _rows(subject, checks) if _why_left_out(row, scope) is None]
    if not rows:
        raise UsageError("the package has no evidence of images that could be generated again", where=subject.name)
    private = [one.id for one in (*scope.concepts, *scope.keep) if one.kind in PRIVATE_KINDS]
    together = list(batches(map(_wanted, rows), private, size))
    random.Random(f"publisher:replay:{seed}").shuffle(together)
    lines: dict[ImageRequest, list[EvidenceRow]] = {}
    for row in rows:
        lines.setdefault(without_concept(_request(row)), []).append(row)
    chosen: set[ImageRequest] = set()
    while together and sum(len(lines[one]) for one in chosen) < count:
        chosen.update(together.pop().requests)
    return [row for row in rows if without_concept(_request(row)) in chosen]


def lines_left_out(subject: Subject, checks: Sequence[Check], scope: Scope) -> dict[Reason, int]:
    """Return why lines of the evidence of these checks are not generated again -> how many."""
    found = Counter(_why_left_out(row, scope) for row in _rows(subject, checks))
    return {why: count for why, count in found.items() if why}


def _rows(subject: Subject, checks: Sequence[Check]) -> list[EvidenceRow]:
    return [row for check in checks for row in subject.rows.get(check.id, ())]


def _why_left_out(row: EvidenceRow, scope: Scope) -> Reason | None:
    return why_left_out(row.concept, (row.prompt, row.negative_prompt), scope, is_refused)


def _asks_by_prompt(check: Check, tools: Tools) -> bool:
    attack = tools.attacks.get(check.attack)
    return attack is not None and not isinstance(attack, TrainingAttack | WeightAttack | SearchAttack)


def _only(item: StepClaim, checks: Sequence[Check]) -> StepClaim:
    """Return the claim with those of its checks that are made again."""
    left = tuple(check for check in item.claim.checks if check in checks)
    return replace(item, claim=item.claim.model_copy(update={"checks": left}))


def _require_fresh(subject: Subject, images: int, seed: int) -> None:
    used = {row.seed for rows in subject.rows.values() for row in rows}
    both = used & set(range(seed, seed + images))
    if both:
        what = f"--seed {seed} with {images} images would use seeds of the release's own images, such as {min(both)}"
        raise UsageError(what, hint=f"Choose a seed beyond {max(used)}, which nobody could foresee.")


def _request(row: EvidenceRow) -> ImageRequest:
    return ImageRequest(**{name: getattr(row, name) for name in ImageRequest.model_fields})


def _images(
    rows: Sequence[EvidenceRow],
    checks: Sequence[Check],
    resolved: Resolved,
    models: ModelsUnderTest,
    tools: Tools,
    setting: Setting,
) -> Iterator[ReplayedImage]:
    prepared = {check.id: _settled(check, resolved, tools) for check in checks}
    wanted = [_wanted(row) for row in rows]
    tasks: dict[ImageRequest, set[Task]] = {}
    for row, (request, _) in zip(rows, wanted, strict=True):
        found, judges = prepared[row.check], tasks.setdefault(without_concept(request), set())
        if row.base_hit is not None and isinstance(found, PreparedCheck):
            judges.update((name, JUDGE) for name in found.scorers[row.concept].split(COUNCIL) if name)
    seen = observe(wanted, resolved.scope, models, tools, setting, tasks=tasks)
    for row, one in zip(rows, wanted, strict=True):
        yield _compared(row, one, prepared[row.check], resolved, seen)


def _settled(check: Check, resolved: Resolved, tools: Tools) -> PreparedCheck | Unmeasured:
    try:
        return settle(check, resolved.scope, tools, resolved.evaluate.sampling)
    except Unmeasured as error:
        return error


def _wanted(row: EvidenceRow) -> Wanted:
    return _request(row), row.membranes == "on"


def _compared(
    row: EvidenceRow, wanted: Wanted, prepared: PreparedCheck | Unmeasured, resolved: Resolved, seen: Observations
) -> ReplayedImage:
    key = (without_concept(wanted[0]), wanted[1])
    if key not in seen.seen:
        raise UsageError(f"an image could not be generated again: {seen.problems.get(key, 'it is missing')}")
    there = seen.seen[key]
    agrees: bool | None = None
    if row.base_hit is not None and isinstance(prepared, PreparedCheck):
        said = both_judged(prepared.scorers[row.concept], there.judgements)
        if not isinstance(said, str):
            concept = resolved.scope.concept(row.concept)
            agrees = hits(*said, concept, prepared.metric.better) == (row.base_hit, row.hardened_hit)
    return ReplayedImage(
        check=row.check,
        concept=row.concept,
        prompt=row.prompt,
        seed=row.seed,
        same_base=there.base_sha256 == row.base_sha256,
        same_hardened=there.hardened_sha256 == row.hardened_sha256,
        agrees=agrees,
        shift=there.distance - row.distance,
    )


def _fresh(record: CheckRecord, claimed: CheckRecord) -> FreshCheck:
    old = claimed.measurement.hardened if claimed.measurement else None
    if record.measurement is None:
        return FreshCheck(record.id, record.gate, None, old, "undecided", record.reason)
    found = record.measurement.hardened
    return FreshCheck(record.id, record.gate, found, old, compare_with_gate(record.gate, found))
