"""The model between two steps: one base that never changes, and an ordered chain of deltas."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from publisher.api import Anatomy, Model, TensorInfo
from publisher.api.header import read_header
from publisher.errors import PublisherError
from publisher.model.copying import Overwrite, copy_file
from publisher.model.digest import Hashed, sha256_file, sha256_json
from publisher.model.folder import ModelFolder
from publisher.model.tensors import tensor_bytes

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Delta:
    """The tensors that one step changed: a folder with one safetensors file for each component that it touched."""

    folder: Path
    digests: Mapping[str, str]
    """Component -> sha256 of its file."""
    tensors: Mapping[str, Mapping[str, TensorInfo]] = field(default_factory=dict)
    """Component -> header."""

    @classmethod
    def of(cls, folder: Path, digests: Mapping[str, str]) -> Delta:
        """Read the headers of a delta's files; what else lies in the folder is no part of it.

        Args:
            folder: that holds the files.
            digests: component -> sha256 of its file.

        Raises:
            HeaderError: a file is malformed.
            OSError: a file cannot be read.
        """
        headers = {part: read_header(folder / f"{part}.safetensors") for part in sorted(digests)}
        return cls(folder, dict(sorted(digests.items())), headers)

    def require_unchanged(self) -> None:
        """Hash the files again.

        Raises:
            PublisherError: one is not what was read.
        """
        for component, digest in self.digests.items():
            if sha256_file(self.path(component)) != digest:
                raise PublisherError(
                    "a step's result was changed during the release",
                    where=str(self.path(component)),
                    hint="Let nothing else write into the work folder, and run it again.",
                )

    def path(self, component: str) -> Path:
        """Return the file with the changed tensors of a component."""
        return self.folder / f"{component}.safetensors"


class State(Model):
    """A base and the deltas on it; read-only. ``after`` gives the next state.

    Args:
        base: the base model.
        deltas: what steps changed, the first step first.
        states: where :attr:`folder` puts complete models, in a folder named by their digest.
    """

    def __init__(self, base: ModelFolder, deltas: tuple[Delta, ...], states: Path) -> None:
        self.base = base
        self.deltas = deltas
        self._states = states
        self._written: dict[str, Hashed] = {}

    @property
    def anatomy(self) -> Anatomy:
        """The parts by name."""
        return self.base.anatomy

    @property
    def components(self) -> tuple[str, ...]:
        """Folders named in ``model_index.json``, sorted."""
        return self.base.components

    def config(self, component: str) -> Mapping[str, Any]:
        """Return the component's configuration."""
        return self.base.config(component)

    def base_files(self, component: str) -> Path:
        """Return the component's folder in the base model."""
        return self.base.base_files(component)

    def tensors(self, component: str) -> Mapping[str, TensorInfo]:
        """Return the header of every tensor, sorted by name: steps change neither names nor shapes nor dtypes."""
        return self.base.tensors(component)

    @property
    def digest(self) -> str:
        """sha256 that names this state's weights."""
        digest = self.base.digest
        for delta in self.deltas:
            digest = sha256_json([digest, dict(delta.digests)])
        return digest

    def after(self, delta: Delta) -> State:
        """Return the state with one more delta."""
        return State(self.base, (*self.deltas, delta), self._states)

    def read(self, component: str, name: str) -> Tensor:
        """Read one tensor to the CPU, in its stored dtype."""
        from safetensors import safe_open

        if name not in self.tensors(component):
            raise KeyError(f"{component} has no tensor {name!r}")
        with safe_open(self._holder(component, name), framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
        return tensor

    def _holder(self, component: str, name: str) -> Path:
        for delta in reversed(self.deltas):
            if name in delta.tensors.get(component, {}):
                return delta.path(component)
        return self.base.files[self.tensors(component)[name].file]

    @cached_property
    def folder(self) -> Path:
        """A complete diffusers folder with this state: links to the base's files, its own where something changed.

        Made again once a process: what an earlier run left is not trusted.
        """
        if not self.deltas:
            return self.base.path
        folder = self._states / self.digest
        shutil.rmtree(folder, ignore_errors=True)
        changed = self.changed_files()
        for name, source in self.base.files.items():
            target = folder / name
            if name in changed:
                self._written[name] = Hashed.of(target, copy_file(source, target, changed[name]))
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(source.resolve())
        return folder

    def folder_digests(self) -> dict[str, str]:
        """Return path in :attr:`folder` -> sha256 of its files that nothing has written to since they were hashed.

        A file is hashed once: the base's when its digest is first asked for, others while they are written.
        """
        folder = self.folder
        written = {name: one.digest for name, one in self._written.items() if one.holds(folder / name)}
        unchanged = {name: one for name, one in self.base.untouched().items() if name not in self._written}
        return unchanged | written

    def changed_files(self) -> dict[str, Overwrite]:
        """Return file of the base -> the tensors in it that the deltas change; all other bytes are the base's own."""
        found: dict[str, Overwrite] = {}
        for component in self.components:
            touched = {name for delta in self.deltas for name in delta.tensors.get(component, {})}
            for file in sorted({self.tensors(component)[name].file for name in touched}):
                names = {name for name in touched if self.tensors(component)[name].file == file}
                found[file] = Overwrite(names, lambda name, part=component: tensor_bytes(self.read(part, name)))  # type: ignore[misc]
        return found
