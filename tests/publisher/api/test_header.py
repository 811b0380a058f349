"""A strict reading of safetensors headers: what the library accepts, a release tool must not."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from publisher.api.header import HeaderError, read_header
from publisher.errors import ModelError
from publisher.model.folder import read_json

ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def write(path: Path, header: Any, data: bytes = b"", raw: bytes | None = None) -> Path:
    text = raw if raw is not None else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_a_file_of_the_library_is_read_with_names_sorted(tmp_path: Path) -> None:
    save_file({"b": torch.zeros(2, 3), "a": torch.zeros(4, dtype=torch.float16)}, tmp_path / "x.safetensors")
    found = read_header(tmp_path / "x.safetensors", "unet/x.safetensors")
    assert list(found) == ["a", "b"]
    assert (found["b"].shape, found["b"].dtype, found["b"].file) == ((2, 3), "F32", "unet/x.safetensors")
    assert found["b"].parameters == 6


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        ({"a": ENTRY}, bytes(7), "holds 7 bytes of tensors, its header describes 8"),
        ({"a": ENTRY}, bytes(9), "holds 9 bytes of tensors, its header describes 8"),
        ({"a": {**ENTRY, "dtype": "F33"}}, bytes(8), "unknown dtype 'F33'"),
        ({"a": {**ENTRY, "shape": [3]}}, bytes(8), "not its shape times its dtype"),
        ({"a": {**ENTRY, "extra": 1}}, bytes(8), "nothing else"),
        ({"a": {**ENTRY, "shape": [-2]}}, bytes(8), "malformed shape"),
        ({"a": {**ENTRY, "shape": [True, 2]}}, bytes(8), "malformed shape"),
        ({"a": ENTRY, "b": ENTRY}, bytes(8), "a gap or an overlap"),
        ({"../a": ENTRY}, bytes(8), "is not allowed"),
        ({"a\u202e": ENTRY}, bytes(8), "is not allowed"),
        ({"": ENTRY}, bytes(8), "is not allowed"),
        ({"__metadata__": {"a": 1}}, b"", "__metadata__ must map text to text"),
        ([], b"", "is not a JSON object"),
        ({"a": {**ENTRY, "shape": [float("nan")]}}, bytes(8), "the header holds NaN"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, header: Any, data: bytes, message: str) -> None:
    with pytest.raises(HeaderError, match=message):
        read_header(write(tmp_path / "x.safetensors", header, data))


VALUES = [None, True, 0, -1, 2.5, 1e300, 2**70, "", "F32", "\ud800", [], [[]], ["F32"], [0, 8], {}, {"a": 1}, [{}, {}]]


def test_any_malformed_value_gives_the_typed_error(tmp_path: Path) -> None:
    headers: list[Any] = [{"a": value} for value in VALUES]
    headers += [{"__metadata__": value} for value in VALUES if value != {}]
    headers += [{"a": {**ENTRY, field: value}} for field in ENTRY for value in VALUES if value != ENTRY[field]]
    headers += [{"a": {**ENTRY, field: [value, value]}} for field in ("shape", "data_offsets") for value in VALUES]
    for header in headers:
        with pytest.raises(HeaderError):
            read_header(write(tmp_path / "x.safetensors", header, bytes(8)))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{}}', "has a key twice"),
        (b"\x80\x04pickle", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b" {}", "is not a JSON object"),
    ],
)
def test_headers_that_are_no_plain_json_object_are_refused(tmp_path: Path, raw: bytes, message: str) -> None:
    with pytest.raises(HeaderError, match=message):
        read_header(write(tmp_path / "x.safetensors", None, raw=raw))


def test_a_header_bomb_is_refused_before_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", 1 << 60))
    with pytest.raises(HeaderError, match="at most"):
        read_header(tmp_path / "x.safetensors")


@pytest.mark.parametrize("content", [b"", b"1234567", struct.pack("<Q", 100) + b"{}"])
def test_truncated_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(HeaderError, match=r"shorter|truncated"):
        read_header(tmp_path / "x.safetensors")


def test_a_pointer_of_git_lfs_is_called_that_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12\n")
    with pytest.raises(HeaderError, match="a Git LFS pointer in place of the weights: run 'git lfs pull'"):
        read_header(path)
    with pytest.raises(ModelError, match=r"Git LFS pointer(.|\n)*git lfs pull"):
        read_json(path)
