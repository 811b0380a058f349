"""Signed statements: in-toto JSON in a DSSE envelope in a Sigstore bundle v0.3 that says what it is verified with.

DSSE: the signature is over ``"DSSEv1 " len(type) " " type " " len(payload) " " payload``.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import rfc8785

from publisher.strict_json import JsonError, strict_object

PAYLOAD_TYPE = "application/vnd.in-toto+json"
BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"


class BundleError(ValueError):
    """Not a bundle as we accept it; the message says why."""


class KeyHintError(BundleError):
    """The bundle names another key, or none where a key was expected."""


class SignatureError(BundleError):
    """The signature does not fit."""


class CertificateError(BundleError):
    """The signer's certificate is not to be trusted."""


class IdentityError(BundleError):
    """The certificate is of another party."""


@dataclass(frozen=True)
class Envelope:
    """A bundle, taken apart; nothing of it has been verified."""

    payload: bytes
    """The statement's bytes."""
    signature: bytes
    """DER."""
    material: Mapping[str, Any]
    """``verificationMaterial``: a key's hint, a chain of certificates, or a certificate with its log entry."""
    data: bytes
    """The whole bundle."""


class Anchor(Protocol):
    """Who may have signed; it comes from elsewhere than the package. Its text says who that is, for a person."""

    @property
    def hint(self) -> str:
        """sha256 of the public key in PEM; empty: the key is not known beforehand."""

    def require(self, envelope: Envelope) -> None:
        """Make sure that it signed this envelope.

        Raises:
            BundleError: it did not; the kind says why.
        """

    def official(self, config: Any, folder: Path) -> bool:
        """Tell a ``model_signing.verifying.Config`` whom to trust; False: it would need a network.

        Args:
            config: of the library.
            folder: for files that it reads.
        """


class Signer(Protocol):
    """Who signs: a key in a file, a variable or a token, with certificates or without; or an identity."""

    @property
    def hint(self) -> str:
        """sha256 of the public key in PEM; empty: it signs with certificates."""

    @property
    def anchor(self) -> Anchor:
        """What its signatures verify with; of an identity known once it has signed."""

    def bundle(self, payload: bytes) -> bytes:
        """Return the signed bundle of a payload.

        Raises:
            PublisherError: it cannot sign.
        """


def canonical(statement: dict[str, Any]) -> bytes:
    """Return the statement's bytes after RFC 8785: one way to write it."""
    return rfc8785.dumps(statement)


def pae(payload: bytes) -> bytes:
    """Return what is signed: DSSE's pre-authentication encoding."""
    return b"DSSEv1 %d %b %d %b" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def bundle(payload: bytes, signature: bytes, material: Mapping[str, Any]) -> bytes:
    """Return the bundle's bytes.

    Args:
        payload: what was signed.
        signature: over :func:`pae` of it.
        material: what the signature is verified with: ``verificationMaterial`` of a Sigstore bundle.
    """
    data: dict[str, Any] = {
        "mediaType": BUNDLE_TYPE,
        "verificationMaterial": dict(material),
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
        },
    }
    return rfc8785.dumps(data) + b"\n"


def parse(data: bytes) -> Envelope:
    """Take a bundle apart, believing nothing of it.

    Raises:
        BundleError: it is malformed.
    """
    try:
        found = strict_object(data)
        _expect(found.get("mediaType") == BUNDLE_TYPE, "has another media type")
        material, envelope = found["verificationMaterial"], found["dsseEnvelope"]
        _expect(isinstance(material, dict), "does not say what it is verified with")
        _expect(envelope["payloadType"] == PAYLOAD_TYPE, "has another payload type")
        (signature,) = envelope["signatures"]
        return Envelope(_decode(envelope["payload"]), _decode(signature["sig"]), material, data)
    except (JsonError, KeyError, TypeError, AttributeError) as error:
        reason = str(error) if isinstance(error, JsonError) else "lacks a field of a signed bundle"
        raise BundleError(reason) from None
    except BundleError:
        raise
    except ValueError:
        raise BundleError("must have exactly one signature, in base64") from None


def _expect(condition: bool, message: str) -> None:  # noqa: FBT001
    if not condition:
        raise BundleError(message)


def _decode(text: Any) -> bytes:
    if not isinstance(text, str):
        raise TypeError(text)
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise BundleError("is not base64") from None


def open_statement(data: bytes, anchor: Anchor) -> dict[str, Any]:
    """Open the statement in a bundle, once its signature has been verified.

    A publisher writes a bundle in one way. The same statement with other white space, another key id, or the twin of
    its ECDSA signature, is refused: the digest of a signature file then means something.

    Raises:
        KeyHintError: it was signed with another key, or in another way.
        SignatureError: the signature does not fit these bytes.
        CertificateError: its certificate is not to be trusted.
        IdentityError: another party signed it.
        BundleError: bundle or statement is malformed, or not written in the one way.
    """
    found = parse(data)
    anchor.require(found)
    if data != bundle(found.payload, found.signature, found.material):
        raise BundleError("is not written in the one way that a publisher writes it: it was rewritten")
    return statement(found.payload)


def statement(payload: bytes) -> dict[str, Any]:
    """Read an in-toto statement from its bytes; its signature is not looked at.

    Raises:
        BundleError: it is none.
    """
    try:
        found = strict_object(payload)
    except JsonError as error:
        raise BundleError(f"statement {error}") from None
    if found.get("_type") != STATEMENT_TYPE or not isinstance(found.get("predicate"), dict):
        raise BundleError("is no in-toto statement v1")
    return found
