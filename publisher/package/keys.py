"""EC key pairs: made, and loaded with care. What is done with a private key is in :mod:`publisher.package.sign`."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.errors import UsageError
from publisher.program import command

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.hashes import HashAlgorithm

CURVES = {
    "secp256r1": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "secp384r1": int("F" * 48 + "C7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973", 16),
    "secp521r1": int("1" + "F" * 65 + "A51868783BF2F966B7FCC0148F709A5D03BB5C9B8899C47AEBB6FB71E91386409", 16),
}
"""Curve -> order of its group."""
MAX_KEY_BYTES = 64 * 1024


class KeyFileError(UsageError):
    """A key file cannot be used."""


class WeakKeyError(KeyFileError):
    """The key is of a kind or curve that is not accepted."""


@dataclass(frozen=True)
class PublicKey:
    """A trust anchor."""

    key: EllipticCurvePublicKey

    @property
    def pem(self) -> bytes:
        """SubjectPublicKeyInfo as PEM."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        return self.key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    @property
    def hint(self) -> str:
        """sha256 of the PEM: how a signature names its key."""
        return hashlib.sha256(self.pem).hexdigest()

    @property
    def hash(self) -> HashAlgorithm:
        """The hash that fits the curve."""
        from cryptography.hazmat.primitives import hashes

        fitting: dict[int, HashAlgorithm] = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}
        return fitting[self.key.curve.key_size]

    def low(self, signature: bytes) -> bytes:
        """Return the smaller one of the two signatures that are equally good: (r, s) and (r, order - s).

        Raises:
            ValueError: these are no two numbers in DER.
        """
        from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

        r, s = decode_dss_signature(signature)
        return encode_dss_signature(r, min(s, CURVES[self.key.curve.name] - s))


@dataclass(frozen=True)
class PrivateKey:
    """A signing key; shows neither itself nor its passphrase when printed."""

    path: Path
    key: EllipticCurvePrivateKey = field(repr=False)
    passphrase: bytes | None = field(repr=False, default=None)

    @property
    def public(self) -> PublicKey:
        """Its other half."""
        return PublicKey(self.key.public_key())


def generate(private: Path, public: Path, passphrase: bytes | None) -> None:
    """Make a P-256 key pair.

    Args:
        private: PKCS8 PEM, mode 0600, encrypted if there is a passphrase.
        public: SubjectPublicKeyInfo PEM, mode 0644.
        passphrase: None or empty: not encrypted.

    Raises:
        KeyFileError: a file is there already (nothing is overwritten), or cannot be written.
    """
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    key = ec.generate_private_key(ec.SECP256R1())
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    for path in (private, public):
        if os.path.lexists(path):
            raise KeyFileError("is there already", where=str(path), hint="Give another --name or --out; keys are kept.")
    _create(private, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption), 0o600)
    try:
        _create(public, PublicKey(key.public_key()).pem, 0o644)
    except KeyFileError:
        private.unlink()
        raise


def _create(path: Path, data: bytes, mode: int) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise KeyFileError(f"cannot be written: {error.strerror}", where=str(path)) from error


def load_private(path: Path, passphrase: bytes | None = None) -> PrivateKey:
    """Load a signing key.

    Raises:
        KeyFileError: not a regular file of its owner alone, not a key, or not this passphrase.
        WeakKeyError: not an EC key on P-256, P-384 or P-521.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    pem = _read(path, private=True)
    try:
        key = load_pem_private_key(pem, passphrase or None)
    except TypeError:
        what = "is not encrypted, but there is a passphrase" if passphrase else "is encrypted"
        hint = "" if passphrase else "Name the environment variable that holds its passphrase."
        raise KeyFileError(what, where=str(path), hint=hint) from None
    except (ValueError, UnsupportedAlgorithm):
        raise KeyFileError(
            "is no private key in PEM, or the passphrase is wrong",
            where=str(path),
            hint=f"Make a key pair with: {command('keygen --out DIR')}",
        ) from None
    if not isinstance(key, EllipticCurvePrivateKey) or key.curve.name not in CURVES:
        raise _weak(path)
    return PrivateKey(path, key, passphrase or None)


def load_public(path: Path) -> PublicKey:
    """Load a trust anchor.

    Raises:
        KeyFileError: not there, or no public key in PEM.
        WeakKeyError: not an EC key on P-256, P-384 or P-521.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    pem = _read(path, private=False)
    if b"PRIVATE KEY" in pem:
        raise KeyFileError("is a private key", where=str(path), hint="Give the public half, which ends in .pub.")
    try:
        key = load_pem_public_key(pem)
    except UnsupportedAlgorithm:
        raise _weak(path) from None
    except ValueError:
        raise KeyFileError("is no public key in PEM", where=str(path)) from None
    if not isinstance(key, EllipticCurvePublicKey) or key.curve.name not in CURVES:
        raise _weak(path)
    return PublicKey(key)


def _weak(path: Path) -> WeakKeyError:
    return WeakKeyError(
        "is not an EC key on P-256, P-384 or P-521",
        where=str(path),
        hint=f"Make a key pair with: {command('keygen --out DIR')}",
    )


def _read(path: Path, *, private: bool) -> bytes:
    flags = os.O_RDONLY | os.O_NONBLOCK | (os.O_NOFOLLOW if private else 0)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        link = " (a private key must not be a link)" if private and path.is_symlink() else ""
        raise KeyFileError(f"cannot be opened: {error.strerror}{link}", where=str(path)) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise KeyFileError("is not a regular file", where=str(path))
        if private and status.st_mode & 0o077:
            raise KeyFileError(
                "can be read or changed by others", where=str(path), hint=f"Close it with: chmod 600 {path}"
            )
        data = os.read(descriptor, MAX_KEY_BYTES + 1)
    except OSError as error:
        raise KeyFileError(f"cannot be read: {error.strerror}", where=str(path)) from error
    finally:
        os.close(descriptor)
    if len(data) > MAX_KEY_BYTES:
        raise KeyFileError("is too large for a key", where=str(path))
    return data
