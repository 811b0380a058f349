"""A copy has the source's bytes but for the tensors that are overwritten, shares blocks where it can, and is hashed."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from publisher.api.header import HeaderError, read_spans
from publisher.errors import PublisherError
from publisher.model import copying
from publisher.model.copying import Overwrite, copy_file
from publisher.model.tensors import tensor_bytes

TENSORS = {
    "a": torch.arange(6.0).reshape(2, 3),
    "b": torch.ones(3, dtype=torch.bfloat16),
    "c": torch.zeros(0),
    "d": torch.full((40,), 4.0),
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.safetensors"
    save_file(TENSORS, path, {"format": "pt", "made by": "a test"})
    return path


@pytest.fixture(params=["shared", "streamed"])
def shares(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Let the file system share blocks, or not: the kernel's part is played by a plain copy or by its refusal."""

    def clone(target: int, operation: int, source: int) -> int:
        assert operation == 0x40049409
        if request.param == "streamed":
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return os.write(target, os.pread(source, os.fstat(source).st_size, 0))

    monkeypatch.setattr(copying, "_CLONE", 0x40049409)
    monkeypatch.setattr(fcntl, "ioctl", clone)
    monkeypatch.setattr(copying, "CHUNK", 7)
    return bool(request.param == "shared")


@pytest.mark.usefixtures("shares")
@pytest.mark.parametrize("names", [(), ("a",), ("d", "a"), ("c",), tuple(TENSORS)])
def test_all_bytes_but_those_of_the_named_tensors_are_the_sources(
    tmp_path: Path, source: Path, names: tuple[str, ...]
) -> None:
    new = {name: torch.full_like(TENSORS[name], 7) for name in names}
    digest = copy_file(source, tmp_path / "copy", Overwrite(names, lambda name: tensor_bytes(new[name])))
    wanted = bytearray(source.read_bytes())
    for name, (begin, end) in read_spans(source).items():
        if name in new:
            wanted[begin:end] = tensor_bytes(new[name])
    assert (tmp_path / "copy").read_bytes() == wanted
    assert digest == hashlib.sha256(wanted).hexdigest()
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o644
    assert all(torch.equal(tensor, (TENSORS | new)[name]) for name, tensor in load_file(tmp_path / "copy").items())


@pytest.mark.usefixtures("shares")
def test_a_tensor_for_which_there_is_nothing_new_stays(tmp_path: Path, source: Path) -> None:
    copy_file(source, tmp_path / "copy", Overwrite(TENSORS, lambda _: None))
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()


@pytest.mark.usefixtures("shares")
def test_a_copy_of_any_file_stays_when_its_source_changes(tmp_path: Path) -> None:
    (tmp_path / "blob").write_text("a text of some length")
    (tmp_path / "link").symlink_to("blob")
    assert (
        copy_file(tmp_path / "link", tmp_path / "new" / "copy") == hashlib.sha256(b"a text of some length").hexdigest()
    )
    (tmp_path / "blob").write_text("another")
    assert (tmp_path / "new" / "copy").read_text() == "a text of some length"


@pytest.mark.usefixtures("shares")
@pytest.mark.parametrize(
    ("overwrite", "error"),
    [
        (Overwrite(("a",), lambda _: bytes(4)), ValueError),
        (Overwrite(("x",), lambda _: bytes(4)), KeyError),
    ],
)
def test_what_does_not_fit_leaves_no_file(
    tmp_path: Path, source: Path, overwrite: Overwrite, error: type[Exception]
) -> None:
    with pytest.raises(error):
        copy_file(source, tmp_path / "copy", overwrite)
    assert not list(tmp_path.glob("*copy*"))


def test_a_malformed_file_cannot_be_overwritten(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"{}")
    with pytest.raises(HeaderError):
        copy_file(tmp_path / "x", tmp_path / "copy", Overwrite(("a",), lambda _: b""))


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PublisherError, match="cannot be copied") as found:
        copy_file(tmp_path / "x", tmp_path / "copy")
    assert found.value.where == str(tmp_path / "x")


def test_a_source_that_shrinks_meanwhile_is_no_copy(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "_CLONE", None)

    def shrink(_: str) -> bytes:
        os.truncate(source, 400)
        return tensor_bytes(TENSORS["a"])

    with pytest.raises(PublisherError, match="ended early"):
        copy_file(source, tmp_path / "copy", Overwrite(("a",), shrink))
    assert not (tmp_path / "copy").exists()


def test_blocks_are_shared_where_this_machine_can(tmp_path: Path, source: Path) -> None:
    """Compare with the system's own tool, which refuses a shared copy where the file system has none."""
    command = ["cp", "--reflink=always", str(source), str(tmp_path / "tool")]
    tool = subprocess.run(command, capture_output=True, check=False).returncode == 0
    with source.open("rb") as reader, (tmp_path / "copy").open("wb") as writer:
        assert copying._share(reader, writer) == tool
