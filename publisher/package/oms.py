"""The door to ``model-signing``: OpenSSF Model Signing v1.0 with an explicit configuration.

The library hashes every file by its name, which is a second pass over gigabytes and a second look at files that may
have changed in between. Here it is handed the digests that were taken from the open files, and does the rest: the
cryptography, the comparison. The statement is written here by the rules of the specification, and signed as every other
one is, by whatever signs: it is the one that the library would write.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from publisher.package.dsse import STATEMENT_TYPE
from publisher.package.layout import SIGNATURE

if TYPE_CHECKING:
    from model_signing import hashing

    from publisher.package.dsse import Anchor

PREDICATE_TYPE = "https://model_signing/signature/v1.0"
SERIALIZATION = {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": [SIGNATURE]}


class OmsError(ValueError):
    """``model-signing`` does not accept the signature; the message is its own."""


def statement(name: str, digests: Mapping[str, str]) -> dict[str, Any]:
    """Return the statement of a model signature v1.0.

    Args:
        name: of the model, for the statement's subject.
        digests: path -> sha256 in hex, of every file but ``model.sig``.
    """
    paths = sorted(digests)
    root = hashlib.sha256(b"".join(bytes.fromhex(digests[path]) for path in paths)).hexdigest()
    resources = [{"name": path, "algorithm": "sha256", "digest": digests[path]} for path in paths]
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": root}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {"serialization": SERIALIZATION, "resources": resources},
    }


def verify(signature: bytes, digests: Mapping[str, str], anchor: Anchor) -> bool:
    """Verify that the files are those that were signed.

    Args:
        signature: content of ``model.sig``.
        digests: path -> sha256 in hex of the files as they are.
        anchor: who may have signed. Of an identity the library asks the network, and is not asked.

    Returns:
        False if the signature is good but over other files.

    Raises:
        OmsError: the signature is not good, or the library cannot read it.
    """
    from model_signing import verifying

    known = known_digests("", digests)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / SIGNATURE
        file.write_bytes(signature)
        try:
            config = verifying.Config()  # type: ignore[no-untyped-call]
            if not anchor.official(config, Path(folder)):
                return True
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
