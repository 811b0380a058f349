"""Keys in hardware: an EC key in a PKCS#11 token, named by a URI (RFC 7512). The key never leaves the token."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

from publisher.errors import PrerequisiteError, PublisherError, UsageError
from publisher.package.keys import CURVES, KeySigner, PublicKey, weak

SCHEME = "pkcs11:"
TOKEN = {"token": "token_label", "serial": "token_serial"}
"""Attribute of a URI that names the token -> what the library calls it."""
ATTRIBUTES = (*TOKEN, "object", "id", "type")
WHERE = "--key"
EXAMPLE = "pkcs11:token=NAME;object=KEY?module-path=/usr/lib/softhsm/libsofthsm2.so"


class TokenError(PublisherError):
    """A token cannot be reached, or does not sign."""


@dataclass(frozen=True)
class TokenUri:
    """A key in a token, and the library that talks to it."""

    module: str
    """Path of the PKCS#11 library."""
    token: Mapping[str, str | bytes]
    """What names the token, in the library's words."""
    label: str | None
    id: bytes | None

    @classmethod
    def parse(cls, text: str) -> TokenUri:
        """Parse a URI. Nothing of it is shown in an error: it could hold a PIN.

        Raises:
            UsageError: it does not name one key and one library, or holds a PIN.
        """
        path, _, query = text.removeprefix(SCHEME).partition("?")
        named, asked = _pairs(path, ";", ATTRIBUTES), _pairs(query, "&", ("module-path",))
        if unquote(named.get("type", "private")) != "private":
            raise _bad("must name a private key: leave 'type' out")
        if "module-path" not in asked:
            raise _bad("does not say which library talks to the token: ?module-path=FILE is missing")
        if not named.keys() & TOKEN or not named.keys() & {"object", "id"}:
            raise _bad("must name the token (token or serial) and the key (object or id)")
        token: dict[str, str | bytes] = {}
        if "token" in named:
            token[TOKEN["token"]] = unquote(named["token"])
        if "serial" in named:
            token[TOKEN["serial"]] = unquote_to_bytes(named["serial"])
        label = unquote(named["object"]) if "object" in named else None
        key = unquote_to_bytes(named["id"]) if "id" in named else None
        return cls(unquote(asked["module-path"]), token, label, key)


def _pairs(text: str, between: str, known: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in filter(None, text.split(between)):
        name, equals, value = part.partition("=")
        if name in ("pin-value", "pin-source"):
            raise UsageError(
                f"holds {name}, and a command line can be read by others",
                where=WHERE,
                hint="Put the PIN into a variable of the environment, and name that with --passphrase-env.",
            )
        if not equals or name not in known or name in found:
            raise _bad(f"has an attribute that is not known or stands twice; known: {', '.join(known)}")
        found[name] = value
    return found


def _bad(what: str) -> UsageError:
    return UsageError(f"the PKCS#11 URI {what}", where=WHERE, hint=f"Write it like {EXAMPLE}")


@dataclass(frozen=True)
class TokenKey(KeySigner):
    """A key in a token. Each signature is a session of its own: a release may take longer than a token stays open."""

    uri: TokenUri
    pin: bytes | None = field(repr=False)
    half: PublicKey = field(repr=False)

    @property
    def public(self) -> PublicKey:
        """The public half, as the token gave it."""
        return self.half

    def sign(self, pae: bytes) -> bytes:
        """Return a signature in DER: the digest is made here, the rest by the token. Two signatures differ."""
        from pkcs11 import Mechanism
        from pkcs11.util.ec import encode_ecdsa_signature

        digest = hashlib.new(self.half.hash.name, pae).digest()
        with _session(self.uri, self.pin) as get:
            signature: bytes = encode_ecdsa_signature(get("PRIVATE_KEY").sign(digest, mechanism=Mechanism.ECDSA))
        return signature


def token_key(text: str, pin: bytes | None) -> TokenKey:
    """Find a key in a token, and try the PIN.

    Args:
        text: URI after RFC 7512.
        pin: the user's; None: the token asks for it on its own keys, or needs none.

    Raises:
        UsageError: the URI names no key that is there.
        WeakKeyError: not an EC key on P-256, P-384 or P-521.
        PrerequisiteError: python-pkcs11 or the token's library is not there.
        TokenError: the token refuses.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    uri = TokenUri.parse(text)
    with _session(uri, pin) as get:
        from pkcs11.util.ec import encode_ec_public_key

        get("PRIVATE_KEY")
        try:
            key = load_der_public_key(encode_ec_public_key(get("PUBLIC_KEY")))
        except (ValueError, UnsupportedAlgorithm, KeyError):
            raise weak(WHERE) from None
    if not isinstance(key, EllipticCurvePublicKey) or key.curve.name not in CURVES:
        raise weak(WHERE)
    return TokenKey(uri, pin, PublicKey(key))


@contextmanager
def _session(uri: TokenUri, pin: bytes | None) -> Iterator[Callable[[str], Any]]:
    """Open the token, and yield what finds a key of a class in it. No message holds anything of the PIN."""
    try:
        import pkcs11
    except ImportError:
        raise PrerequisiteError(
            "keys in tokens need python-pkcs11, which is not installed",
            where=WHERE,
            hint="Install it with: pip install 'model-publisher[pkcs11]'",
        ) from None
    try:
        token = _library(uri.module).get_token(**uri.token)
        with token.open(user_pin=pin.decode() if pin else None) as session:

            def get(kind: str) -> Any:
                return session.get_key(object_class=pkcs11.ObjectClass[kind], label=uri.label, id=uri.id)

            yield get
    except pkcs11.exceptions.PKCS11Error as error:
        raise _refused(type(error).__name__) from None


def _library(path: str) -> Any:
    import pkcs11

    try:
        return pkcs11.lib(path)
    except (RuntimeError, OSError):
        raise PrerequisiteError(
            "the token's library cannot be loaded", where=WHERE, hint="Look at module-path in the URI."
        ) from None


REASONS = {
    "NoSuchToken": "no token has that name",
    "MultipleTokensReturned": "several tokens have that name: add serial=",
    "NoSuchKey": "the token has no such key, or does not show it without a PIN: give one with --passphrase-env",
    "MultipleObjectsReturned": "several keys have that name: add id=",
    "PinIncorrect": "the token refuses the PIN that --passphrase-env names",
    "PinInvalid": "the token refuses the PIN that --passphrase-env names",
    "PinLenRange": "the token refuses the PIN that --passphrase-env names",
    "PinLocked": "the token is locked after too many wrong PINs",
    "UserNotLoggedIn": "the token wants a PIN: give one with --passphrase-env",
}


def _refused(kind: str) -> PublisherError:
    if kind in REASONS:
        return UsageError(REASONS[kind], where=WHERE)
    return TokenError(f"the token does not answer as it should: {kind}", where=WHERE, hint="Look at the token's log.")
