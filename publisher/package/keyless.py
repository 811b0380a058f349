"""Keyless signatures of Sigstore: an identity signs with a key of minutes, and a public log keeps what it signed.

Signing asks Sigstore's servers. Verification needs no network: the log's promise is in the bundle.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from publisher.errors import PrerequisiteError, PublisherError, UsageError
from publisher.package import dsse
from publisher.package.keys import read_public

if TYPE_CHECKING:
    from cryptography.x509 import Certificate
    from sigstore.models import Bundle, TrustedRoot
    from sigstore.oidc import IdentityToken

TOKEN = "SIGSTORE_IDENTITY_TOKEN"  # noqa: S105 - the variable's name
"""Variable that holds an identity token, as for the sigstore command; without it the CI system's own is asked for."""
ISSUER = "1.3.6.1.4.1.57264.1.8"
"""Extension of Sigstore's certificates that says who vouched for the identity."""


class KeylessError(PublisherError):
    """Sigstore did not sign."""


@dataclass(frozen=True)
class KeylessAnchor:
    """An identity, and who vouched for it."""

    identity: str
    issuer: str
    root: Path | None = None
    """Sigstore's ``trusted_root.json``; None: of the public instance, as its library carries or last fetched it."""

    @property
    def hint(self) -> str:
        """Empty: the key lived for minutes."""
        return ""

    def __str__(self) -> str:
        return f"the identity {self.identity} of {self.issuer}"

    def require(self, envelope: dsse.Envelope) -> None:
        """Make sure that this identity signed the envelope, and that the log has it. Nothing is asked on a network."""
        from sigstore.errors import Error
        from sigstore.models import Bundle, InvalidBundle
        from sigstore.verify import Verifier

        if "certificate" not in envelope.material:
            raise dsse.CertificateError("was not signed by an identity, but with a key or a chain of certificates")
        try:
            found = Bundle.from_json(envelope.data)
        except (InvalidBundle, ValueError) as error:
            raise dsse.BundleError(f"is no bundle of Sigstore: {error}") from None
        try:
            kind, payload = Verifier(trusted_root=self._trusted()).verify_dsse(found, _Expected(self))
        except dsse.BundleError:
            raise
        except (Error, ValueError) as error:
            raise dsse.CertificateError(f"Sigstore's library refuses it: {error}") from None
        if (kind, payload) != (dsse.PAYLOAD_TYPE, envelope.payload):
            raise dsse.BundleError("holds another payload than was signed")

    def _trusted(self) -> TrustedRoot:
        from sigstore.models import ClientTrustConfig

        if self.root is not None:
            return load_root(self.root)
        try:
            with _quiet():
                return ClientTrustConfig.production(offline=True).trusted_root
        except OSError as error:
            raise PrerequisiteError(
                f"Sigstore's library cannot keep its trusted root in the user's cache: {error.strerror}",
                hint="Give a trusted_root.json with --root.",
            ) from error

    def official(self, config: Any, folder: Path) -> bool:  # noqa: ARG002
        """Say that the library of model signing would need a network."""
        return False


def load_root(path: Path) -> TrustedRoot:
    """Load a trusted root of Sigstore.

    Raises:
        UsageError: it is none.
    """
    from sigstore.models import TrustedRoot
    from sigstore_models.trustroot import v1

    try:
        return TrustedRoot(v1.TrustedRoot.from_json(read_public(path)))
    except ValueError:
        raise UsageError("is no trusted root of Sigstore in JSON", where=str(path)) from None


class _Expected:
    """Tells Sigstore's verifier whom to expect; another identity is an error of our own."""

    def __init__(self, anchor: KeylessAnchor) -> None:
        self._anchor = anchor

    def verify(self, cert: Certificate) -> None:
        """Make sure that the certificate names the identity and its issuer."""
        from sigstore.errors import VerificationError
        from sigstore.verify.policy import Identity

        try:
            Identity(identity=self._anchor.identity, issuer=self._anchor.issuer).verify(cert)
        except VerificationError as error:
            raise dsse.IdentityError(f"is not signed by {self._anchor}: {error}") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library from warning that it asks no network: that is what is wanted."""
    logger = logging.getLogger("sigstore._internal.tuf")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


@dataclass
class KeylessSigner:
    """The identity of this CI job, or of a token in a variable. Each signature is an entry in a public log."""

    signed: list[KeylessAnchor] = field(default_factory=list)
    """Who signed so far, by the certificates that came back."""

    @property
    def hint(self) -> str:
        """Empty: keys live for minutes."""
        return ""

    @property
    def anchor(self) -> KeylessAnchor:
        """The identity that signed last.

        Raises:
            KeylessError: nothing was signed yet.
        """
        if not self.signed:
            raise KeylessError("nothing was signed yet, so the identity is not known")
        return self.signed[-1]

    def bundle(self, payload: bytes) -> bytes:
        """Return the signed bundle of a payload, written as all other bundles are. This asks Sigstore's servers."""
        from sigstore.dsse import Statement
        from sigstore.errors import Error
        from sigstore.models import ClientTrustConfig
        from sigstore.sign import SigningContext

        token = identity_token()
        try:
            context = SigningContext.from_trust_config(ClientTrustConfig.production())
            with context.signer(token) as signer:
                made = signer.sign_dsse(Statement(payload))
        except (Error, OSError) as error:
            raise KeylessError(f"Sigstore did not sign: {type(error).__name__}", where="--key sigstore") from error
        self.signed.append(identity_of(made))
        found = dsse.parse(made.to_json().encode())
        return dsse.bundle(found.payload, found.signature, found.material)


def identity_token() -> IdentityToken:
    """Return a token that says who signs; it is never shown.

    Raises:
        PrerequisiteError: there is none, or it has expired.
    """
    from sigstore.errors import Error
    from sigstore.oidc import IdentityToken, detect_credential

    try:
        text = os.environ.get(TOKEN) or detect_credential()
        if text:
            return IdentityToken(text)
    except Error as error:
        what = f"the identity token cannot be used: {type(error).__name__}"
        raise PrerequisiteError(
            what, where="--key sigstore", hint="Ask for another one; it lives for minutes."
        ) from None
    raise PrerequisiteError(
        "there is no identity to sign with",
        where="--key sigstore",
        hint=f"Run it in a CI job that may ask for identity tokens (GitHub: id-token: write), or set {TOKEN}.",
    )


def identity_of(made: Bundle) -> KeylessAnchor:
    """Return whom a bundle's certificate names. It is not verified here."""
    from cryptography.x509 import ObjectIdentifier, SubjectAlternativeName

    extensions = made.signing_certificate.extensions
    name = next(iter(extensions.get_extension_for_class(SubjectAlternativeName).value))
    raw: bytes = extensions.get_extension_for_oid(ObjectIdentifier(ISSUER)).value.public_bytes()
    return KeylessAnchor(str(name.value), raw[2:].decode())
