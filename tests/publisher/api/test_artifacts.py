"""The bytes of artifacts."""

from __future__ import annotations

import json
import struct

import pytest
import torch
from safetensors.torch import load

from publisher.api import safetensors_bytes

TENSORS = {
    "b.weight": torch.arange(6.0).reshape(2, 3).T,  # not contiguous
    "a.alpha": torch.tensor(1.5, dtype=torch.bfloat16),
    "c": torch.zeros(0, 4),
    "d": torch.tensor([True, False]),
}
METADATA = {"rank": "1", "alpha": "1.0", "prompts": "käse, gun"}


def header_of(data: bytes) -> tuple[int, bytes]:
    (length,) = struct.unpack("<Q", data[:8])
    return length, data[8 : 8 + length]


def test_the_order_of_the_input_does_not_change_the_bytes() -> None:
    backwards = dict(reversed(TENSORS.items())), dict(reversed(METADATA.items()))
    assert safetensors_bytes(*backwards) == safetensors_bytes(TENSORS, METADATA)


def test_the_bytes_are_those_of_every_version() -> None:
    data = safetensors_bytes({"a": torch.tensor([1.0, 2.0])}, {"k": "v"})
    header = b'{"__metadata__":{"k":"v"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    header += b" " * (-len(header) % 8)
    assert data == struct.pack("<Q", len(header)) + header + struct.pack("<2f", 1.0, 2.0)


def test_the_library_reads_what_was_written() -> None:
    found = load(safetensors_bytes(TENSORS, METADATA))
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_metadata_comes_first_then_tensors_by_name_without_gaps() -> None:
    data = safetensors_bytes(TENSORS, METADATA)
    length, text = header_of(data)
    header = json.loads(text)
    assert length % 8 == 0
    assert list(header) == ["__metadata__", *sorted(TENSORS)]
    assert list(header["__metadata__"]) == ["alpha", "prompts", "rank"]
    assert b" " not in text.rstrip(b" ").replace("käse, gun".encode(), b"")
    spans = [header[name]["data_offsets"] for name in sorted(TENSORS)]
    assert [begin for begin, _ in spans] == [0, *(end for _, end in spans[:-1])]
    assert spans[-1][1] == len(data) - 8 - length


def test_without_metadata_there_is_no_entry_for_it() -> None:
    assert list(json.loads(header_of(safetensors_bytes({"a": torch.ones(1)}))[1])) == ["a"]


def test_a_dtype_that_artifacts_do_not_use_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"'z' is torch.complex64"):
        safetensors_bytes({"z": torch.zeros(1, dtype=torch.complex64)})
