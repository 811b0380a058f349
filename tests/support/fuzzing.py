"""Random damage to a package: to bytes, to JSON values, to files and links. A seed and a number name a mutant."""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

COUNT = int(os.environ.get("FUZZ", "0"))
"""Mutants of each kind that ``make fuzz`` asks for; 0: the short form."""
SEED = int(os.environ.get("FUZZ_SEED", "20261128"))
VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**64,
    -(2**70),
    0.0,
    -0.5,
    1e-320,
    1e308,
    "",
    " ",
    "\0",
    "\ud800",
    "\u202e",
    "passed",
    "../../etc/passwd",
    "/etc/passwd",
    "a" * 5000,
    "org/kernel",
    [],
    [[]],
    [None],
    ["F32"],
    {},
    {"a": {}},
    {"": ""},
)
NAMES = (
    "x.json",
    "x.py",
    ".gitattributes",
    "unet/x.bin",
    "unet/\x1b[2J.json",
    "unet/\u202e.json",
    "unet/CONFIG.json",
    "a/b/c/d/e/f/g/h/i/j",
    "unet/config.json\n",
    "release/attestations/x.sigstore.json",
    "release/membranes/y.safetensors",
    "unet/con.json",
    "unet/\udcff.json",
)


TELLING = ("report.json", ".jsonl", "resolved.json", "index.json", "freeze-mask.json")
"""What a verifier compares with other files: mutated more often than the rest."""


class Mutant:
    """One change of a package, made on disk."""

    def __init__(self, number: int, seed: int = SEED) -> None:
        self.number = number
        self.random = random.Random(f"{seed}:{number}")
        self.said = ""

    def __str__(self) -> str:
        return f"mutant {self.number} of seed {SEED}: {self.said}"

    def damage(self, folder: Path) -> None:
        """Change something; what, is then in ``said``."""
        self.random.choice((self._bytes, self._bytes, self._json, self._json, self._json, self._file))(folder)

    def damage_content(self, folder: Path) -> None:
        """Change the content of a file that a signer would sign: a value of JSON, or some bytes."""
        self.random.choice((self._json, self._json, self._json, self._bytes))(folder, unsigned=True)

    def _pick(self, folder: Path, *ends: str, unsigned: bool = False) -> Path:
        paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name.endswith(ends or ("",)))
        if unsigned:
            paths = [path for path in paths if path.name != "model.sig" and path.parent.name != "attestations"]
            if self.random.random() < 0.6:
                paths = [path for path in paths if path.name.endswith(TELLING)] or paths
        return self.random.choice(paths)

    def _bytes(self, folder: Path, *, unsigned: bool = False) -> None:
        path = self._pick(folder, unsigned=unsigned)
        data = path.read_bytes()
        at = self.random.randrange(len(data) + 1)
        length = self.random.choice((1, 1, 1, 2, 8, 64, 1000))
        piece = self.random.choice((b"", self.random.randbytes(length), data[:length], b" " * length, b"{" * length))
        cut = self.random.choice((at, at + length, len(data)))
        path.write_bytes(data[:at] + piece + data[cut:])
        self.said = f"{path.relative_to(folder)}: {len(piece)} bytes for {cut - at} at {at}"

    def _json(self, folder: Path, *, unsigned: bool = False) -> None:
        path = self._pick(folder, ".json", ".jsonl", ".sig", unsigned=unsigned)
        lines = path.read_bytes().splitlines()
        if path.suffix not in (".jsonl", ".sig"):
            lines = [path.read_bytes()]
        which = self.random.randrange(len(lines)) if lines else 0
        document = json.loads(lines[which]) if lines else {}
        payload = isinstance(document, dict) and "dsseEnvelope" in document and self.random.random() < 0.5
        inner = json.loads(base64.b64decode(document["dsseEnvelope"]["payload"])) if payload else document
        changed = self._changed(inner)
        if payload:
            document["dsseEnvelope"]["payload"] = base64.b64encode(_dump(changed)).decode()
        lines[which : which + 1] = [_dump(document if payload else changed)]
        path.write_bytes(b"\n".join(lines) + b"\n")
        self.said = f"{path.relative_to(folder)}, line {which + 1}: {self.said}"

    def _changed(self, document: Any) -> Any:
        """Replace, remove, repeat or add one value somewhere inside."""
        places = [(holder, key) for holder in _holders(document) for key in _keys(holder)]
        if not places:
            return self.random.choice(VALUES)
        holder, key = self.random.choice(places)
        value = self.random.choice((*VALUES, holder[key], [holder[key]], {"x": holder[key]}))
        what = self.random.choice(("put", "put", "put", "add", "drop", "near"))
        self.said = f"{what} {key!r}: {str(value)[:60]!r}"
        if what == "drop":
            del holder[key]
        elif what == "near" and isinstance(holder[key], int | float):
            holder[key] = holder[key] * self.random.choice((0, -1, 0.5, 2)) + self.random.choice((0, 1, 1e-3))
        elif what == "add" and isinstance(holder, dict):
            holder[self.random.choice(("auto_map", "trust_remote_code", "x", "attn_implementation", ""))] = value
        elif what == "add":
            holder.append(value)
        else:
            holder[key] = value
        return document

    def _file(self, folder: Path) -> None:
        path = self._pick(folder)
        name = str(path.relative_to(folder))
        other = self._pick(folder)
        new = folder / self.random.choice(NAMES)
        kinds: dict[str, Callable[[], object]] = {
            "remove": path.unlink,
            "empty": lambda: path.write_bytes(b""),
            "rename": lambda: (_parent(new), path.rename(new)),
            "copy": lambda: (_parent(new), shutil.copy(path, new)),
            "swap": lambda: _swap(path, other),
            "link": lambda: (path.rename(folder / "x"), path.symlink_to(folder / "x")),
            "loop": lambda: (path.unlink(), path.symlink_to(path.name)),
            "pipe": lambda: (path.unlink(), os.mkfifo(path)),
            "hard link": lambda: (_parent(new), os.link(path, new)),
            "folder": lambda: (path.unlink(), path.mkdir()),
            "hole": lambda: os.truncate(path, 1 << (20 if path.suffix == ".safetensors" else 33)),
        }
        kind = self.random.choice(sorted(kinds))
        kinds[kind]()
        self.said = f"{name}: {kind} ({new.name!r}, {other.name!r})"


def content(folder: Path) -> dict[str, bytes | str]:
    """Return every path with its bytes, or what else it is: what two folders are compared by."""
    found: dict[str, bytes | str] = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not path.is_file():
            found[name] = f"{path.lstat().st_mode:o}"
        else:
            found[name] = path.read_bytes() if path.stat().st_size < 1 << 26 else "large"
    return found


def _dump(document: Any) -> bytes:
    return json.dumps(document).encode()


def _holders(document: Any) -> list[Any]:
    found, pending = [], [document]
    while pending:
        value = pending.pop()
        if isinstance(value, dict | list):
            found.append(value)
            pending += value.values() if isinstance(value, dict) else value
    return found


def _keys(holder: Any) -> list[Any]:
    return list(holder) if isinstance(holder, dict) else list(range(len(holder)))


def _parent(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)


def _swap(one: Path, other: Path) -> None:
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
