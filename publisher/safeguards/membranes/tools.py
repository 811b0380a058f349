"""Membranes of files and of packages, for the tools that work on them alone: inspect, merge, convert."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.api.membranes import FOLDER, MembraneFileError, MembraneIndex, find_hosts, of_transformer, require_fit
from publisher.api.model_files import RELEASE
from publisher.errors import UsageError
from publisher.model.digest import sha256_file
from publisher.model.files import write_atomic
from publisher.model.folder import ModelFolder
from publisher.safeguards.membranes.lora import Form, Portion, fixed_strength, lora_bytes, read_lora
from publisher.safeguards.membranes.merging import Merged, Progress
from publisher.safeguards.membranes.merging import merge as merge_into_folder
from publisher.safeguards.membranes.released import read_release

if TYPE_CHECKING:
    import torch

    from publisher.api.membranes import Membrane


def open_index(folder: Path) -> MembraneIndex | None:
    """Open the index of a package's membranes; None: it has none.

    Raises:
        ModelError: the index, or a file that it names, is not what it says.
    """
    released = read_release(folder / RELEASE)
    return released.index if released else None


def open_membranes(paths: Sequence[Path], permeabilities: Sequence[float] = ()) -> tuple[Portion, ...]:
    """Open the membranes of files and packages.

    Args:
        paths: a file, or a package: all of its membranes.
        permeabilities: one for each path, one for all, or none (1). Strengths that a package's index names multiply it.

    Raises:
        UsageError: the permeabilities do not go with the paths, or a membrane is there twice.
        ModelError: a file is no membrane, or not the one that its index names.
    """
    if len(permeabilities) not in (0, 1, len(paths)):
        what = f"{len(permeabilities)} permeabilities for {len(paths)} files"
        raise UsageError(what, hint="Give one for all, or one for each.")
    if not all(math.isfinite(gamma) and gamma >= 0 for gamma in permeabilities):
        raise UsageError("a permeability is a number from 0 upwards", hint="1 is what a membrane was trained for.")
    gammas = permeabilities if len(permeabilities) == len(paths) else (*permeabilities, 1.0)[:1] * len(paths)
    found = [portion for path, gamma in zip(paths, gammas, strict=True) for portion in _open(path, gamma)]
    seen: dict[str, Path] = {}
    for portion in found:
        if portion.sha256 in seen:
            raise UsageError(f"is the same membrane as {seen[portion.sha256]}", where=str(portion.path))
        seen[portion.sha256] = portion.path
    return tuple(found)


def _open(path: Path, gamma: float) -> Iterable[Portion]:
    if not path.is_dir():
        return [Portion(path, read_lora(path), sha256_file(path), gamma)]
    released = read_release(path / RELEASE)
    if released is None:
        raise MembraneFileError(
            "is a folder without membranes",
            where=str(path),
            hint="Give a package that has some, or the files themselves.",
        )
    strength = gamma * released.index.transport.strength
    return [
        Portion(path / RELEASE / FOLDER / entry.file, membrane, entry.sha256, strength * entry.strength)
        for entry, membrane in released.members
    ]


def merge(base: ModelFolder, portions: Sequence[Portion], out: Path, progress: Progress = lambda *_: None) -> Merged:
    """Merge membranes into a model that does not have them in its weights yet.

    See :func:`publisher.safeguards.membranes.merging.merge`.

    Raises:
        UsageError: it would; or ``out`` exists.
        ModelError: a membrane does not fit. Nothing has been written then.
    """
    released = read_release(base.path / RELEASE)
    if released is not None and not released.attachable:
        inside = {entry.sha256: entry.concept for entry, _ in released.members}
        for portion in portions:
            if portion.sha256 in inside:
                raise UsageError(
                    f"the membrane of {inside[portion.sha256]!r} is in the weights of this model already",
                    where=str(portion.path),
                    hint="Merge it into the base model, with the permeability that you want.",
                )
    return merge_into_folder(base, portions, out, progress)


def convert(
    portions: Sequence[Portion], out: Path, form: Form, dtype: torch.dtype, model: ModelFolder | None = None
) -> Membrane:
    """Write all membranes as one ordinary LoRA of fixed strength.

    Args:
        portions: the membranes with their permeabilities.
        out: the file; it appears complete or not at all.
        form: of its keys.
        dtype: of its tensors.
        model: that it is for. The keys of diffusers need it for a U-Net; what does not fit it is refused.

    Raises:
        UsageError: diffusers' keys of a U-Net without a model.
        MembraneFileError: the membranes do not go together or do not fit, a number is too large for the dtype, or
            kohya has no names for their layers.
    """
    own = any(of_transformer(portion.membrane) for portion in portions)
    if form == "diffusers" and model is None and not own:
        raise UsageError("the names of diffusers need the model's layers", hint="Give the model with --model.")
    hosts = find_hosts(model) if model else {}
    for portion in portions if model else ():
        require_fit(portion.membrane, hosts, str(portion.path))
    together = fixed_strength(portions)
    write_atomic(out, lora_bytes(together, form, dtype, hosts))
    return together
