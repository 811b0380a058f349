"""Pictures and captions of slices: read, held against each other, and put into Merkle trees.

The secrets of the salts and the receipts stay with the publisher, in a folder of their own that only he can read. They
play no part in a training.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.api.slices import DataSlice, leaf_of, receipts, salt_of
from publisher.errors import UsageError
from publisher.manifest.images import TYPES
from publisher.manifest.templates import expand
from publisher.model.digest import sha256_json
from publisher.model.files import cannot_write, write_atomic
from publisher.runtime.references import read_images
from publisher.slicing.recipe import DataEntry

if TYPE_CHECKING:
    import torch

SIDE = 16
"""Height and width at which pictures of two slices are compared."""
ALIKE = 0.02
"""Root mean square of the difference, of values in [0, 1], below which two pictures count as one."""
SECRET = 32
"""Bytes of a slice's secret."""


@dataclass(frozen=True)
class CaptionedPicture:
    """One picture with its caption."""

    path: Path
    """File of it."""
    caption: str
    """Text that it is trained under."""
    sha256: str
    """Digest of its file."""


@dataclass(frozen=True)
class Body:
    """All pictures of one slice."""

    entry: DataEntry
    """Entry of the training's file."""
    pictures: tuple[CaptionedPicture, ...]
    """At least one, in the order of their paths."""

    @property
    def digest(self) -> str:
        """sha256 of pictures and captions, which a stage that saw the slice depends on; it stays with the publisher."""
        return sha256_json([[one.sha256, one.caption] for one in self.pictures])


def read_body(entry: DataEntry, folder: Path) -> Body:
    """Find the pictures of a slice, and their captions.

    Args:
        entry: of the training's file.
        folder: of that file.

    Raises:
        UsageError: there are none, one cannot be read, or one has no caption.
    """
    files = sorted({path for name in entry.images for path in _files(folder / name, entry.id)})
    if not files:
        named = ", ".join(entry.images)
        hint = f"Name {', '.join(TYPES)} files, or folders of such files, as seen from the training's file."
        raise UsageError(f"the slice {entry.id} is empty: there is no picture in {named}", where="data", hint=hint)
    return Body(entry, tuple(CaptionedPicture(path, _caption(entry, path), _sha256(path)) for path in files))


def _files(path: Path, name: str) -> Iterator[Path]:
    if not path.is_dir():
        if not path.is_file():
            raise UsageError(f"the slice {name} names a file or folder that is not there", where=str(path))
        yield path
        return
    yield from (one for one in path.iterdir() if one.suffix.lower() in TYPES and one.is_file())


def _caption(entry: DataEntry, path: Path) -> str:
    if entry.caption is not None:
        return expand(entry.caption, path.stem.replace("-", " ").replace("_", " "), {})[0]
    beside = path.with_suffix(".txt")
    try:
        text = beside.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        hint = f"Put the caption into {beside.name} beside the picture, or give the slice a 'caption' for all."
        raise UsageError(f"a picture of the slice {entry.id} has no caption", where=str(path), hint=hint) from error
    if not text:
        raise UsageError(f"the caption of a picture of the slice {entry.id} is empty", where=str(beside))
    return text


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(path)) from error


def pixels_of(body: Body, size: tuple[int, int]) -> torch.Tensor:
    """Read the pictures of a slice, ``(n, 3, height, width)`` in [0, 1].

    Raises:
        UsageError: a file is no picture.
    """
    return read_images([one.path for one in body.pictures], size)


def require_apart(bodies: Sequence[Body], pixels: Mapping[str, torch.Tensor]) -> None:
    """Refuse pictures that are in two slices: who withdraws one of them would find hers in the other.

    Pictures that look alike at 16 x 16 count as one. Crops, mirrored or recoloured copies are not found.

    Args:
        bodies: all slices.
        pixels: id -> its pictures, ``(n, 3, h, w)``.

    Raises:
        UsageError: naming the first two.
    """
    import torch
    import torch.nn.functional as F

    small = {name: F.interpolate(one, (SIDE, SIDE), mode="area").flatten(1) for name, one in pixels.items()}
    for number, mine in enumerate(bodies):
        for other in bodies[:number]:
            exact = "donot_use_mm_for_euclid_dist"
            apart = (
                torch.cdist(small[mine.entry.id], small[other.entry.id], compute_mode=exact) / (3 * SIDE * SIDE) ** 0.5
            )
            if apart.min() < ALIKE:
                at, to = divmod(int(apart.argmin()), apart.shape[1])
                what = f"is in the slice {mine.entry.id} and, as {other.pictures[to].path}, in {other.entry.id}"
                hint = "Who withdraws one slice would leave the picture in the other: put both into one slice."
                raise UsageError(what, where=str(mine.pictures[at].path), hint=hint)


def require_gone(bodies: Sequence[Body], withdrawn: Iterable[str], private: Path) -> None:
    """Refuse pictures of withdrawn slices, file by file, in a slice that does not say that it is their rest.

    Withdrawn slices are known by their secret and their marks: of one that lacks either, nothing is found.

    Args:
        bodies: all slices that are trained.
        withdrawn: ids of slices that are not.
        private: folder that stays with the publisher.

    Raises:
        UsageError: naming the first one; or what is kept of a withdrawn slice cannot be read.
    """
    for name in withdrawn:
        file = private / "marks" / f"{name}.json"
        try:
            secret, marks = (private / "secrets" / name).read_bytes(), set(json.loads(file.read_bytes()))
        except FileNotFoundError:
            continue
        except (OSError, ValueError, TypeError) as error:
            hint = f"Bring it back from a copy. Without it no picture of {name} is known when it comes back."
            raise UsageError(f"cannot be read: {error}", where=str(file), hint=hint) from error
        for body in (one for one in bodies if name not in one.entry.rest_of):
            for one in body.pictures:
                if _mark(secret, one) in marks:
                    hint = f"Leave it out. If its holder agrees, name {name} under 'rest_of' of {body.entry.id}."
                    what = f"is in the slice {body.entry.id}, and was in {name}, which was withdrawn"
                    raise UsageError(what, where=str(one.path), hint=hint)


def _mark(secret: bytes, picture: CaptionedPicture) -> str:
    """Return what a picture is known by whatever its caption; without the secret it tells nothing."""
    return hmac.new(secret, picture.sha256.encode(), hashlib.sha256).hexdigest()


def enter_slice(body: Body, private: Path) -> DataSlice:
    """Build the slice's Merkle tree; its secret, marks and one receipt a picture go into the private folder.

    Args:
        body: the slice.
        private: folder that stays with the publisher. A secret that is there already is taken.

    Raises:
        PublisherError: it cannot be written.
        UsageError: the secret there is none, or a picture is no longer what was read.
    """
    _make_own(*(private / name for name in ("secrets", "receipts", "marks")))
    secret = _secret(private / "secrets" / body.entry.id)
    salts: dict[str, bytes] = {}
    leaves = []
    for number, one in enumerate(body.pictures):
        salt = salt_of(secret, number)
        leaves.append(leaf_of(salt, _bytes_of(one), one.caption))
        salts[leaves[-1]] = salt
    root, found = receipts(body.entry.id, salts)
    marks = sorted(_mark(secret, one) for one in body.pictures)
    write_atomic(private / "marks" / f"{body.entry.id}.json", json.dumps(marks).encode())
    _clear(private / "receipts" / body.entry.id)
    for number, (leaf, one) in enumerate(zip(leaves, body.pictures, strict=True)):
        file = private / "receipts" / body.entry.id / f"{number:05d}-{one.path.stem}.json"
        write_atomic(file, json.dumps({**found[leaf].as_json()}, indent=1).encode())
    entry = body.entry
    return DataSlice(
        id=entry.id,
        holder=entry.holder,
        licence=entry.licence,
        samples=len(leaves),
        root=root,
        rest_of=tuple(sorted(entry.rest_of)),
    )


def _bytes_of(picture: CaptionedPicture) -> bytes:
    """Return a picture's file, which is to be what the stages saw.

    Raises:
        UsageError: it has changed since, or is gone.
    """
    try:
        found = picture.path.read_bytes()
    except OSError as error:
        found, why = b"", f"cannot be read any more: {error.strerror or error}"
    else:
        why = "has changed since the training read it"
    if hashlib.sha256(found).hexdigest() != picture.sha256:
        hint = "Bring it back and run the same command again: what is trained is kept. Other bytes are trained again."
        raise UsageError(why, where=str(picture.path), hint=hint)
    return found


def _clear(folder: Path) -> None:
    """Remove a slice's receipts: those of pictures that left it, or have another place, prove nothing."""
    try:
        if folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        raise cannot_write(folder, error) from error


def _make_own(*folders: Path) -> None:
    """Make folders that nobody else can read: who has a salt can test guesses."""
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise cannot_write(folder, error) from error


def _secret(path: Path) -> bytes:
    try:
        if not path.exists():
            write_atomic(path, secrets.token_bytes(SECRET), mode=0o600)
        found = path.read_bytes()
    except OSError as error:
        raise cannot_write(path, error) from error
    if len(found) != SECRET:
        raise UsageError("is no secret of a slice", where=str(path), hint="Remove it: a new one is made.")
    return found
