"""torch tensors as safetensors stores them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_NAMES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}


def dtype_name(tensor: Tensor) -> str:
    """Return what safetensors calls the tensor's dtype, such as ``"F32"``; torch's own name where it has none."""
    own = str(tensor.dtype).removeprefix("torch.")
    return _NAMES.get(own, own)


def tensor_bytes(tensor: Tensor) -> bytes:
    """Return the tensor's data, little-endian, row-major."""
    import torch

    flat = tensor.detach().cpu().contiguous().view(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
