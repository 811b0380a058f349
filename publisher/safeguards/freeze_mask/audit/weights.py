"""Tensors of one set of safetensors files, read one at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.api import TensorInfo

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Weights:
    """A network's tensors by name. Their headers were checked before."""

    tensors: Mapping[str, TensorInfo]
    """Name -> its header; there ``name`` is the one in the file and ``file`` a key of :attr:`files`."""
    files: Mapping[str, Path]

    def read(self, name: str) -> Tensor:
        """Read one tensor to the CPU, in its stored dtype, and close the file, so that its pages can go."""
        from safetensors import safe_open

        info = self.tensors[name]
        with safe_open(self.files[info.file], framework="pt") as file:
            tensor: Tensor = file.get_tensor(info.name)
        return tensor
