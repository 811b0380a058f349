from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from publisher.api.header import read_header, read_spans
from publisher_apply import comparing
from publisher_apply.comparing import Slice, compare

TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def slice_of(folder: Path, name: str, tensor: torch.Tensor) -> Slice:
    path = folder / f"{name}.safetensors"
    path.write_bytes(save({"x": tensor}))
    return Slice(path, read_header(path)["x"], read_spans(path)["x"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("comparing")


@given(
    values=st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=20),
    kinds=st.tuples(st.sampled_from(sorted(TYPES)), st.sampled_from(sorted(TYPES))),
)
def test_a_cast_rounds_as_torch_does(folder: Path, values: list[float], kinds: tuple[str, str]) -> None:
    found = torch.tensor(values, dtype=torch.float64).to(TYPES[kinds[0]])
    cast = found.to(TYPES[kinds[1]])
    assert compare(slice_of(folder, "a", found), slice_of(folder, "b", cast)).changed == 0
    zero = torch.full_like(cast, 0.125)
    difference = compare(slice_of(folder, "a", found), slice_of(folder, "b", zero))
    assert difference.changed == int((cast != zero).sum())
    lost = found.isfinite() & (cast.double() != found.double())
    assert difference.rounded == int(lost.sum())
    assert difference.broken == (int((~cast.isfinite()).sum()) if difference.changed else 0)


def test_pieces_make_no_difference(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = torch.arange(1000.0), torch.arange(1000.0)
    second[[0, 499, 999]] += 1
    second[500] = torch.nan
    whole = compare(slice_of(folder, "a", second), slice_of(folder, "b", first))
    monkeypatch.setattr(comparing, "PIECE", 7)
    assert compare(slice_of(folder, "a", second), slice_of(folder, "b", first)) == whole
    assert (whole.changed, whole.broken) == (4, 1)


def test_whole_numbers_are_compared_by_their_bytes(folder: Path) -> None:
    first = torch.arange(9)
    assert compare(slice_of(folder, "a", first), slice_of(folder, "b", first)).changed == 0
    assert compare(slice_of(folder, "a", first + 1), slice_of(folder, "b", first)).changed == 9
