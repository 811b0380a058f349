"""Signed statements: in-toto JSON in a DSSE envelope in a Sigstore bundle v0.3 that names its key by a hint.

DSSE: the signature is over ``"DSSEv1 " len(type) " " type " " len(payload) " " payload``.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

import rfc8785

from publisher.strict_json import JsonError, strict_object

if TYPE_CHECKING:
    from publisher.package.keys import PublicKey

PAYLOAD_TYPE = "application/vnd.in-toto+json"
BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"


class BundleError(ValueError):
    """Not a bundle as we accept it; the message says why."""


class KeyHintError(BundleError):
    """The bundle names another key."""


class SignatureError(BundleError):
    """The signature does not fit."""


def canonical(statement: dict[str, Any]) -> bytes:
    """Return the statement's bytes after RFC 8785: one way to write it."""
    return rfc8785.dumps(statement)


def pae(payload: bytes) -> bytes:
    """Return what is signed: DSSE's pre-authentication encoding."""
    return b"DSSEv1 %d %b %d %b" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def bundle(payload: bytes, signature: bytes, hint: str) -> bytes:
    """Return the bundle's bytes."""
    data: dict[str, Any] = {
        "mediaType": BUNDLE_TYPE,
        "verificationMaterial": {"publicKey": {"hint": hint}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
        },
    }
    return rfc8785.dumps(data) + b"\n"


def parse(data: bytes) -> tuple[bytes, bytes, str]:
    """Take a bundle apart, believing nothing of it.

    Returns:
        Payload, signature, and the hint of the key.

    Raises:
        BundleError: it is malformed.
    """
    try:
        found = strict_object(data)
        _expect(found.get("mediaType") == BUNDLE_TYPE, "has another media type")
        material, envelope = found["verificationMaterial"], found["dsseEnvelope"]
        hint = material["publicKey"]["hint"]
        _expect(envelope["payloadType"] == PAYLOAD_TYPE, "has another payload type")
        (signature,) = envelope["signatures"]
        _expect(isinstance(hint, str) and bool(hint), "does not name its key")
        return _decode(envelope["payload"]), _decode(signature["sig"]), hint
    except (JsonError, KeyError, TypeError, AttributeError) as error:
        reason = str(error) if isinstance(error, JsonError) else "lacks a field of a bundle signed with a key"
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


def open_statement(data: bytes, key: PublicKey) -> dict[str, Any]:
    """Open the statement in a bundle, once its signature has been verified.

    A publisher writes a bundle in one way. The same statement with other white space, another key id, or the twin of
    its ECDSA signature, is refused: the digest of a signature file then means something.

    Raises:
        KeyHintError: it names another key.
        SignatureError: the signature is not of this key over these bytes.
        BundleError: bundle or statement is malformed, or not written in the one way.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA

    payload, signature, hint = parse(data)
    if hint != key.hint:
        raise KeyHintError("was made with another key")
    try:
        key.key.verify(signature, pae(payload), ECDSA(key.hash))
    except InvalidSignature:
        raise SignatureError("the signature does not fit the statement") from None
    if signature != key.low(signature):
        raise BundleError("holds the twin of the signature that its publisher makes")
    if data != bundle(payload, signature, hint):
        raise BundleError("is not written in the one way that a publisher writes it: somebody rewrote it")
    return statement(payload)


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
