"""Audit a fine-tuned model against a released package: did what its freeze mask names stay as it was published?"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from publisher.api import TensorInfo
from publisher.api.file_places import Places
from publisher.api.freeze_mask import FreezeMask, digests
from publisher.api.header import read_header
from publisher.api.ldm_names import EMA, EMA_STATE, ldm_layers, single_file_places
from publisher.api.model_files import MASK
from publisher.api.weight_names import COUNTING, Layers, Names, frozen_layers, packed, pair
from publisher.errors import InconclusiveError
from publisher.hub.fetch import locate
from publisher.loading import NotVerifiedError, require_verified
from publisher.model.digest import sha256_file
from publisher.model.folder import read_configs
from publisher.package.dsse import Anchor
from publisher.package.layout import MODEL_INDEX, RELEASE, TEXT_TYPES, suffix
from publisher.package.upload import Upload, WeightSet, read_upload
from publisher.package.verify import Verification
from publisher.safeguards.freeze_mask.audit.comparing import Comparison, Weights, tally
from publisher.safeguards.freeze_mask.audit.equality import counts
from publisher.safeguards.freeze_mask.audit.records import (
    AdapterAudit,
    Audit,
    AuditedPackage,
    ComponentAudit,
    FreeTensors,
    State,
    Unexamined,
    WeightsAudit,
    verdict_of,
)
from publisher.safeguards.freeze_mask.audit.single_file import PlacedWeights, compare_part, placed

UNKNOWN_NAMES = "a single file of {kind} under its original names cannot be examined, one under those of diffusers can"
MOSTLY = 0.5
"""Files with so much of the published network are a set of weights; with less of it they replace what they hold."""


class NoMaskError(InconclusiveError):
    """The package freezes nothing, so there is nothing to compare."""


def audit(
    finetuned: str | Path,
    package: str | Path,
    key: str | Path | Anchor,
    *,
    hub: bool = False,  # noqa: ARG001 - callers of earlier versions give it
) -> Audit:
    """Compare a fine-tuned model with a package's freeze mask. Memory: one tensor and its difference.

    Args:
        finetuned: a diffusers pipeline, a denoiser's folder, a folder of adapters, or one ``.safetensors`` file,
            which may be a one-file checkpoint. Nothing of it is unpickled or run.
        package: the released package that it was trained from: a folder, or ``hf:org/name@`` and a tag or a commit.
        key: the publisher's public key in PEM, or what :func:`publisher.trust` returns; from the publisher, never from
            the package or the upload.
        hub: does nothing any more; what a hub adds to a package is always left out.

    Raises:
        NotVerifiedError: the package does not verify.
        NoMaskError: it has no freeze mask.
        UsageError: a folder, a file or the key cannot be read.
    """
    located = locate(package)
    published = Published(
        located.path,
        require_verified(located, Path(key) if isinstance(key, str) else key, "nothing was compared with it"),
    )
    published.check_digests()
    upload, tree = read_upload(Path(finetuned))
    auditor = Auditor(published, upload)
    auditor.run()
    for finding in tree.recheck():
        upload.unexamined[finding.path] = finding.message
    return auditor.record()


class Published:
    """A verified package: what is compared with.

    Args:
        folder: the package.
        verification: its good answer.

    Raises:
        NoMaskError: it has no mask.
    """

    def __init__(self, folder: Path, verification: Verification) -> None:
        self.folder, self._verification = folder, verification
        if not (folder / MASK).is_file():
            raise NoMaskError(
                "the package has no freeze mask", where=str(folder), hint="There is nothing that had to stay as it is."
            )
        self.mask = FreezeMask.parse(json.loads((folder / MASK).read_bytes()))
        self.denoiser = self.weights(self.mask.component)

    def weights(self, component: str) -> Weights:
        """Return a component's tensors."""
        files = {f"{component}/{path.name}": path for path in (self.folder / component).glob("*.safetensors")}
        found = [info for name, path in sorted(files.items()) for info in read_header(path, name).values()]
        return Weights({info.name: info for info in found}, files)

    @cached_property
    def components(self) -> tuple[str, ...]:
        """Folders of the package's parts, sorted; without its own ``release``."""
        return tuple(sorted(path.name for path in self.folder.iterdir() if path.is_dir() and path.name != RELEASE))

    @cached_property
    def configs(self) -> dict[str, dict[str, Any]]:
        """``"model_index"`` and each part's name -> its configuration."""
        return read_configs(self.folder)

    @cached_property
    def places(self) -> dict[str, Places]:
        """Part -> its tensors -> where a one-file checkpoint keeps them; empty for models without such files."""
        tensors = {name: self.weights(name).tensors for name in self.configs if name != "model_index"}
        return single_file_places(self.configs, tensors)

    def texts(self, prefix: str) -> dict[str, Path]:
        """Return configurations and vocabularies right below a folder (``"vae/"``; empty: the root), by path."""
        paths = (self.folder / prefix).iterdir() if (self.folder / prefix).is_dir() else ()
        return {f"{prefix}{path.name}": path for path in paths if path.is_file() and suffix(path.name) in TEXT_TYPES}

    def check_digests(self) -> None:
        """Compare the mask's digests, of all casts, with the weights beside it.

        Raises:
            NotVerifiedError: one is of something else; its publisher signed a mask that cannot be kept.
        """
        for frozen in self.mask.frozen:
            if digests(self.denoiser.read(frozen.name), frozen.rows) != dict(frozen.sha256):
                raise NotVerifiedError(
                    f"a digest of {frozen.name!r} is not that of the tensor, or of a cast of it",
                    where=str(self.folder / MASK),
                    hint="Tell the package's publisher; it was signed so.",
                )

    def record(self) -> AuditedPackage:
        """Return what the audit's record says of it."""
        summary = self._verification.summary
        return AuditedPackage(
            name=summary.name if summary else "",
            version=summary.version if summary else "",
            key_sha256=self._verification.key,
            mask_sha256=sha256_file(self.folder / MASK),
            component=self.mask.component,
            granularity=self.mask.granularity,
            tensors=self.mask.tensors,
            parameters=self.mask.parameters,
        )


class Auditor:
    """Compares what lies in an upload with what was published."""

    def __init__(self, published: Published, upload: Upload) -> None:
        self._published, self._upload = published, upload
        self._mask = published.mask
        tensors, configs = published.denoiser.tensors, published.configs
        ldm = ldm_layers(configs.get(self._mask.component, {}), tensors)
        self._places: Places = {} if ldm else published.places.get(self._mask.component, {})
        kind = str(configs.get(self._mask.component, {}).get("_class_name", ""))
        self._unknown = "" if ldm or self._places else UNKNOWN_NAMES.format(kind=kind or "such models")
        self._layers = Layers(self._mask.component, tensors, ldm, self._places)
        self._weights: list[WeightsAudit] = []
        self._adapters: list[AdapterAudit] = []
        self._others: dict[str, list[WeightSet]] = {}
        self._parts: list[ComponentAudit] = []

    def run(self) -> None:
        """Compare everything; what cannot be is listed in the upload."""
        known = (set(self._published.components) | set(self._named())) - {self._mask.component}
        denoisers = []
        for one in self._upload.sets():
            folder = posixpath.basename(posixpath.dirname(one.files[0]))
            if one.files[0].startswith(f"{RELEASE}/") and self._identical(one.files):
                continue  # the package's own membranes, uploaded again
            if self._upload.kind == "pipeline" and folder in known:
                self._others.setdefault(folder, []).append(one)
            else:
                denoisers.append((one, self._layers.sort(self._upload.tensors(one.files))))
        for path, what in sorted(self._upload.packed.items()):
            self._weights.append(self._nothing(f"cannot be examined: it is {what}", (path,)))
        for one, names in denoisers:
            self._files(one if one.absent else one._replace(absent=self._beside(one, names, denoisers)), names)
        if self._upload.kind == "pipeline" and not self._inside():
            self._weights.append(self._nothing(f"there are no safetensors weights in {self._mask.component}/"))

    def record(self) -> Audit:
        """Return the record of the audit."""
        pipeline = self._upload.kind == "pipeline"
        weights, adapters = tuple(self._weights), tuple(self._adapters)
        unexamined = _listed(self._upload.unexamined)
        if not (weights or adapters or unexamined):
            weights = (self._nothing("there is no weights file"),)
        return Audit(
            verdict=verdict_of(weights, adapters, unexamined),
            package=self._published.record(),
            upload=self._upload.kind,
            weights=weights,
            adapters=adapters,
            components=(*(self._components() if pipeline else self._config("")), *self._parts),
            unexamined=unexamined,
            aside=_listed(self._upload.aside),
        )

    def _inside(self) -> bool:
        files = (*self._upload.headers, *self._upload.packed)
        return any(path.startswith(f"{self._mask.component}/") for path in files)

    def _nothing(self, reason: str, files: Sequence[str] = ()) -> WeightsAudit:
        free = len(self._published.denoiser.tensors) - len(self._mask.frozen)
        return WeightsAudit(files=tuple(files), comparable=False, reason=reason, free=FreeTensors(tensors=free))

    def _beside(self, one: WeightSet, names: Names, all_sets: Sequence[tuple[WeightSet, Names]]) -> str:
        """Return a file beside a set that holds what it lacks of the mask, and nothing that it has; and note that."""
        lacking = set(self._mask.rows) - set(names.tensors)
        if not names.tensors or not lacking:
            return ""
        folder = posixpath.dirname(one.files[0])
        for other, others in all_sets:
            apart = not set(names.tensors) & set(others.tensors)
            if posixpath.dirname(other.files[0]) == folder and lacking & set(others.tensors) and apart:
                why = f"lacks what {other.files[0]} beside it holds, and no index says if they belong together"
                self._upload.unexamined[one.files[0]] = why
                return other.files[0]
        return ""

    def _files(self, one: WeightSet, names: Names) -> None:
        first, inside = one.files[0], one.files[0].startswith(f"{self._mask.component}/")
        headers = self._upload.tensors(one.files)
        if key := packed(headers):
            why = f"cannot be examined: its numbers are packed, and {key!r} tells how"
            self._weights.append(self._nothing(why, one.files))
            return
        names = self._without_parts(first, names, headers)
        for name in names.twice:
            self._upload.unexamined[first] = f"has two tensors that stand for {name!r}"
        only_adapters = bool(names.adapters or names.text)
        complete = len(names.tensors) >= MOSTLY * len(self._layers.tensors) or inside or not only_adapters
        if complete or names.tensors:
            self._compare(one.files, names, headers, complete=complete and not one.absent)
        elif names.other:
            self._upload.unexamined[first] = f"has {len(names.other)} tensors of unknown layers: {names.other[0]}"
        if only_adapters:
            self._adapters.append(self._adapter(one.files, names))

    def _without_parts(self, first: str, names: Names, headers: Mapping[str, TensorInfo]) -> Names:
        """Compare the other parts that a one-file checkpoint holds, and return what is left."""
        if any(name.startswith(EMA) and name not in EMA_STATE for name in names.other):
            self._upload.unexamined[first] = f"holds a second set of weights ({EMA}*), which was not compared"
        other = {name: headers[name] for name in names.other}
        for component, places in self._published.places.items() if other else ():
            if component == self._mask.component or not any(place.name in other for place in places.values()):
                continue
            published = self._published.weights(component)
            found = placed(places, published, other, self._upload.root)
            name = component if self._upload.kind == "file" else f"{first}: {component}"
            self._parts.append(compare_part(name, published, found))
            other = {name: info for name, info in other.items() if name not in found.stored}
        files = {info.file: self._upload.root / info.file for info in other.values()}
        counters = {name for name in other if name.endswith(COUNTING) and counts(Weights(other, files).read(name))}
        return replace(names, other=sorted(set(other) - counters))

    def _compare(
        self, files: Sequence[str], names: Names, headers: Mapping[str, TensorInfo], *, complete: bool
    ) -> None:
        stored = {**names.tensors, **{name: name for name in names.other}}
        places = {name: replace(self._places[name], name=names.tensors[name]) for name in names.placed}
        tensors = {name: headers[own] for name, own in stored.items()}
        tensors |= placed(places, self._published.denoiser, headers, self._upload.root).tensors
        found = PlacedWeights(tensors, {file: self._upload.root / file for file in files}, places)
        comparison = Comparison(self._mask, self._published.denoiser, found)
        audited = comparison.run(complete=complete)
        if self._unknown and not (audited.comparable or audited.frozen):
            audited = audited.model_copy(update={"reason": f"{audited.reason}; {self._unknown}"})
        self._weights.append(audited)
        for name in comparison.not_finite:
            self._upload.unexamined[headers[stored[name]].file] = f"{name!r} holds NaN or infinity"

    def _adapter(self, files: Sequence[str], names: Names) -> AdapterAudit:
        return AdapterAudit(
            files=tuple(files),
            layers=len(names.adapters),
            frozen_layers=frozen_layers(names.adapters, self._mask.rows),
            elsewhere=len(names.text),
        )

    def _named(self) -> Iterator[str]:
        """Yield components that the upload's ``model_index.json`` names."""
        index = self._upload.documents.get(MODEL_INDEX)
        for name, value in index.items() if isinstance(index, dict) else ():
            if isinstance(value, list) and value != [None, None]:
                yield name

    def _components(self) -> Iterator[ComponentAudit]:
        if changed := self._texts("", "", only=MODEL_INDEX):
            yield ComponentAudit(name=MODEL_INDEX, state="changed", files_changed=changed)
        yield from self._config(f"{self._mask.component}/")
        for name in sorted({*self._published.components, *self._named()} - {self._mask.component}):
            yield self._component(name)

    def _config(self, prefix: str) -> Iterator[ComponentAudit]:
        """Compare the denoiser's own configuration, which can change what its tensors do."""
        if f"{prefix}config.json" not in self._upload.digests:
            return
        changed = self._texts(f"{self._mask.component}/", prefix, only=f"{self._mask.component}/config.json")
        if changed:
            yield ComponentAudit(name=self._mask.component, state="changed", files_changed=changed)

    def _component(self, name: str) -> ComponentAudit:
        here = any(path.startswith(f"{name}/") for path in self._upload.digests)
        if not here or name not in self._published.components:
            return ComponentAudit(name=name, state="added" if here else "missing")
        texts = self._texts(f"{name}/", f"{name}/")
        published = self._published.weights(name)
        sets = self._others.get(name, [])
        if not sets and any(path.startswith(f"{name}/") for path in self._upload.unexamined):
            return ComponentAudit(name=name, state="unexamined", files_changed=texts)
        if not sets and published.tensors:
            return ComponentAudit(
                name=name, state="changed", files_changed=texts, tensors_changed=len(published.tensors)
            )
        found = [self._tally(published, one) for one in sets if not self._identical(one.files)]
        changed = max((one["changed"] + one["missing"] for one in found), default=0)
        kept: tuple[State, ...] = ("cast", "renamed")
        state: State = next((kind for kind in kept if any(one[kind] for one in found)), "same")
        return ComponentAudit(
            name=name,
            state="changed" if changed or texts else state,
            files_changed=texts,
            tensors_changed=changed,
            tensors_renamed=max((one["renamed"] for one in found), default=0),
        )

    def _identical(self, files: Iterable[str]) -> bool:
        paths = {file: self._published.folder / file for file in files}
        return all(path.is_file() and sha256_file(path) == self._upload.digests[file] for file, path in paths.items())

    def _tally(self, published: Weights, one: WeightSet) -> Mapping[Any, int]:
        headers = self._upload.tensors(one.files)
        files = {file: self._upload.root / file for file in one.files}
        names = pair(published.tensors, headers)
        found = Weights({name: headers[own] for name, own in names.items()}, files)
        kinds = tally(published, found, sorted(names if one.absent else published.tensors))
        beside = {name: headers[name] for name in set(headers) - set(names.values()) if name.endswith(COUNTING)}
        kinds["changed"] += sum(not counts(Weights(beside, files).read(name)) for name in beside)
        return kinds

    def _texts(self, ours: str, theirs: str, only: str = "") -> tuple[str, ...]:
        """Return text files of a folder that differ or are absent in the upload, named as published."""
        changed = []
        for name, path in sorted(self._published.texts(ours).items()):
            own = theirs + name.removeprefix(ours)
            if only in ("", name) and self._upload.digests.get(own) != sha256_file(path):
                document = self._upload.documents.get(own)
                if (
                    document is None
                    or suffix(name) != "json"
                    or _said(document) != _said(json.loads(path.read_bytes()))
                ):
                    changed.append(name)
        return tuple(changed)


def _listed(files: Mapping[str, str]) -> tuple[Unexamined, ...]:
    return tuple(Unexamined(path=path, reason=why) for path, why in sorted(files.items()))


def _said(document: Any) -> Any:
    """Return a configuration without what saving it again changes: versions and where it came from."""
    if not isinstance(document, dict):
        return document
    return {key: value for key, value in document.items() if not key.startswith("_") or key == "_class_name"}
