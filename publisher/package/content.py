"""What is in the files of a foreign package: V014, V015, V020 to V023. Nothing is loaded, unpickled or run."""

from __future__ import annotations

import re
import unicodedata
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from publisher.api import TensorInfo
from publisher.api.header import HeaderError, header_length, read_header
from publisher.codes import Code, Finding
from publisher.package import pictures
from publisher.package.layout import (
    CODE_TYPES,
    MAX_TEXT_BYTES,
    MODEL_INDEX,
    RELEASE,
    REPORT,
    SUMMARY,
    TEXT_TYPES,
    is_picture,
    path_problem,
    suffix,
    type_problem,
)
from publisher.package.tree import Tree
from publisher.package.variants import differences
from publisher.safeguards import ALL
from publisher.safeguards.base import Contents
from publisher.strict_json import MAX_JSON_ENTRIES, JsonError, count_entries, strict_configuration, strict_json

LIBRARIES = ("diffusers", "transformers", "stable_diffusion")
"""What ``model_index.json`` may take classes from; ``stable_diffusion`` is the folder of the safety checker inside
diffusers."""
CODE_KEYS = frozenset({"auto_map", "custom_pipeline", "custom_pipelines", "custom_generate"})
"""Keys of a configuration that name program code."""
SWITCHES = frozenset({"trust_remote_code", "use_kernels", "use_pretrained_backbone"})
"""Keys that make loaders fetch code or weights from elsewhere, unless they are false or null."""
IMPLEMENTATIONS = frozenset(
    f"{start}{part}_implementation{end}"
    for start in ("", "_")
    for part in ("attn", "experts")
    for end in ("", "_internal")
)
BUILT_IN = frozenset({"eager", "sdpa", "flex_attention", "batched_mm", "grouped_mm"})
"""Implementations that torch brings. For any other name, ``flash_attention_2`` included, loaders may fetch a kernel."""
QUANTIZED = frozenset({"bitsandbytes", "bitsandbytes_4bit", "bitsandbytes_8bit", "torchao", "quanto"})
"""Methods of quantization whose kernels are installed and not fetched."""
FILE_KEYS = frozenset({"vocab_file", "merges_file", "tokenizer_file", "spm_file", "transformers_weights"})
"""Keys whose value loaders open as a file: a name without a folder, so that it lies in the package."""
WATCHED = CODE_KEYS | SWITCHES | IMPLEMENTATIONS | FILE_KEYS | {"quantization_config"}
ADAPTER = "adapter_config.json"
"""File beside a network's weights that makes loaders fetch the model, and import the library, that it names."""
_CLASS = re.compile(r"[A-Z][A-Za-z0-9]{0,99}")
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
INDEX_SUFFIX = ".safetensors.index.json"


def check_names(paths: Iterable[str]) -> list[Finding]:
    """Compare names and types with the allow-list."""
    findings, seen = [], dict[str, str]()
    for path in sorted(paths):
        findings += [problem] if (problem := name_problem(path)) else []
        alike = unicodedata.normalize("NFC", path).casefold()
        if alike in seen:
            findings.append(Finding(Code.COLLISION, path, f"cannot be told from {seen[alike]!r} everywhere"))
        seen[alike] = path
    return findings


def name_problem(path: str) -> Finding | None:
    """Return what is wrong with a file's name, place or type, or None."""
    if problem := path_problem(path):
        return Finding(Code.PATH, path, problem)
    if suffix(path) in CODE_TYPES:
        return Finding(Code.CUSTOM_CODE, path, "is program code")
    problem = type_problem(path)
    return Finding(Code.FILE_TYPE, path, problem) if problem else None


def check_content(tree: Tree, signed: Mapping[str, str]) -> tuple[list[Finding], dict[str, Any]]:
    """Check weights, configurations and other text files of acceptable name.

    Args:
        tree: the folder; only files with a digest are opened, which are those that are what was signed.
        signed: path -> sha256 of all files that were signed.

    Returns:
        What is wrong, and the content of the release's report and summary, where they are JSON.
    """
    findings: list[Finding] = []
    tensors: dict[str, Mapping[str, TensorInfo]] = {}
    kept: dict[str, Any] = {}
    paths = [path for path in sorted(tree.digests) if path in signed and not (path_problem(path) or type_problem(path))]
    for path in paths:
        if suffix(path) == "safetensors":
            findings += _weights(tree, path, tensors)
    if MODEL_INDEX not in signed:
        findings += check_model_index(None, set(signed))
    texts = [path for path in paths if suffix(path) == "json"]
    findings += [Finding(Code.WEIGHTS, path, problem) for path, problem in differences(tree.root, tensors, texts)]
    contents = Contents(tree.root, signed, tensors)
    findings += [finding for one in ALL if one.path not in signed for finding in one.findings(None, contents)]
    for path in paths:
        if is_picture(path):
            findings += _pictures(tree, path)
        if suffix(path) not in TEXT_TYPES:
            continue
        document, problems = _text(tree, path)
        findings += problems
        if suffix(path) == "json" and not problems:
            findings += _document(path, document, contents)
            if path in (REPORT, SUMMARY):
                kept[path] = document
    return findings, kept


def _weights(tree: Tree, path: str, tensors: dict[str, Mapping[str, TensorInfo]]) -> list[Finding]:
    file = tree.root / path
    try:
        if not tree.charge(path, "bytes of headers", header_length(file)) or not tree.charge(path, "tensors", 0):
            return []
        found = read_header(file, path)
    except HeaderError as error:
        with file.open("rb") as stream:
            pickle = _PICKLE.match(stream.read(2))
        if pickle or zipfile.is_zipfile(file):
            return [Finding(Code.FILE_TYPE, path, "is a pickle or an archive, not safetensors; it was not opened")]
        return [Finding(Code.WEIGHTS, path, str(error))]
    except OSError:
        return [Finding(Code.CHANGED_MEANWHILE, path, "cannot be read any more")]
    if tree.charge(path, "tensors", len(found)):
        tensors[path] = found
    return []


def _pictures(tree: Tree, path: str) -> list[Finding]:
    """Check a picture of the card, which no viewer has to open for that."""
    before = len(tree.findings)
    data = tree.read(path, pictures.MAX_BYTES)
    if data is None:
        return tree.findings[before:]
    problem = pictures.problem(data)
    return [Finding(Code.FILE_TYPE, path, problem)] if problem else []


def _text(tree: Tree, path: str) -> tuple[Any, list[Finding]]:
    """Read a text file.

    Returns:
        Its content if it is one JSON document, otherwise None; and what is wrong.
    """
    before = len(tree.findings)
    data = tree.read(path, MAX_TEXT_BYTES) if tree.charge(path, "bytes of text", tree.size(path)) else None
    if data is None or not _within(tree, path, data):
        return None, tree.findings[before:]
    if b"\0" in data:
        return None, [Finding(Code.FILE_TYPE, path, "is not text")]
    try:
        data.decode()
        if suffix(path) == "json":
            return strict_configuration(path, data), []
        if suffix(path) == "jsonl":
            for line in json_lines(data):
                strict_json(line)
    except UnicodeDecodeError:
        return None, [Finding(Code.FILE_TYPE, path, "is not UTF-8 text")]
    except JsonError as error:
        return None, [Finding(Code.FILE_TYPE, path, str(error))]
    return None, []


def json_lines(data: bytes) -> list[bytes]:
    """Return the lines of a file with one JSON document a line. Only a line feed ends a line."""
    return data.removesuffix(b"\n").split(b"\n") if data else []


def _within(tree: Tree, path: str, data: bytes) -> bool:
    """Return whether a file keeps the limits of what is parsed, all files before it included."""
    if suffix(path) not in ("json", "jsonl"):
        return True
    if suffix(path) == "jsonl" and not tree.charge(path, "lines of JSON", data.count(b"\n")):
        return False
    count = count_entries(data)
    if suffix(path) == "json" and count > MAX_JSON_ENTRIES:
        message = f"is not examined: it has more than {MAX_JSON_ENTRIES} JSON keys and values"
        tree.findings.append(Finding(Code.LIMIT, path, message))
        return False
    return tree.charge(path, "JSON keys and values", count)


def _document(path: str, document: Any, contents: Contents) -> Iterator[Finding]:
    signed, tensors = contents.digests, contents.headers
    for safeguard in ALL:
        if path == safeguard.path:
            yield from safeguard.findings(document, contents)
    if path.startswith(f"{RELEASE}/"):
        return
    yield from check_configuration(path, document)
    if path == MODEL_INDEX:
        yield from check_model_index(document, set(signed))
    if path.endswith(INDEX_SUFFIX):
        yield from check_index(path, document, tensors, signed.keys() - tensors.keys())


def check_configuration(path: str, document: Any) -> Iterator[Finding]:
    """Find what in a model's configuration, as JSON data, no package may have."""
    yield from check_code(path, document)
    if path.rpartition("/")[2] == ADAPTER:
        yield Finding(Code.CUSTOM_CODE, path, "makes loaders fetch another model, or import a library that it names")


def check_code(path: str, document: Any) -> Iterator[Finding]:
    """Find what in a configuration, as JSON data, makes loaders run or fetch code, or read outside of its folder."""
    watched = [(key, value) for key, value in _items(document) if key in WATCHED]
    problems = {f"has {key!r}, {problem}" for key, value in watched if (problem := _key_problem(key, value))}
    for problem in sorted(problems):
        yield Finding(Code.CUSTOM_CODE, path, problem)
    if isinstance(document, dict) and not isinstance(document.get("_class_name", ""), str):
        yield Finding(Code.CUSTOM_CODE, path, "names its class by a list, which loads code")


def _key_problem(key: str, value: Any) -> str:
    """Return what a key of a configuration does that it must not, or an empty text."""
    if key in CODE_KEYS:
        return "which loads code"
    if key in SWITCHES and value not in (False, None):
        return "which makes loaders fetch code or weights"
    if key in IMPLEMENTATIONS and not _built_in(value):
        return f"which may make loaders fetch a kernel (allowed: {', '.join(sorted(BUILT_IN))})"
    if key == "quantization_config" and not _quantized(value):
        return f"which may make loaders fetch a kernel (allowed: {', '.join(sorted(QUANTIZED))})"
    if key in FILE_KEYS and isinstance(value, str) and ("/" in value or "\\" in value):
        return "which names a file outside of its folder"
    return ""


def _built_in(value: Any) -> bool:
    """Return whether an implementation, or one for each part of a model, comes with torch."""
    values = value.values() if isinstance(value, dict) else [value]
    return all(one is None or (isinstance(one, str) and one in BUILT_IN) for one in values)


def _quantized(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and str(value.get("quant_method")) in QUANTIZED)


def _items(document: Any) -> Iterator[tuple[str, Any]]:
    """Yield every key of a document with its value, however deep."""
    pending = [document]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            yield from value.items()
            pending += value.values()
        elif isinstance(value, list):
            pending += value


def check_index(
    path: str,
    document: Any,
    tensors: Mapping[str, Mapping[str, TensorInfo]],
    unread: Collection[str] = (),
) -> Iterator[Finding]:
    """Find where an index of shards, as JSON data, says something else than the files beside it.

    Args:
        path: of the index.
        document: its content.
        tensors: file -> its tensors.
        unread: files that were not read, and have a finding that says why.
    """
    folder = path.rpartition("/")[0]
    weight_map = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        yield Finding(Code.INCONSISTENT, path, "has no weight_map from tensors to files")
        return
    listed: dict[str, set[str]] = {}
    for tensor, name in weight_map.items():
        listed.setdefault(name, set()).add(tensor)
    for name in sorted(listed):
        shard = f"{folder}/{name}" if folder else name
        if "/" in name or path_problem(name):
            yield Finding(Code.PATH, path, f"names {name!r}, which is no file name")
        elif shard in unread:
            continue
        elif shard not in tensors:
            yield Finding(Code.INCONSISTENT, path, f"names {name!r}, which is not there or malformed")
        elif tensors[shard].keys() != listed[name]:
            yield Finding(Code.INCONSISTENT, path, f"lists other tensors than {name!r} holds")


def check_model_index(document: Any, paths: set[str]) -> Iterator[Finding]:
    """Compare ``model_index.json``, as JSON data, with the libraries' classes and the folders that there are."""
    if not isinstance(document, dict):
        if MODEL_INDEX not in paths or document is not None:
            yield Finding(Code.INCONSISTENT, MODEL_INDEX, "is not there or no JSON object")
        return
    if not _is_class(document.get("_class_name")):
        yield Finding(Code.CUSTOM_CODE, MODEL_INDEX, "does not name a class of diffusers as its pipeline")
    folders = {path.partition("/")[0] for path in paths if "/" in path and not is_picture(path)} - {RELEASE}
    named = set()
    for name, value in sorted(document.items()):
        if not isinstance(value, list) or name.startswith("_") or value == [None, None]:
            continue
        named.add(name)
        if len(value) != 2 or value[0] not in LIBRARIES or not _is_class(value[1]):
            yield Finding(Code.CUSTOM_CODE, MODEL_INDEX, f"component {name!r} is no class of diffusers or transformers")
        if name not in folders:
            yield Finding(Code.INCONSISTENT, MODEL_INDEX, f"names component {name!r}, which is not there")
    for folder in sorted(folders - named):
        yield Finding(Code.INCONSISTENT, folder, f"is not named in {MODEL_INDEX}")


def _is_class(name: Any) -> bool:
    return isinstance(name, str) and _CLASS.fullmatch(name) is not None
