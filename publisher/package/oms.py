"""The door to ``model-signing``: OpenSSF Model Signing v1.0 with an explicit configuration.

The library hashes every file by its name, which is a second pass over gigabytes and a second look at files that may
have changed in between. Here it is handed the digests that were taken from the open files, and does the rest: the
statement, the cryptography, the comparison.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from publisher.package.layout import SIGNATURE

if TYPE_CHECKING:
    from model_signing import hashing

    from publisher.package.keys import PublicKey

PREDICATE_TYPE = "https://model_signing/signature/v1.0"
SERIALIZATION = {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": [SIGNATURE]}


class OmsError(ValueError):
    """``model-signing`` does not accept the signature; the message is its own."""


def verify(signature: bytes, digests: Mapping[str, str], key: PublicKey) -> bool:
    """Verify that the files are those that were signed.

    Args:
        signature: content of ``model.sig``.
        digests: path -> sha256 in hex of the files as they are.
        key: the trust anchor.

    Returns:
        False if the signature is good but over other files.

    Raises:
        OmsError: the signature is not good, or the library cannot read it.
    """
    from model_signing import verifying

    known = known_digests("", digests)
    with tempfile.TemporaryDirectory() as folder:
        anchor, file = Path(folder) / "key.pub", Path(folder) / SIGNATURE
        anchor.write_bytes(key.pem)
        file.write_bytes(signature)
        try:
            config = verifying.Config()  # type: ignore[no-untyped-call]
            config.use_elliptic_key_verifier(public_key=anchor)
            config.set_hashing_config(known).verify(folder, file)
        except Exception as error:
            if getattr(known, "asked", False):
                return False
            raise OmsError(f"{type(error).__name__}: {error}") from error
    return True


def known_digests(name: str, digests: Mapping[str, str]) -> hashing.Config:
    """Make a hashing configuration that hashes nothing: it gives these digests and notes that it was ``asked``.

    Args:
        name: of the model, for the statement's subject.
        digests: path -> sha256 in hex, of every file but ``model.sig``.
    """
    from model_signing import hashing, manifest
    from model_signing._hashing.hashing import Digest

    items = [
        manifest.FileManifestItem(path=PurePosixPath(path), digest=Digest("sha256", bytes.fromhex(digests[path])))
        for path in sorted(digests)
    ]
    result = manifest.Manifest(name, items, manifest.SerializationType.from_args(SERIALIZATION))

    class Known(hashing.Config):
        asked = False

        def hash(self, model_path: Any, *, files_to_hash: Any = None) -> manifest.Manifest:  # noqa: ARG002
            self.asked = True
            return result

    return Known()  # type: ignore[no-untyped-call]
