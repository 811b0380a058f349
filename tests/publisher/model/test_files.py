"""Files are complete or not there, and equal content gives equal bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from publisher.api.header import read_header
from publisher.errors import PublisherError
from publisher.model.files import atomic, json_bytes, write_atomic
from publisher.model.tensors import dtype_name


def test_a_file_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with atomic(tmp_path / "a" / "x") as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list((tmp_path / "a").iterdir()) == []


def test_the_old_file_stays_when_the_new_one_fails(tmp_path: Path) -> None:
    write_atomic(tmp_path / "x", b"old")

    def interrupted() -> None:
        with atomic(tmp_path / "x") as file:
            file.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (tmp_path / "x").read_bytes() == b"old"


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(PublisherError, match="cannot write"):
        write_atomic(tmp_path / "file" / "x", b"")


def test_files_can_be_read_by_others(tmp_path: Path) -> None:
    write_atomic(tmp_path / "x", b"")
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o644


def test_json_does_not_depend_on_the_order_of_keys() -> None:
    assert (
        json_bytes({"b": 1, "a": ["é"]})
        == json_bytes({"a": ["é"], "b": 1})
        == b'{\n  "a": [\n    "\xc3\xa9"\n  ],\n  "b": 1\n}\n'
    )


def test_json_refuses_nan() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_bytes({"a": float("nan")})


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool]
)
def test_dtypes_are_called_as_safetensors_calls_them(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor = torch.zeros(2, dtype=dtype)
    save_file({"a": tensor}, tmp_path / "x.safetensors")
    assert read_header(tmp_path / "x.safetensors")["a"].dtype == dtype_name(tensor)
