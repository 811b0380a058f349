"""Hold a package against its ledger of slices: what it holds, put together again from the base model, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from publisher.api import Model, ModelInfo, PublisherError
from publisher.api.header import read_header
from publisher.api.model_files import RELEASE
from publisher.api.slices import (
    DELETED,
    FOLDER,
    LEDGER,
    Composition,
    LayerUpdate,
    Ledger,
    Receipt,
    Remains,
    read_updates,
    recompose,
    same_bits,
    weights_of,
)
from publisher.errors import UsageError
from publisher.model.folder import ModelFolder
from publisher.model.state import State
from publisher.package import dsse
from publisher.package.layout import MODEL_INDEX, ROOT_FILES, is_picture, suffix
from publisher.package.received import received
from publisher.package.variants import variant_name
from publisher.package.verify import verify
from publisher.safeguards import ALL

PLACE = Path(RELEASE) / FOLDER
"""Of ledger and stages in a package."""
Updates = Mapping[str, Sequence[LayerUpdate]]
"""Layer -> what each stage that stays adds to it."""
SHOWN = 3
"""Tensors that an answer names."""


@dataclass(frozen=True)
class SliceAnswer:
    """One question of the audit, and its answer."""

    question: str
    """Name of what was looked at."""
    ok: bool
    """Whether it is as it should be."""
    detail: str
    """Answer in words."""


@dataclass(frozen=True)
class SliceAudit:
    """All answers about one package."""

    answers: tuple[SliceAnswer, ...]
    """In the order in which they were asked; a *no* ends the questions that rest on it."""
    deleted: tuple[str, ...] = ()
    """Ids of the withdrawn slices, as the package says."""
    stages: tuple[str, ...] = ()
    """Ids of the stages that the package should hold."""

    @property
    def ok(self) -> bool:
        """Every answer is yes."""
        return all(one.ok for one in self.answers)


def open_ledger(path: Path, anchor: dsse.Anchor | None) -> Ledger:
    """Open a ledger, its signature verified where somebody is trusted.

    Args:
        path: of the ledger, or of its folder.
        anchor: who must have signed; None: nothing is said of that.

    Raises:
        UsageError: it cannot be read.
        ModelError: it contradicts itself.
        BundleError: it was not signed so.
    """
    file = path / LEDGER if path.is_dir() else path
    try:
        data = file.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(file)) from error
    if anchor is None:
        return Ledger.read(data, str(file))
    return Ledger.of(dsse.open_statement(data, anchor), str(file))


def audit(
    package: Path, base: State, anchor: dsse.Anchor, trainer: dsse.Anchor, earlier: Path | None = None
) -> SliceAudit:
    """Ask everything that package, base model and public key can answer.

    Signature of the package; signature and chain of the ledger; the one before it; base model; what should stay after
    the deletion, files included; every tensor composed again, bit for bit; every other tensor the base model's; and
    every other file of the model the base model's too.

    Args:
        package: folder of it.
        base: model that the stages were trained on.
        anchor: who must have signed the package.
        trainer: who must have signed the ledger.
        earlier: package before this one, which the same one must have signed; or a ledger or its folder. None: nothing
            is asked of that.
    """
    found = verify(package, anchor)
    first = SliceAnswer("signature of the package", found.ok, "good" if found.ok else str(found.findings[0]))
    if not found.ok:
        return SliceAudit((first,))
    try:
        ledger = open_ledger(package / PLACE / LEDGER, trainer)
    except (PublisherError, dsse.BundleError) as error:
        return SliceAudit((first, SliceAnswer("ledger", False, str(error))))
    good = (first, SliceAnswer("ledger", True, f"signed; {_history(ledger)}"))
    if earlier is None:
        return recomposed(package, base, ledger, good)
    follows = _follows(package, ledger, earlier, anchor, trainer)
    return recomposed(package, base, ledger, (*good, follows)) if follows.ok else SliceAudit((*good, follows))


def _follows(package: Path, ledger: Ledger, earlier: Path, anchor: dsse.Anchor, trainer: dsse.Anchor) -> SliceAnswer:
    """Ask whether ledger and deletion follow from those of an earlier package, or from an earlier ledger alone."""
    question, place = "earlier ledger", earlier
    try:
        if (earlier / PLACE).is_dir():
            place, found = earlier / PLACE, verify(earlier, anchor)
            if not found.ok:
                return SliceAnswer(question, False, f"its package: {found.findings[0]}")
        before = open_ledger(place, trainer)
        said = (place if place.is_dir() else place.parent) / DELETED
        withdrawn = Remains.read(said).deleted if said.is_file() else ()
        still = {*Remains.read(package / PLACE / DELETED).deleted, *(one.id for one in ledger.withdrawn)}
    except (PublisherError, dsse.BundleError) as error:
        return SliceAnswer(question, False, str(error))
    if problem := next(ledger.breaks_with(before), ""):
        return SliceAnswer(question, False, problem)
    if back := sorted({*withdrawn} - still):
        return SliceAnswer(question, False, f"{back[0]} was withdrawn from the earlier release, and is back")
    how = "the same one" if before.digest == ledger.digest else f"{before.digest[:12]}, which this one replaced"
    return SliceAnswer(question, True, f"{how}; still without {', '.join(withdrawn)}" if withdrawn else how)


def recomposed(package: Path, base: State, ledger: Ledger, before: tuple[SliceAnswer, ...]) -> SliceAudit:
    """Ask what base model and ledger can answer, signatures aside.

    Args:
        package: folder of it.
        base: model that the stages were trained on.
        ledger: of the package.
        before: answers so far.
    """
    other = [name for name, digest in ledger.base.weights.items() if _digest(base, name) != digest]
    said = f"{', '.join(other)} is another one" if other else "the one that the stages were trained on"
    before = (*before, SliceAnswer("base model", not other, said))
    if other:
        return SliceAudit(before)
    try:
        remains = Remains.read(package / PLACE / DELETED)
        composition = ledger.compose(remains.deleted)
        names = tuple(stage.id for stage in composition.stages)
        if names != remains.stages:
            raise UsageError(f"says that {', '.join(remains.stages)} stay, and {', '.join(names)} should")
        _require_no_more(package / PLACE, composition)
        updates = _updates(package, base, ledger, composition)
    except PublisherError as error:
        return SliceAudit((*before, SliceAnswer("stages that stay", False, str(error))))
    deleted = tuple(sorted({*remains.deleted, *(one.id for one in ledger.withdrawn)}))
    saw = f"{', '.join(names)}; none saw {', '.join(deleted)}" if deleted else ", ".join(names)
    before = (*before, SliceAnswer("stages that stay", True, saw))
    differs = sorted(_differences(package, base, ledger, updates))
    told = f"{len(differs)} differ, such as {', '.join(differs[:SHOWN])}" if differs else "all equal, bit for bit"
    weights = SliceAnswer("weights composed again", not differs, told)
    strange = sorted(_strange(package, base.base))
    more = f" and {len(strange) - SHOWN} more" if len(strange) > SHOWN else ""
    told = f"{', '.join(strange[:SHOWN])}{more}" if strange else "the base model's, byte for byte"
    return SliceAudit((*before, weights, SliceAnswer("other files", not strange, told)), deleted, names)


def _digest(base: ModelInfo, component: str) -> str:
    return weights_of(base, component) if component in base.components else ""


def _history(ledger: Ledger) -> str:
    follow = f"{len(ledger.stages)} stages follow from {len(ledger.slices)} slices"
    gone = ", ".join(one.id for one in ledger.withdrawn)
    after = f"; replaces {ledger.previous[:12]}" if ledger.previous else ""
    rest = "".join(f"; {one.id} may hold pictures of {', '.join(one.rest_of)}" for one in ledger.slices if one.rest_of)
    return f"{follow}{after}{f', without {gone}' if gone else ''}{rest}"


def _require_no_more(folder: Path, composition: Composition) -> None:
    """Refuse a folder that holds more than ledger and stages that stay, such as the stage of a withdrawn slice.

    Raises:
        UsageError: naming the first of it.
    """
    known = {LEDGER, DELETED, *(Path(stage.file).name for stage in composition.stages)}
    if more := sorted(path.name for path in folder.iterdir() if path.name not in known):
        raise UsageError("is neither ledger nor a stage that stays", where=f"{PLACE.as_posix()}/{more[0]}")


def _updates(package: Path, base: Model, ledger: Ledger, composition: Composition) -> Updates:
    flat = [one.model_copy(update={"file": Path(one.file).name}) for one in composition.stages]
    return read_updates(package / PLACE, ledger, flat, base.tensors(ledger.base.component))


def _differences(package: Path, base: Model, ledger: Ledger, updates: Updates) -> Iterator[str]:
    """Yield every tensor of the package that is not what it should be."""
    from safetensors import safe_open

    for component in base.components:
        wanted = base.tensors(component)
        files = {name: package / info.file for name, info in wanted.items()}
        for path in sorted(set(files.values())):
            if not path.is_file() or set(read_header(path)) != {name for name in files if files[name] == path}:
                yield path.relative_to(package).as_posix()
                continue
            with safe_open(path, framework="pt") as file:
                for name in sorted(name for name in files if files[name] == path):
                    mine = component == ledger.base.component
                    added = updates.get(name.removesuffix(".weight"), ()) if mine and name.endswith(".weight") else ()
                    right = base.read(component, name)
                    right = recompose(right, added) if added else right
                    if not same_bits(right, file.get_tensor(name)):
                        yield f"{component}/{name}"


def _strange(package: Path, base: ModelFolder) -> Iterator[str]:
    """Yield every other file by which a package could be another model, or hold a stage, and what is wrong with it.

    Texts of the model have to be the base model's. Weights have a place as tensors that are composed again, as their
    half-precision variant, as stages, and in a safeguard: ``verify`` holds those two against what they belong to.
    """
    there, weights = received(package).files, {one for one in base.files if suffix(one) == "safetensors"}
    known = weights | {variant_name(one) for one in base.files}
    for path in sorted(there | base.files.keys()):
        if path in ROOT_FILES - {MODEL_INDEX} or is_picture(path) or path in known:
            continue
        if path.startswith(f"{RELEASE}/"):
            owned = path.startswith(f"{PLACE.as_posix()}/") or any(one.owns(path[len(RELEASE) + 1 :]) for one in ALL)
            if suffix(path) == "safetensors" and not owned:
                yield f"{path} has no place in a release"
        elif path not in base.files:
            yield f"{path} is not of the base model"
        elif path not in there or (package / path).read_bytes() != base.files[path].read_bytes():
            yield f"{path} is not the base model's"


def proves(ledger: Ledger, receipt: Receipt, image: bytes, caption: str) -> bool:
    """Return whether a picture with its caption was in the slice that its receipt names.

    Raises:
        UsageError: the ledger has no such slice.
    """
    roots = {one.id: one.root for one in (*ledger.slices, *ledger.withdrawn)}
    if receipt.slice not in roots:
        raise UsageError(f"there is no slice {receipt.slice!r}", where="receipt")
    return receipt.root(image, caption) == roots[receipt.slice]
