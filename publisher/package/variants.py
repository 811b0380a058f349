"""Variants of a package's weights: the same tensors in another number format, beside those that were tested.

A variant has the names that diffusers and transformers give it: ``model.fp16.safetensors``, or for shards
``model.fp16-00001-of-00002.safetensors`` with ``model.safetensors.index.fp16.json``. It is never tested by itself; so
``publisher verify`` casts the tested tensors again and compares every byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from publisher.api import TensorInfo
from publisher.api.header import read_header
from publisher.errors import ModelError
from publisher.model.files import json_bytes, write_atomic, write_safetensors
from publisher.model.tensors import tensor_bytes
from publisher.package.layout import is_variant
from publisher.strict_json import strict_object

if TYPE_CHECKING:
    from torch import Tensor

FP16: Final = "fp16"
_WEIGHTS = re.compile(r"(?P<stem>[^/]+/[^/.]+?)(?P<shard>-\d{5}-of-\d{5})?\.safetensors")
_INDEX = re.compile(r"(?P<stem>[^/]+/[^/.]+)\.safetensors\.index\.json")
_HALVED: Final = {"F32": "F16", "F64": "F16", "BF16": "F16"}


def variant_name(path: str) -> str:
    """Return the path of a file's half-precision variant; empty for a file that has none.

    Args:
        path: of weights or of their index, inside the package.
    """
    if path.startswith("release/") or is_variant(path):
        return ""
    if found := _WEIGHTS.fullmatch(path):
        return f"{found['stem']}.{FP16}{found['shard'] or ''}.safetensors"
    if found := _INDEX.fullmatch(path):
        return f"{found['stem']}.safetensors.index.{FP16}.json"
    return ""


def write_fp16(folder: Path, paths: Iterable[str]) -> list[str]:
    """Write the half-precision variant of a package's weights beside them, one tensor in memory at a time.

    Args:
        folder: the package.
        paths: of its files.

    Returns:
        Paths of the files that were written.

    Raises:
        ModelError: a value is too large for half precision.
        PublisherError: a file cannot be written.
    """
    written = []
    for path in sorted(paths):
        if not (name := variant_name(path)):
            continue
        if path.endswith(".json"):
            write_atomic(folder / name, _index(folder / path))
        else:
            _halve(folder / path, folder / name)
        written.append(name)
    return written


def _index(path: Path) -> bytes:
    index = strict_object(path.read_bytes())
    part = path.parent.name
    names = {tensor: variant_name(f"{part}/{file}").rpartition("/")[2] for tensor, file in index["weight_map"].items()}
    return json_bytes({**index, "weight_map": names})


def _halve(source: Path, target: Path) -> None:
    from safetensors import safe_open

    header = read_header(source)
    with safe_open(source, framework="pt") as file:

        def read(name: str) -> bytes:
            return tensor_bytes(_half(file.get_tensor(name), name, source))

        write_safetensors(target, [_info(one) for one in header.values()], read)


def _info(tensor: TensorInfo) -> TensorInfo:
    return replace(tensor, dtype=_HALVED.get(tensor.dtype, tensor.dtype))


def _half(tensor: Tensor, name: str, where: Path) -> Tensor:
    import torch

    if not tensor.is_floating_point() or tensor.dtype == torch.float16:
        return tensor
    half = tensor.half()
    if (half.isinf() & ~tensor.isinf()).any():
        what = f"the tensor {name} has values beyond 65504, the largest number of half precision"
        raise ModelError(what, where=str(where), hint="Leave fp16 out of release.variants.")
    return half


def differences(
    root: Path, headers: Mapping[str, Mapping[str, TensorInfo]], indices: Iterable[str]
) -> Iterator[tuple[str, str]]:
    """Yield the variants that are not the weights beside them, rounded: path, and what is wrong.

    Args:
        root: of the package.
        headers: path of each file of weights that is what was signed -> its tensors.
        indices: paths of the JSON files that are what was signed.
    """
    originals = {variant_name(path): path for path in (*headers, *indices)}
    for path in sorted(one for one in (*headers, *indices) if is_variant(one)):
        of = originals.get(path)
        if of is None:
            yield path, "is a variant of weights that are not there"
        elif path.endswith(".json"):
            if (root / path).read_bytes() != _index(root / of):
                yield path, f"is not the index {of} with the variant's names"
        elif _forms(map(_info, headers[of].values())) != _forms(headers[path].values()):
            yield path, f"has not the tensors of {of}"
        elif other := _other(root / of, root / path, headers[path]):
            yield path, f"its tensor {other} is not that of {of}, rounded to half precision"


def _forms(tensors: Iterable[TensorInfo]) -> dict[str, tuple[tuple[int, ...], str]]:
    return {tensor.name: (tensor.shape, tensor.dtype) for tensor in tensors}


def _other(full: Path, half: Path, header: Mapping[str, Any]) -> str:
    """Return the first tensor that is not the other one rounded; empty: all are."""
    import torch
    from safetensors import safe_open

    with safe_open(full, framework="pt") as first, safe_open(half, framework="pt") as second:
        for name in header:
            mine, there = first.get_tensor(name), second.get_tensor(name)
            rounded = mine.half() if mine.is_floating_point() else mine
            if not torch.equal(rounded.view(torch.uint8), there.view(torch.uint8)):
                return name
    return ""
