"""Write a released package as one checkpoint file, for programs that read no diffusers folders. One tensor in memory.

The names are those of :mod:`publisher.api.ldm_names`. What a single file cannot carry stays behind, and is listed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from publisher.api import TensorInfo
from publisher.api.file_places import SingleFilePlace
from publisher.api.ldm_names import single_file_places
from publisher.api.membranes import find_hosts, require_fit, weight_change
from publisher.api.model_files import MASK
from publisher.api.weight_names import COUNTING
from publisher.errors import ModelError, UsageError
from publisher.hub.fetch import locate
from publisher.loading import require_verified
from publisher.model.files import write_safetensors
from publisher.model.folder import ModelFolder, read_configs
from publisher.model.tensors import dtype_name, tensor_bytes
from publisher.package.dsse import Anchor
from publisher.package.layout import RELEASE, SUMS
from publisher.registry import load_registry
from publisher.safeguards.freeze_mask.audit.single_file import halves_swapped
from publisher.safeguards.membranes.lora import Portion
from publisher.safeguards.membranes.released import Released, read_release
from publisher.safeguards.membranes.tools import open_membranes

if TYPE_CHECKING:
    import torch

    from publisher.api.membranes import Branch
    from publisher.package.verify import Verification

SUFFIX = ".safetensors"
FLOATS = ("F64", "F32", "F16", "BF16")
"""Types that can be cast to another; others are written as they are."""
BEHIND = ("safety_checker", "image_encoder")
"""Parts of a pipeline for which a one-file checkpoint has no place, and without which it generates."""
Membranes = Literal["merge", "leave"]
Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class Exported:
    """What was written, and what was not."""

    path: Path
    tensors: int
    """Tensors in the file; of OpenCLIP, three of the package's are one."""
    bytes: int
    """Size of the file."""
    dtypes: tuple[str, ...]
    """Types of its tensors, sorted."""
    merged: int
    """Weights that membranes were added to."""
    metadata: Mapping[str, str]
    """What its header says: the package that it was made of."""
    behind: tuple[str, ...]
    """What stayed behind, one sentence each."""


@dataclass(frozen=True)
class _Written:
    """A tensor of the file."""

    info: TensorInfo
    sources: tuple[tuple[str, str, SingleFilePlace], ...]
    """Component, tensor and place of each piece, in their order."""


def export(
    package: str | Path,
    out: Path,
    key: str | Path | Anchor,
    *,
    dtype: str = "",
    membranes: Membranes | None = None,
    progress: Progress = lambda *_: None,
) -> Exported:
    """Verify a package, and write its model as one file: of a transformer that alone, as such files are made.

    Equal input gives equal bytes. The file appears complete or not at all.

    Args:
        package: a folder, or ``hf:org/name@`` and a tag or a commit.
        out: the file; a new one that ends in ``.safetensors``, outside of the package.
        key: the publisher's public key in PEM, or what :func:`publisher.trust` returns.
        dtype: ``float32``, ``float16`` or ``bfloat16`` for all tensors; empty: as they are stored.
        membranes: for a package whose membranes open by the prompt, which no single file can do: added to the weights
            with their constant strengths, or left out.
        progress: is called with the number of tensors written and of all.

    Raises:
        UsageError: ``out`` is there already, lies in the package or is called otherwise; or ``membranes`` is not given
            for a package that needs it.
        NotVerifiedError: the package does not verify.
        ModelError: the model has no such form, or a number is too large for the dtype.
    """
    if out.suffix != SUFFIX:
        raise UsageError(f"must end in {SUFFIX}", where=str(out), hint="Programs tell checkpoints by that.")
    if os.path.lexists(out):
        raise UsageError("is there already", where=str(out), hint="Give another name, or move it away.")
    located = locate(package)
    if out.resolve().is_relative_to(located.path.resolve()):
        hint = "The package would not be what was signed. Give a name outside of it."
        raise UsageError("lies inside the package", where=str(out), hint=hint)
    trusted = Path(key) if isinstance(key, str) else key
    verification = require_verified(located, trusted, "nothing was written")
    configs = read_configs(located.path)
    _, anatomy = load_registry().recognise(configs, str(located))
    model = ModelFolder(located.path, anatomy, configs)
    released = read_release(located.path / RELEASE)
    portions = _portions(located.path, released, membranes)
    written = _plan(model, configs, dtype)
    job = _PackageTensors(model, portions, dtype)
    metadata = _metadata(verification, _said(released, membranes))
    by_name = {one.info.name: one for one in written}
    done = 0

    def read(name: str) -> bytes:
        nonlocal done
        data = job.read(by_name[name])
        done += 1
        progress(done, len(written))
        return data

    write_safetensors(out, [one.info for one in written], read, metadata)
    held = {component for one in written for component, _, _ in one.sources}
    behind = (*_behind(model, configs, held, merged=bool(portions)), *_behind_membranes(released, membranes))
    dtypes = tuple(sorted({one.info.dtype for one in written}))
    return Exported(out, len(written), out.stat().st_size, dtypes, job.merged, metadata, behind)


def _portions(folder: Path, released: Released | None, membranes: Membranes | None) -> Sequence[Portion]:
    """Return the membranes to add; none where they are to be left, are in the weights already, or are not there."""
    if released is None or not released.attachable:
        return ()
    if membranes is None:
        hint = (
            "--membranes merge adds them to the weights: always on, whatever the prompt says.\n"
            "--membranes leave writes the weights without them: what they erase comes back."
        )
        raise UsageError("the package has membranes that open by the prompt, which a single file cannot do", hint=hint)
    return open_membranes([folder]) if membranes == "merge" else ()


def _said(released: Released | None, membranes: Membranes | None) -> str:
    if released is None:
        return "none"
    if not released.attachable:
        return "in the weights, as released"
    return "merged" if membranes == "merge" else "left out"


def _plan(model: ModelFolder, configs: Mapping[str, Mapping[str, object]], dtype: str) -> list[_Written]:
    """Return the file's tensors by name.

    Raises:
        ModelError: a tensor has no place in such a file.
    """
    tensors = {component: model.tensors(component) for component in model.components}
    places = single_file_places(configs, tensors)
    if not places:
        hint = "There is one for Stable Diffusion, FLUX.1 and Chroma."
        raise ModelError("no single file is known for this kind of model", where=str(model.path), hint=hint)
    pieces: dict[str, list[tuple[str, str, SingleFilePlace]]] = {}
    for component, found in tensors.items():
        known = places.get(component, {})
        lost = sorted(name for name in found if name not in known and not name.endswith(COUNTING))
        if lost and component not in BEHIND and (known or len(places) > 1):
            hint = "A loader of single files would not find it, so nothing was written."
            raise ModelError(f"{component}/{lost[0]} has no place in a single file", where=str(model.path), hint=hint)
        for name, place in known.items():
            pieces.setdefault(place.name, []).append((component, name, place))
    return [_written(name, sorted(held, key=_piece), tensors, dtype) for name, held in sorted(pieces.items())]


def _piece(source: tuple[str, str, SingleFilePlace]) -> int:
    return source[2].start


def _written(
    name: str,
    sources: Sequence[tuple[str, str, SingleFilePlace]],
    tensors: Mapping[str, Mapping[str, TensorInfo]],
    dtype: str,
) -> _Written:
    component, first, place = sources[0]
    infos = [tensors[component][one] for component, one, _ in sources]
    heights = [info.shape[0] if info.shape else 1 for info in infos]
    starts = [place.start for _, _, place in sources] == [sum(heights[:number]) for number in range(len(heights))]
    whole = len(sources) == 1 if place.rows is None else sum(heights) == place.rows
    if not (starts and whole) or len({(info.shape[1:], info.dtype) for info in infos}) > 1:
        what = f"{component}/{first} cannot be put into {name!r} with what belongs there"
        raise ModelError(what, hint="The component is incomplete, or two of its tensors have one name there.")
    shape, stored = place.shape(infos[0].shape), infos[0].dtype
    kind = _safetensors_name(dtype) if dtype and stored in FLOATS else stored
    return _Written(TensorInfo(name, shape, kind, ""), tuple(sources))


def _safetensors_name(dtype: str) -> str:
    import torch

    return dtype_name(torch.empty(0, dtype=getattr(torch, dtype)))


class _PackageTensors:
    """Reads the tensors of a package as a single file has them."""

    def __init__(self, model: ModelFolder, portions: Sequence[Portion], dtype: str) -> None:
        self._model, self._dtype = model, dtype
        self._branches: dict[str, list[tuple[float, Branch]]] = {}
        self.merged = 0
        hosts = find_hosts(model) if portions else {}
        for portion in portions:
            require_fit(portion.membrane, hosts, str(portion.path))
            for stem, branch in portion.membrane.branches.items():
                self._branches.setdefault(f"{hosts[stem].module}.weight", []).append((portion.gamma, branch))

    def read(self, written: _Written) -> bytes:
        """Return a tensor's bytes; pieces lie behind each other along the first axis."""
        return b"".join(self._read(*source) for source in written.sources)

    def _read(self, component: str, name: str, place: SingleFilePlace) -> bytes:
        import torch
        from safetensors import safe_open

        info = self._model.tensors(component)[name]
        with safe_open(self._model.files[info.file], framework="pt") as file:
            tensor: torch.Tensor = file.get_tensor(name)
        target = getattr(torch, self._dtype) if self._dtype and info.dtype in FLOATS else tensor.dtype
        branches = self._branches.get(name) if component == self._model.anatomy.denoiser else None
        if branches:
            self.merged += 1
            tensor = tensor.double() + weight_change(branches, tensor.shape)
        new = tensor.to(target)
        if new.is_floating_point() and not bool(new.isfinite().all()):
            what = f"{component}/{name} has NaN or infinity, or numbers too large for {dtype_name(new)}"
            raise ModelError(what, where=str(self._model.path), hint="Write it with --dtype float32 or bfloat16.")
        if place.form == "swapped":
            new = halves_swapped(new)
        return tensor_bytes(new.T if place.form == "transposed" else new)


def _metadata(verification: Verification, membranes: str) -> dict[str, str]:
    summary = verification.summary
    return {
        "publisher.name": summary.name if summary else "",
        "publisher.version": summary.version if summary else "",
        "publisher.sums_sha256": verification.digests[SUMS],
        "publisher.signer": verification.signer,
        "publisher.membranes": membranes,
    }


def _behind(
    model: ModelFolder, configs: Mapping[str, Mapping[str, object]], held: set[str], *, merged: bool
) -> list[str]:
    found = [
        "the signature: this file is not signed; its metadata names the package",
        f"card, reports and evidence: {RELEASE}/ of the package has them",
        "scheduler and tokenizer: the program that reads the file brings its own",
    ]
    prediction = configs.get("scheduler", {}).get("prediction_type", "epsilon")
    if prediction != "epsilon":
        found.append(f"what the model predicts ({prediction}): tell the program that reads the file")
    found += [f"{component}: no single file has it" for component in BEHIND if component in model.components]
    apart = [one for one in model.components if one not in (*held, *BEHIND) and model.tensors(one)]
    if apart:
        found.append(f"{', '.join(apart)}: programs read them from files of their own")
    if (model.path / MASK).is_file():
        what = "an audit counts the merged membranes as changes of what it freezes"
        found.append(f"the freeze mask: {what if merged else 'fine-tunings are audited against the package'}")
    return found


def _behind_membranes(released: Released | None, membranes: Membranes | None) -> list[str]:
    if released is None:
        return []
    concepts = ", ".join(entry.concept for entry in released.index.entries)
    if not released.attachable:
        return [f"nothing of the membranes ({concepts}): they are in the weights, as released"]
    if membranes == "merge":
        what = "they are in the weights with constant strength, act on every prompt, and were not tested so"
        return [f"the gate of the membranes ({concepts}): {what}"]
    return [f"the membranes ({concepts}): what they erase is generated again"]
