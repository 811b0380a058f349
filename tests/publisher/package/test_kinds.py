"""Files are told by their bytes: what may hold weights is never taken for text, whatever its name says."""

from __future__ import annotations

import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import torch

from publisher.package.kinds import MEDIA, is_training_state, problem

HOLDERS = {
    "a pickle": pickle.dumps({"a": 1}),
    "a zip archive": b"PK\x03\x04\0",
    "a GGUF file": b"GGUF\3\0\0\0",
    "an HDF5 file": b"\x89HDF\r\n\x1a\n",
    "a numpy array": b"\x93NUMPY\1\0",
    "a compressed file": b"\x1f\x8b\x08\0",
    "data of ": struct.pack("<8f", *range(8)),
    "data of": pickle.dumps({"a": [1.5, "b"]}, 0),
}
NAMES = ["weights", ".hidden", "x.txt", "tokenizer.model", "a.png", "events.out.tfevents.1", "x.bin", "LICENSE"]
EVENT = b"\x09" + bytes(8)
RECORD = struct.pack("<QI", len(EVENT), 7) + EVENT + bytes(4)
PIECES = b"\x0a\x0e\x0a\x05<unk>\x15\0\0\0\0\x18\2" * 2 + b"\x12\2\x18\1"


@pytest.fixture
def tell(tmp_path: Path) -> Path:
    return tmp_path / "file"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", HOLDERS)
def test_what_may_hold_weights_is_named_whatever_it_is_called(tell: Path, kind: str, name: str) -> None:
    tell.write_bytes(HOLDERS[kind])
    assert problem(name, tell).startswith(f"is {kind}")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.log", b"\x1b[32m 10%\x1b[0m\r 20%\n"),
        ("LICENSE", "§ 1".encode("latin-1")),
        ("notes", "log".encode("utf-16")),
        ("empty", b""),
        ("README.md", b"GGUF and BZh are kinds of files.\n"),
        ("tokenizer.model", PIECES),
        ("events.out.tfevents.1", RECORD * 3),
        ("events.out.tfevents.1", RECORD + RECORD[:14]),
        ("clip.MP4", b"\0\0\0\x20ftypisom\0"),
    ],
)
def test_text_media_and_logs_hold_none(tell: Path, name: str, data: bytes) -> None:
    tell.write_bytes(data)
    assert problem(name, tell) == ""


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("tokenizer.model", PIECES[:-1]),
        ("tokenizer.model", PIECES + b"\0"),
        ("tokenizer.model", b"\x0a\x05hello\0"),
        ("events.out.tfevents.1", RECORD + struct.pack("<QI", 1 << 60, 0) + b"\0\0"),
        ("events.out.tfevents.1", struct.pack("<QI", 40, 0) + b'{"a":1}'),
        ("notes", b"\xff\xfe" + struct.pack("<8f", *range(8))),
    ],
)
def test_what_only_begins_like_one_is_none(tell: Path, name: str, data: bytes) -> None:
    tell.write_bytes(data)
    assert problem(name, tell) != ""


def test_a_picture_by_its_name_alone_is_none(tell: Path) -> None:
    tell.write_bytes(b"\0\1\2\3")
    assert all(problem(f"a.{kind}", tell) for kind in MEDIA)


@pytest.mark.parametrize("what", ["weights", "a module", "names of layers", "something behind", "no pickle", "archive"])
def test_a_state_of_a_training_names_no_layer_and_is_all_that_is_there(tell: Path, what: str) -> None:
    layer = torch.nn.Linear(3, 3)
    optimizer = torch.optim.AdamW(layer.named_parameters() if what == "names of layers" else layer.parameters())
    layer(torch.ones(3)).sum().backward()
    optimizer.step()
    torch.save(optimizer.state_dict(), tell)
    assert is_training_state(tell) is (what != "names of layers")
    saved = {"weights": layer.state_dict(), "a module": layer}
    if what in saved:
        torch.save(saved[what], tell)
    elif what == "something behind":
        tell.write_bytes(pickle.dumps({"step": 1}) + b"\0")
    elif what == "no pickle":
        tell.write_bytes(b"\x80\x05\xff")
    elif what == "archive":
        with zipfile.ZipFile(tell, "a") as archive:
            archive.writestr("archive/more.safetensors", b"x")
    assert not is_training_state(tell)
