"""Store weights in the type that is large enough for them: a file of half the size, without any loss."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor


def store_as_halves(folder: Path) -> None:
    """Write every tensor below ``folder`` as float16 whose values float16 holds exactly; others keep their type.

    Args:
        folder: with ``*.safetensors`` files, which are replaced.
    """
    for path in sorted(folder.rglob("*.safetensors")):
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
        save_file({name: _smallest(tensor) for name, tensor in load_file(path).items()}, path, metadata=metadata)


def _smallest(tensor: Tensor) -> Tensor:
    half = tensor.half() if tensor.dtype == torch.float32 else tensor
    return half if torch.equal(half.to(tensor.dtype), tensor) else tensor
