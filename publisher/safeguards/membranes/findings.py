"""The membranes of a foreign package: is each file the one that the index means, and a membrane? V020 and V023.

Decided from the index, the digests and the files' headers; no tensor is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from publisher.api import TensorInfo
from publisher.api.membranes import (
    PARTS,
    TRANSFORMER,
    MembraneEntry,
    MembraneIndex,
    is_stem,
    kohya_parts,
    stem_in,
)
from publisher.api.model_files import MEMBRANES as INDEX
from publisher.codes import Code, Finding

PLACE = INDEX.removesuffix("index.json")
DTYPES = ("F64", "F32", "F16", "BF16")

Headers = Mapping[str, Mapping[str, TensorInfo]]
"""File -> its tensors; files that are malformed are not in it."""


def check_membranes(document: Any, digests: Mapping[str, str], headers: Headers) -> Iterator[Finding]:
    """Compare the index with what lies beside it.

    Args:
        document: the index as JSON data; None: it is not there, or no JSON, which is a finding of its own.
        digests: path -> sha256 of every file of the package.
        headers: of the well-formed weights among them.
    """
    present = {path for path in digests if path.startswith(PLACE) and path.endswith(".safetensors")}
    if INDEX not in digests:
        for path in sorted(present):
            yield Finding(Code.INCONSISTENT, path, f"is not named in {INDEX}, which is not there")
    if document is None:
        return
    try:
        index = MembraneIndex.parse(document)
    except (ValidationError, TypeError) as error:
        yield Finding(Code.INCONSISTENT, INDEX, f"cannot be read as an index of membranes: {_first(error)}")
        return
    for path in sorted(present - {PLACE + entry.file for entry in index.entries}):
        yield Finding(Code.INCONSISTENT, path, f"is not named in {INDEX}")
    for names in ([entry.concept for entry in index.entries], [entry.file for entry in index.entries]):
        for twice in sorted(name for name, count in Counter(names).items() if count > 1):
            yield Finding(Code.INCONSISTENT, INDEX, f"has two entries for {twice!r}")
    for entry in index.entries:
        yield from _entry(entry, digests, headers)


def _entry(entry: MembraneEntry, digests: Mapping[str, str], headers: Headers) -> Iterator[Finding]:
    path = PLACE + entry.file
    if path not in digests:
        yield Finding(Code.INCONSISTENT, INDEX, f"names {entry.file!r}, which is not there")
        return
    if digests[path] != entry.sha256:
        yield Finding(Code.INCONSISTENT, path, f"is not the file that {INDEX} means")
    if path not in headers:
        return  # malformed weights are a finding of their own
    problem = membrane_problem(headers[path])
    if problem:
        yield Finding(Code.WEIGHTS, path, f"is no membrane: {problem}")
    elif (rank := _rank(headers[path])) != entry.rank:
        yield Finding(Code.INCONSISTENT, path, f"has rank {rank}, {INDEX} says {entry.rank}")


def membrane_problem(tensors: Mapping[str, TensorInfo]) -> str:
    """Return why tensors of these names, shapes and types are no membrane, or an empty text."""
    tensors = kohya_parts(tensors)
    stems = sorted({stem_in(name) for name in tensors})
    wanted = {f"{stem}.{part}" for stem in stems for part in PARTS}
    if any(name.startswith(TRANSFORMER) for name in tensors):  # whose strength the metadata says
        wanted -= {f"{stem}.alpha" for stem in stems} - set(tensors)
    odd = [stem for stem in stems if not is_stem(stem)] or sorted(set(tensors) ^ wanted)
    if not stems or odd:
        return f"{odd[0]!r} does not belong there, or is missing" if odd else "it holds no tensor"
    for name, tensor in tensors.items():
        if tensor.dtype not in DTYPES:
            return f"{name!r} is stored as {tensor.dtype}"
    return next((problem for stem in stems if (problem := _branch_problem(stem, tensors))), "")


def _branch_problem(stem: str, tensors: Mapping[str, TensorInfo]) -> str:
    down, up = tensors[f"{stem}.lora_down.weight"].shape, tensors[f"{stem}.lora_up.weight"].shape
    tail = down[2:]
    fits = len(down) in (2, 4) and len(up) == len(down) and tail == up[2:] and set(tail) <= {1}
    if not fits or down[0] != up[1] or 0 in (*down, *up):
        return f"the factors {up} and {down} of {stem!r} do not go together"
    alpha = tensors.get(f"{stem}.alpha")
    if alpha is not None and alpha.shape not in ((), (1,)):
        return f"the alpha of {stem!r} is no number"
    return ""


def _rank(tensors: Mapping[str, TensorInfo]) -> int:
    named = kohya_parts(tensors)
    return max(tensor.shape[0] for name, tensor in named.items() if name.endswith(".lora_down.weight"))


def _first(error: ValidationError | TypeError) -> str:
    if isinstance(error, TypeError):
        return str(error)
    problem = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
