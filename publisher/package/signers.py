"""Who signs, by what ``--key`` says: a file, a variable of the environment, a token, or this job's identity."""

from __future__ import annotations

import os
from pathlib import Path

from publisher.errors import UsageError
from publisher.package.certificates import certified
from publisher.package.dsse import Signer
from publisher.package.keyless import KeylessSigner, identity_token
from publisher.package.keys import KeySigner, PrivateKey, load_private, parse_private
from publisher.package.tokens import SCHEME, token_key

VARIABLE = "env:"
KEYLESS = "sigstore"


def signer(text: str, secret: bytes | None, chain: Path | None = None) -> Signer:
    """Return who signs; whatever can be tried now is tried.

    Args:
        text: path of a private key in PEM, ``env:NAME`` of a variable that holds one, a ``pkcs11:`` URI, ``sigstore``.
        secret: the key's passphrase, or the token's PIN.
        chain: certificates of the key in PEM, the signer's first, the root last.

    Raises:
        PublisherError: it cannot sign; nothing of a key, a URI or a PIN is in the message.
    """
    if text == KEYLESS:
        if chain or secret:
            raise UsageError("'sigstore' signs with neither a passphrase nor certificates", where="--key")
        identity_token()
        return KeylessSigner()
    key = _key(text, secret)
    return certified(key, chain) if chain else key


def _key(text: str, secret: bytes | None) -> KeySigner:
    if text.startswith(SCHEME):
        return token_key(text, secret)
    if text.startswith(VARIABLE):
        where = "the variable that --key env: names"
        pem = os.environ.get(text.removeprefix(VARIABLE), "")
        if not pem:
            raise UsageError("is not set", where=where, hint="Export the private key in PEM, and write env:NAME.")
        return PrivateKey(None, parse_private(pem.encode(), secret, where))
    return load_private(Path(text), secret)
