"""Tensors as the bytes of a safetensors file: equal content gives equal bytes, on any machine and at any time."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_ALIGNMENT = 8
_DTYPES = {
    "torch.float64": "F64",
    "torch.float32": "F32",
    "torch.float16": "F16",
    "torch.bfloat16": "BF16",
    "torch.int64": "I64",
    "torch.int32": "I32",
    "torch.uint8": "U8",
    "torch.bool": "BOOL",
}


def safetensors_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """Return a safetensors file with sorted metadata and tensors sorted by name, as ``ctx.artifact`` takes it.

    The library ``safetensors`` writes its metadata in an order that changes from run to run, and with it the digest.

    Args:
        tensors: name -> tensor, of any device; each is stored in its own dtype.
        metadata: text to text.

    Raises:
        ValueError: a dtype that artifacts do not use.
    """
    import torch

    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    parts: list[bytes] = []
    end = 0
    for name, tensor in sorted(tensors.items()):
        if str(tensor.dtype) not in _DTYPES:
            raise ValueError(f"tensor {name!r} is {tensor.dtype}, which an artifact does not use")
        flat = tensor.detach().cpu().contiguous().view(-1)
        parts.append(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
        begin, end = end, end + len(parts[-1])
        header[name] = {
            "dtype": _DTYPES[str(tensor.dtype)],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return b"".join([struct.pack("<Q", len(text)), text, *parts])
