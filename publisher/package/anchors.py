"""Whom to trust, from what a command or a call was given: a key, a root and a name, or an identity."""

from __future__ import annotations

from pathlib import Path

from publisher.errors import UsageError
from publisher.package.certificates import CertificateAnchor, load_certificates
from publisher.package.dsse import Anchor
from publisher.package.keyless import KeylessAnchor, load_root


def trust(*, identity: str, root: str | Path | None = None, issuer: str | None = None) -> Anchor:
    """Return whom :func:`publisher.load` and others trust to have signed, where that is not a public key.

    With ``issuer`` it is an identity that Sigstore vouched for (keyless). Without, it is a certificate below ``root``.
    Both come from the publisher, never from the package.

    Args:
        identity: the signer's name: an address, a host name or a URI.
        root: certificates of the root in PEM; with ``issuer``, Sigstore's ``trusted_root.json``, by default that of the
            public instance.
        issuer: who vouched for the identity, such as ``https://token.actions.githubusercontent.com``.

    Raises:
        UsageError: the root cannot be read, or there is none and no issuer.
    """
    if issuer is not None:
        if root is not None:
            load_root(Path(root))
        return KeylessAnchor(identity, issuer, None if root is None else Path(root))
    if root is None:
        raise UsageError(
            "an identity alone says nothing",
            where="--identity",
            hint="Give --root with the certificate that vouches for it, or --issuer for a keyless signature.",
        )
    return CertificateAnchor(tuple(load_certificates(Path(root))), identity)
