"""A fine-tuned model from elsewhere, for an audit: which of its files hold what. Nothing is loaded, unpickled or run.

Unlike a package an upload has no fixed layout: a pipeline, one network, a file, adapters, whatever lies beside. So its
files are sorted by the names of their tensors. What may hold weights or code and cannot be compared is listed: an audit
that did not see it must not say that all is well.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from publisher.api import TensorInfo
from publisher.api.header import HeaderError, header_length, read_header
from publisher.codes import Code, Finding
from publisher.errors import UsageError
from publisher.package.content import check_code, check_index, check_model_index
from publisher.package.hub_cache import HubCache
from publisher.package.kinds import is_gguf, is_training_state, problem
from publisher.package.layout import CODE_TYPES, MAX_TEXT_BYTES, MODEL_INDEX, suffix
from publisher.package.tree import Tree, read_file, read_tree
from publisher.strict_json import JsonError, count_entries, strict_configuration

_SHARD = re.compile(
    r"(?P<stem>.*)-(?P<number>\d{1,6})-of-(?P<total>\d{1,6})(?P<variant>(?:\.[\w-]+)?)(?:\.safetensors)?", re.DOTALL
)
"""``x-00001-of-00002.safetensors``, ``x.fp16-00001-of-00002.safetensors``, ``x-00001-of-00002.fp16.safetensors``."""
_INDEX = re.compile(r".*\.safetensors\.index(?:\.[\w-]+)?\.json", re.DOTALL)
"""Names of indices, ``x.safetensors.index.fp16.json``."""
_STATE = re.compile(
    r"(?:.*/)?(?:checkpoint[-_]\d+|[^/]*-state)/"
    r"(?:(?:optimizer|scheduler|sampler|dl_state_dict|scaler|rng_state|random_states|training_args)(?:_\d+)?)"
    r"\.(?:bin|pt|pth|pkl)"
)
"""What accelerate, transformers and kohya's scripts save beside a checkpoint's weights, to go on from there."""
_GIT = ".git/"


class WeightSet(NamedTuple):
    """Weights files that belong together."""

    files: tuple[str, ...]
    """Sorted."""
    absent: str = ""
    """What belongs to them and is not there; empty: nothing."""


@dataclass
class Upload:
    """What lies in it. Paths are POSIX, relative to :attr:`root`."""

    root: Path
    kind: Literal["file", "pipeline", "folder"]
    digests: dict[str, str]
    """Every regular file -> its sha256."""
    headers: dict[str, Mapping[str, TensorInfo]] = field(default_factory=dict)
    """Well-formed weights files -> their tensors."""
    documents: dict[str, Any] = field(default_factory=dict)
    """JSON files -> their content."""
    unexamined: dict[str, str] = field(default_factory=dict)
    """File -> why it was not examined."""
    packed: dict[str, str] = field(default_factory=dict)
    """File of weights whose numbers cannot be compared -> what it is."""
    aside: dict[str, str] = field(default_factory=dict)
    """File or folder that no pipeline loads -> what it is."""

    def sets(self) -> list[WeightSet]:
        """Return weights files that belong together: as indices say, then shards of one name, then each for itself."""
        found = dict.fromkeys(self._indexed())
        rest = sorted(set(self.headers) - {file for one in found for file in one.files})
        shards: dict[tuple[str, str, str], dict[int, str]] = {}
        for path in rest:
            if shard := _SHARD.fullmatch(path):
                shards.setdefault((shard["stem"], shard["total"], shard["variant"]), {})[int(shard["number"])] = path
        for (_, total, _), files in shards.items():
            there = set(files)
            absent = [str(number) for number in range(1, min(int(total), 10_000) + 1) if number not in there]
            why = f"shard {', '.join(absent[:5])} of {int(total)} is not there" if absent else ""
            found[WeightSet(tuple(sorted(files.values())), why)] = None
        found |= dict.fromkeys(WeightSet((path,)) for path in rest if not _SHARD.fullmatch(path))
        return sorted(found)

    def _indexed(self) -> Iterator[WeightSet]:
        for path, document in self.documents.items():
            weight_map = document.get("weight_map") if _INDEX.fullmatch(path) and isinstance(document, dict) else None
            if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
                continue
            listed = {posixpath.join(posixpath.dirname(path), name) for name in weight_map.values()}
            absent = sorted(listed - set(self.headers))
            if there := tuple(sorted(listed & set(self.headers))):
                yield WeightSet(there, f"{absent[0]} is not there, or malformed" if absent else "")

    def tensors(self, files: Iterable[str]) -> dict[str, TensorInfo]:
        """Return all tensors of some files by name."""
        return {name: info for file in files for name, info in self.headers[file].items()}


def read_upload(path: Path) -> tuple[Upload, Tree]:
    """Hash and sort the files of an upload; all of them, also those that a hub's client leaves beside a model.

    Args:
        path: a folder, or one ``.safetensors`` file.

    Returns:
        What lies there, and what to ask at the end whether it changed meanwhile.

    Raises:
        UsageError: there is nothing, or it cannot be read.
    """
    if path.is_symlink():
        raise UsageError("is a link", where=str(path), hint="Give what it points to.")
    if not path.exists():
        raise UsageError("is not there", where=str(path), hint="Give a folder, or a .safetensors file.")
    single = not path.is_dir()
    tree = read_file(path) if single else read_tree(path, cache=HubCache.around(path))
    kind: Literal["pipeline", "folder"] = "pipeline" if MODEL_INDEX in tree.digests else "folder"
    upload = Upload(tree.root, "file" if single else kind, dict(tree.digests))
    git = f"{_GIT}HEAD" in tree.digests
    for name in sorted(tree.digests):
        if git and name.startswith(_GIT):
            upload.aside[_GIT] = "the store of git"
        else:
            _sort(upload, tree, name)
    for finding in tree.findings:
        if finding.code is not Code.EXTRA and not _leads_inside(tree, finding.path):  # an empty folder is nothing
            upload.unexamined[finding.path] = finding.message
    _check(upload)
    return upload, tree


def _leads_inside(tree: Tree, path: str) -> bool:
    """Return whether a path is a link to something of the same type in the upload, examined there."""
    try:
        target = str((tree.root / path).readlink())
    except OSError:
        return False
    there = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    return there in tree.stamps and suffix(there) == suffix(path)


def _sort(upload: Upload, tree: Tree, path: str) -> None:
    kind = suffix(path)
    if kind == "safetensors":
        _weights(upload, tree, path)
    elif kind in CODE_TYPES:
        upload.unexamined[path] = "is program code, which was not run or examined"
    elif kind == "json":
        _document(upload, tree, path)
    elif _STATE.fullmatch(path) and is_training_state(upload.root / path):
        upload.aside[path] = "the state of a training, by its name and its content"
    elif is_gguf(upload.root / path):
        upload.packed[path] = "a GGUF file, whose numbers are packed"
    elif why := problem(path, upload.root / path):
        _weights(upload, tree, path, why)


def _weights(upload: Upload, tree: Tree, path: str, otherwise: str = "") -> None:
    """Read a header.

    Args:
        upload: gets it.
        tree: counts it.
        path: of the file.
        otherwise: what the file is if it has none; default: malformed.
    """
    file = upload.root / path
    try:
        if not tree.charge(path, "bytes of headers", header_length(file)):
            return  # with a finding that says so
        headers = read_header(file, path)
    except HeaderError as error:
        upload.unexamined[path] = otherwise or f"is no well-formed safetensors file: {error}"
        return
    if tree.charge(path, "tensors", len(headers)):
        upload.headers[path] = headers


def _document(upload: Upload, tree: Tree, path: str) -> None:
    if not tree.charge(path, "bytes of text", tree.size(path)):
        return
    data = tree.read(path, MAX_TEXT_BYTES)
    if data is None or not tree.charge(path, "JSON keys and values", count_entries(data)):
        return
    try:
        upload.documents[path] = strict_configuration(path, data)
    except JsonError as error:
        upload.unexamined[path] = str(error)


def _check(upload: Upload) -> None:
    """Find code that configurations name, indices that contradict their shards, and incomplete sets."""
    problems: list[Finding] = []
    for path, document in upload.documents.items():
        problems += check_code(path, document)
        if _INDEX.fullmatch(path):
            problems += check_index(path, document, upload.headers)
        if path == MODEL_INDEX:
            named = check_model_index(document, set(upload.digests))
            problems += [finding for finding in named if finding.code is Code.CUSTOM_CODE]
    for finding in problems:
        upload.unexamined.setdefault(finding.path, finding.message)
    for one in upload.sets():
        if one.absent:
            upload.unexamined.setdefault(one.files[0], f"is a part of a set that is not complete: {one.absent}")
        if len(upload.tensors(one.files)) < sum(len(upload.headers[file]) for file in one.files):
            upload.unexamined[one.files[0]] = "holds a tensor that another shard holds, too"
