"""A fine-tuned model from elsewhere, for an audit: which of its files hold what. Nothing is loaded, unpickled or run.

Unlike a package an upload has no fixed layout: a pipeline, one network, a file, adapters, whatever lies beside. So its
files are sorted by the names of their tensors. What may hold weights or code and cannot be compared is listed: an audit
that did not see it must not say that all is well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from publisher.api import TensorInfo
from publisher.errors import UsageError
from publisher.model.header import HeaderError, read_header
from publisher.model.strict_json import JsonError, strict_json
from publisher.package.codes import Code, Finding
from publisher.package.content import INDEX_SUFFIX, check_code, check_index, check_model_index
from publisher.package.layout import CODE_TYPES, MAX_TEXT_BYTES, MODEL_INDEX, suffix
from publisher.package.tree import Tree, read_file, read_tree

HARMLESS = frozenset({
    "", "json", "jsonl", "txt", "md", "model", "yaml", "yml", "csv", "html", "log", "sig", "xml",
    "png", "jpg", "jpeg", "webp", "gif", "svg",
})  # fmt: skip
"""Types that hold neither weights nor code. The empty one is that of ``LICENSE``."""
_SHARD = re.compile(r"-\d{5}-of-\d{5}$")


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

    def sets(self) -> dict[str, list[str]]:
        """Weights files that belong together: shards of one name in one folder, each variant for itself.

        Returns:
            Path without number and suffix -> the files, sorted.
        """
        found: dict[str, list[str]] = {}
        for path in sorted(self.headers):
            found.setdefault(_SHARD.sub("", path.removesuffix(".safetensors")), []).append(path)
        return found

    def tensors(self, files: Iterable[str]) -> dict[str, TensorInfo]:
        """All tensors of some files by name."""
        return {name: info for file in files for name, info in self.headers[file].items()}


def read_upload(path: Path) -> tuple[Upload, Tree]:
    """Hash and sort the files of an upload.

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
    tree = read_file(path) if single else read_tree(path)
    kind: Literal["pipeline", "folder"] = "pipeline" if MODEL_INDEX in tree.digests else "folder"
    upload = Upload(tree.root, "file" if single else kind, dict(tree.digests))
    for finding in tree.findings:
        if finding.code is not Code.EXTRA:  # an empty folder
            upload.unexamined[finding.path] = finding.message
    for name in sorted(tree.digests):
        if not any(part.startswith(".") for part in name.split("/")):
            _sort(upload, tree, name)
    _check(upload)
    return upload, tree


def _sort(upload: Upload, tree: Tree, path: str) -> None:
    kind = suffix(path)
    if kind == "safetensors":
        try:
            upload.headers[path] = read_header(upload.root / path, path)
        except HeaderError as error:
            upload.unexamined[path] = f"is no well-formed safetensors file: {error}"
    elif kind in CODE_TYPES:
        upload.unexamined[path] = "is program code, which was not run or examined"
    elif kind not in HARMLESS:
        upload.unexamined[path] = f"is of type .{kind}, may hold weights, and was not opened"
    elif kind == "json":
        data = tree.read(path, MAX_TEXT_BYTES)
        try:
            upload.documents[path] = strict_json(data or b"")
        except JsonError as error:
            upload.unexamined[path] = str(error)


def _check(upload: Upload) -> None:
    """Code that configurations name, indices that say something else than their shards."""
    problems: list[Finding] = []
    for path, document in upload.documents.items():
        problems += check_code(path, document)
        if path.endswith(INDEX_SUFFIX):
            problems += check_index(path, document, upload.headers)
        if path == MODEL_INDEX:
            named = check_model_index(document, set(upload.digests))
            problems += [finding for finding in named if finding.code is Code.CUSTOM_CODE]
    for finding in problems:
        upload.unexamined.setdefault(finding.path, finding.message)
    for files in upload.sets().values():
        if len(upload.tensors(files)) < sum(len(upload.headers[file]) for file in files):
            upload.unexamined[files[0]] = "holds a tensor that another shard holds, too"
