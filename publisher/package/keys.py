"""EC key pairs: made, loaded with care, and what they do: sign, and verify.

Only here is a private key used that is in this process's memory.
"""

from __future__ import annotations

import hashlib
import os
import stat
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from publisher.errors import UsageError
from publisher.package import dsse
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

    @property
    def material(self) -> dict[str, Any]:
        """How a bundle names this key."""
        return {"publicKey": {"hint": self.hint}, "tlogEntries": []}

    def __str__(self) -> str:
        return f"the key {self.hint[:16]}"

    def require(self, envelope: dsse.Envelope) -> None:
        """Make sure that this key signed the envelope, and that the envelope names it."""
        named = envelope.material.get("publicKey")
        if envelope.material.keys() & {"certificate", "x509CertificateChain"}:
            raise dsse.KeyHintError("was not made with a key, but with a certificate")
        hint = named.get("hint") if isinstance(named, dict) else None
        if not hint or not isinstance(hint, str):
            raise dsse.BundleError("does not name its key")
        if hint != self.hint:
            raise dsse.KeyHintError("was made with another key")
        self.require_signature(envelope)
        if envelope.material != self.material:
            raise dsse.BundleError("is not written in the one way that a publisher writes it: it was rewritten")

    def require_signature(self, envelope: dsse.Envelope) -> None:
        """Make sure that the signature is of this key over the payload, and the lower one of two.

        Raises:
            SignatureError: it is not.
            BundleError: it is the other one.
        """
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA

        try:
            self.key.verify(envelope.signature, dsse.pae(envelope.payload), ECDSA(self.hash))
        except InvalidSignature:
            raise dsse.SignatureError("the signature does not fit the statement") from None
        if envelope.signature != self.low(envelope.signature):
            raise dsse.BundleError("holds the twin of the signature that its publisher makes")

    def official(self, config: Any, folder: Path) -> bool:
        """Tell the library of model signing to trust this key."""
        (folder / "key.pub").write_bytes(self.pem)
        config.use_elliptic_key_verifier(public_key=folder / "key.pub")
        return True


class KeySigner(ABC):
    """What signs with one EC key, wherever that is."""

    @property
    @abstractmethod
    def public(self) -> PublicKey:
        """Its public half."""

    @abstractmethod
    def sign(self, pae: bytes) -> bytes:
        """Return a signature in DER over these bytes, by the hash that fits the key's curve."""

    @property
    def hint(self) -> str:
        """sha256 of the public half in PEM."""
        return self.public.hint

    @property
    def anchor(self) -> dsse.Anchor:
        """The public half."""
        return self.public

    def bundle(self, payload: bytes) -> bytes:
        """Return the signed bundle of a payload, which names the key."""
        return dsse.bundle(payload, self.signature(payload), self.public.material)

    def signature(self, payload: bytes) -> bytes:
        """Return the one signature of a payload that is accepted, in DER."""
        return self.public.low(self.sign(dsse.pae(payload)))


@dataclass(frozen=True)
class PrivateKey(KeySigner):
    """A signing key in memory; does not show itself when printed. Equal payloads give equal signatures (RFC 6979)."""

    path: Path | None
    """Where it lies; None: in a variable of the environment."""
    key: EllipticCurvePrivateKey = field(repr=False)

    @property
    def public(self) -> PublicKey:
        """Its other half."""
        return PublicKey(self.key.public_key())

    def sign(self, pae: bytes) -> bytes:
        """Return a signature in DER."""
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA

        return self.key.sign(pae, ECDSA(self.public.hash, deterministic_signing=True))


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
    return PrivateKey(path, parse_private(_read(path, private=True), passphrase, str(path)))


def parse_private(pem: bytes, passphrase: bytes | None, where: str) -> EllipticCurvePrivateKey:
    """Parse a signing key.

    Args:
        pem: PKCS8 or SEC1 in PEM.
        passphrase: None or empty: it is not encrypted.
        where: it comes from, for messages; never the key itself.

    Raises:
        KeyFileError: not a key, or not this passphrase.
        WeakKeyError: not an EC key on P-256, P-384 or P-521.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem, passphrase or None)
    except TypeError:
        what = "is not encrypted, but there is a passphrase" if passphrase else "is encrypted"
        hint = "" if passphrase else "Name the environment variable that holds its passphrase."
        raise KeyFileError(what, where=where, hint=hint) from None
    except (ValueError, UnsupportedAlgorithm):
        raise KeyFileError(
            "is no private key in PEM, or the passphrase is wrong",
            where=where,
            hint=f"Make a key pair with: {command('keygen --out DIR')}",
        ) from None
    if not isinstance(key, EllipticCurvePrivateKey) or key.curve.name not in CURVES:
        raise weak(where)
    return key


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
        raise weak(str(path)) from None
    except ValueError:
        raise KeyFileError("is no public key in PEM", where=str(path)) from None
    if not isinstance(key, EllipticCurvePublicKey) or key.curve.name not in CURVES:
        raise weak(str(path))
    return PublicKey(key)


def weak(where: str) -> WeakKeyError:
    """Return the error of a key that is not accepted, which comes from there."""
    return WeakKeyError(
        "is not an EC key on P-256, P-384 or P-521",
        where=where,
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


def read_public(path: Path) -> bytes:
    """Read a small file of trust anchors.

    Raises:
        KeyFileError: it cannot be opened, or is too large.
    """
    return _read(path, private=False)
