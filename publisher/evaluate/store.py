"""Images that were generated before, and numbers of prompts, so that the base model is not paid for twice.

One file holds one batch: the last bits of an image depend on what it was generated together with, so the batch is what
a key names. A file carries the digest of its content; a damaged one is generated again, never trusted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from publisher.model.digest import sha256_json
from publisher.model.files import json_bytes, write_atomic
from publisher.strict_json import strict_object

if TYPE_CHECKING:
    import torch


class ImageStore:
    """Batches of images, and numbers, by key.

    Args:
        folder: on disk, such as ``<work>/images``; None: in memory alone.
        warn: is told of damaged files.
    """

    def __init__(self, folder: Path | None = None, warn: Callable[[str], None] = lambda _: None) -> None:
        self._folder = folder
        self._warn = warn
        self._memory: dict[str, torch.Tensor] = {}

    def get(self, key: str, count: int) -> torch.Tensor | None:
        """Return the images under ``key``, ``(count, 3, h, w)`` uint8, or None if they have to be generated."""
        if key in self._memory:
            return self._memory[key]
        path = self._path(key)
        if path is None or not path.is_file():
            return None
        try:
            return _read(path.read_bytes(), key, count)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the file, it is generated again
            self._warn(f"stored images {path.name} are damaged ({error}) and are generated again")
            path.unlink(missing_ok=True)
            return None

    def put(self, key: str, images: torch.Tensor, *, private: bool) -> None:
        """Keep images under ``key``; private ones (persons, unsafe content) in memory alone, never on disk.

        Raises:
            PublisherError: the disk is full or not writable.
        """
        path = self._path(key)
        if private or path is None:
            self._memory[key] = images
        else:
            write_atomic(path, _write(key, images))

    def note(self, key: str) -> Any:
        """Return the JSON data under ``key``, or None if it has to be made."""
        path = self._path(key, "json")
        if path is None or not path.is_file():
            return None
        try:
            found = strict_object(path.read_bytes())
            if found["digest"] != sha256_json([key, found["data"]]):
                raise ValueError("their digest does not match")  # noqa: TRY301 - damaged like any other
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the file, it is made again
            self._warn(f"stored numbers {path.name} are damaged ({error}) and are made again")
            path.unlink(missing_ok=True)
            return None
        return found["data"]

    def put_note(self, key: str, data: Any) -> None:
        """Keep JSON data under ``key``.

        Raises:
            PublisherError: the disk is full or not writable.
        """
        path = self._path(key, "json")
        if path is not None:
            write_atomic(path, json_bytes({"digest": sha256_json([key, data]), "data": data}))

    def _path(self, key: str, kind: str = "safetensors") -> Path | None:
        return None if self._folder is None else self._folder / f"{key}.{kind}"


def _write(key: str, images: torch.Tensor) -> bytes:
    import torch
    from safetensors.torch import save

    digest = torch.frombuffer(bytearray(_digest(key, images)), dtype=torch.uint8)
    return save({"digest": digest, "images": images.contiguous()})


def _read(data: bytes, key: str, count: int) -> torch.Tensor:
    import torch
    from safetensors.torch import load

    found = load(data)
    images = found["images"]
    if images.dtype != torch.uint8 or images.ndim != 4 or len(images) != count or images.shape[1] != 3:
        raise ValueError("not the images that belong here")
    if bytes(found["digest"].tolist()) != _digest(key, images):
        raise ValueError("their digest does not match")
    return images


def _digest(key: str, images: torch.Tensor) -> bytes:
    head = f"{key} {tuple(images.shape)}".encode()
    return hashlib.sha256(head + images.contiguous().numpy().tobytes()).digest()
