"""Where finds lie: in clear in the publisher's own work folder, and in a package only as salted hashes.

A find is a way to make the model show what was to go. So a package says that there is one, how good it is and what it
cost, and carries a hash by which a later disclosure can be checked. The salt stays with the publisher: a hash without
it could be guessed word by word.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.api import Find, TensorFile
from publisher.model.files import write_atomic

if TYPE_CHECKING:
    import torch

SALT = "salt"
"""File of the salt in the folder of finds."""


class Vault:
    """The finds of a release, in clear.

    Args:
        folder: such as ``<work>/finds``; None: in memory alone.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._memory: dict[str, bytes] = {}

    def keep(self, tensors: Mapping[str, torch.Tensor], *, private: bool = False) -> TensorFile:
        """Keep tensors under the digest of their file, float32 on the CPU; private ones in memory alone."""
        from safetensors.torch import save

        ready = {name: tensor.detach().float().cpu().contiguous() for name, tensor in sorted(tensors.items())}
        data = save(ready)
        digest = hashlib.sha256(data).hexdigest()
        name = f"{digest}.safetensors"
        if private:
            self._memory[name] = data
        else:
            self.write(name, data)
        return TensorFile(sha256=digest, shapes={name: tuple(tensor.shape) for name, tensor in ready.items()})

    def tensors(self, file: TensorFile) -> dict[str, torch.Tensor] | None:
        """Return stored tensors, or None if they are not there, or others."""
        from safetensors.torch import load

        data = self.data(file)
        if data is None or hashlib.sha256(data).hexdigest() != file.sha256:
            return None
        return load(data)

    def data(self, file: TensorFile) -> bytes | None:
        """Return the bytes of stored tensors, or None if they are not there."""
        name = f"{file.sha256}.safetensors"
        if name in self._memory:
            return self._memory[name]
        path = self._folder / name if self._folder else None
        return path.read_bytes() if path is not None and path.is_file() else None

    def write(self, name: str, data: bytes) -> None:
        """Write a file, such as the clear evidence of a check.

        Raises:
            PublisherError: the disk is full or not writable.
        """
        if self._folder is None:
            self._memory[name] = data
        else:
            write_atomic(self._folder / name, data)

    def seal(self, find: Find) -> str:
        """Return the HMAC-SHA256 of a find with the salt of this work folder, in hexadecimal."""
        return seal(self._salt, find)

    @cached_property
    def _salt(self) -> bytes:
        """32 random bytes, made once for a work folder: its packages keep their bytes."""
        if self._folder is None:
            return os.urandom(32)
        path = self._folder / SALT
        if not path.is_file():
            write_atomic(path, os.urandom(32))
            path.chmod(0o600)
        return path.read_bytes()


def seal(salt: bytes, find: Find) -> str:
    """Return the HMAC-SHA256 of a find's canonical JSON, keys sorted, in hexadecimal."""
    canonical = json.dumps(find.as_json(), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hmac.new(salt, canonical.encode(), hashlib.sha256).hexdigest()
