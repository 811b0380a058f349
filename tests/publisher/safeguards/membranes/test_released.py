"""The membranes of a package, read from disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from publisher.api.membranes import INDEX, Host, MembraneFileError, MembraneIndex, Transport
from publisher.errors import ModelError
from publisher.safeguards.membranes.released import read_release
from support.attaching import entry
from support.membrane_files import random_membrane, save

HOSTS = {host.stem: host for host in (Host("mid_block.attentions.0.proj_in", (4, 4)),)}


def release(folder: Path, **changes: Any) -> Path:
    """Return a folder with one membrane and its index."""
    (folder / "membranes").mkdir()
    path = save(folder / "membranes/cat.safetensors", random_membrane(HOSTS))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    index = MembraneIndex(
        mode="bundle", transport=Transport(power=2), entries=(entry("cat", sha256=digest),)
    ).model_copy(update=changes)
    (folder / INDEX).write_text(json.dumps(index.as_json()))
    return folder


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads((folder / INDEX).read_text())
    edit(data)
    (folder / INDEX).write_text(json.dumps(data))


def test_index_and_files_are_read(tmp_path: Path) -> None:
    found = read_release(release(tmp_path))
    assert found is not None
    assert (found.index.transport.power, found.attachable) == (2, True)
    ((about, membrane),) = found.members
    assert about.concept == "cat"
    stem = next(iter(HOSTS))
    assert torch.equal(membrane.branches[stem].up, random_membrane(HOSTS).branches[stem].up)


def test_merged_membranes_are_read_and_are_not_to_be_attached(tmp_path: Path) -> None:
    found = read_release(release(tmp_path, mode="merge"))
    assert found is not None
    assert not found.attachable


def test_a_folder_without_index_has_none(tmp_path: Path) -> None:
    assert read_release(tmp_path) is None


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (lambda data: data.update(mode="open"), "malformed: mode"),
        (lambda data: data.update(extra=1), "malformed: extra"),
        (lambda data: data["entries"][0].update(file="../cat.safetensors"), r"malformed: entries\.0\.file"),
        (lambda data: data["entries"][0].update(words=[]), r"malformed: entries\.0\.words"),
        (lambda data: data["entries"].append(data["entries"][0]), "names a file twice"),
        (lambda data: data["entries"][0].update(sha256="1" * 64), "is not the membrane that the index names"),
        (lambda data: data["entries"][0].update(file="dog.safetensors"), "cannot be read"),
    ],
)
def test_an_index_that_says_anything_else_is_refused(
    tmp_path: Path, edit: Callable[[dict[str, Any]], object], what: str
) -> None:
    change(release(tmp_path), edit)
    with pytest.raises(ModelError, match=what):
        read_release(tmp_path)


def test_an_index_that_is_no_plain_json_is_refused(tmp_path: Path) -> None:
    release(tmp_path)
    for text in ("{", "[]", '{"mode": "bundle", "mode": "merge"}', '{"membranes": NaN}'):
        (tmp_path / INDEX).write_text(text)
        with pytest.raises(ModelError, match="index of membranes"):
            read_release(tmp_path)


def test_an_index_of_more_than_four_megabytes_is_not_read(tmp_path: Path) -> None:
    release(tmp_path)
    (tmp_path / INDEX).write_bytes(b" " * (4 * 1024 * 1024 + 1))
    with pytest.raises(ModelError, match="larger than"):
        read_release(tmp_path)


def test_a_changed_or_wrong_file_is_refused(tmp_path: Path) -> None:
    path = release(tmp_path) / "membranes/cat.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ModelError, match="is not the membrane"):
        read_release(tmp_path)
    path.write_bytes(b"nothing")
    change(tmp_path, lambda found: found["entries"][0].update(sha256=hashlib.sha256(b"nothing").hexdigest()))
    with pytest.raises(MembraneFileError):
        read_release(tmp_path)


def test_another_rank_than_the_index_says_is_refused(tmp_path: Path) -> None:
    change(release(tmp_path), lambda found: found["entries"][0].update(rank=2))
    with pytest.raises(MembraneFileError, match="has rank 1, the index says 2"):
        read_release(tmp_path)
