"""Certificates: a key that a root vouches for. Root and signer's name come from elsewhere than the package."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from publisher.errors import UsageError
from publisher.package import dsse
from publisher.package.keys import CURVES, KeySigner, PublicKey, read_public

if TYPE_CHECKING:
    from cryptography.x509 import Certificate, ExtendedKeyUsage, KeyUsage
    from cryptography.x509.verification import ExtensionPolicy, Policy

MOST = 8
"""Certificates that a signature may hold."""


class CertificateFileError(UsageError):
    """A file of certificates cannot be used."""


@dataclass(frozen=True)
class CertificateAnchor:
    """A root that is trusted to name signers, and the one signer that is expected."""

    roots: tuple[Certificate, ...] = field(repr=False)
    identity: str
    """Subject alternative name of the signer's certificate: an address, a host name or a URI."""

    @property
    def hint(self) -> str:
        """Empty: the key is in the package, and the root vouches for it."""
        return ""

    def __str__(self) -> str:
        return f"a certificate of {self.identity}"

    def require(self, envelope: dsse.Envelope) -> None:
        """Make sure that a certificate of this signer, valid today and for signing code, signed the envelope."""
        leaf, *between = _chain(envelope.material)
        self.require_trusted(leaf, between)
        _key(leaf).require_signature(envelope)
        if envelope.material != material([leaf, *between]):
            raise dsse.BundleError("is not written in the one way that a publisher writes it: it was rewritten")

    def require_trusted(self, leaf: Certificate, between: list[Certificate]) -> None:
        """Make sure that the root vouches for this certificate, now, for signing, and for the one that is expected.

        Args:
            leaf: the signer's.
            between: those between it and the root, in any order.

        Raises:
            CertificateError: it does not.
            IdentityError: for another party.
        """
        from cryptography.x509 import UnsupportedGeneralNameType
        from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

        policies = _policies()
        builder = PolicyBuilder().store(Store(list(self.roots))).time(datetime.now(UTC))
        verifier = builder.extension_policies(ca_policy=policies[0], ee_policy=policies[1]).build_client_verifier()
        try:
            names = verifier.verify(leaf, between).subjects or []
        except (VerificationError, UnsupportedGeneralNameType, ValueError) as error:
            raise dsse.CertificateError(f"its certificate is not acceptable: {error}") from None
        if self.identity not in [name.value for name in names]:
            raise dsse.IdentityError(f"is signed by {_names(leaf)}, not by {self.identity}")

    def official(self, config: Any, folder: Path) -> bool:
        """Tell the library of model signing to trust this root; it looks neither at names nor at today's date."""
        from cryptography.hazmat.primitives.serialization import Encoding

        (folder / "root.pem").write_bytes(b"".join(root.public_bytes(Encoding.PEM) for root in self.roots))
        config.use_certificate_verifier(certificate_chain=[folder / "root.pem"])
        return True


@dataclass(frozen=True)
class CertifiedSigner:
    """A key with the certificates that say whose it is."""

    key: KeySigner
    chain: tuple[Certificate, ...] = field(repr=False)
    """The signer's certificate first, the root last."""

    @property
    def hint(self) -> str:
        """Empty: the key is not known beforehand to those who verify."""
        return ""

    @property
    def anchor(self) -> CertificateAnchor:
        """The chain's root, and the first name in the signer's certificate."""
        return CertificateAnchor((self.chain[-1],), _names(self.chain[0]).partition(", ")[0])

    def bundle(self, payload: bytes) -> bytes:
        """Return the signed bundle of a payload, with all certificates but the root."""
        return dsse.bundle(payload, self.key.signature(payload), material(list(self.chain[:-1])))


def certified(key: KeySigner, path: Path) -> CertifiedSigner:
    """Return a key with its certificates, after the check that those who verify will make.

    Args:
        key: signs.
        path: certificates in PEM: the signer's, those above it, the root last.

    Raises:
        CertificateFileError: they are not of this key, not valid now, or not for signing.
    """
    chain = load_certificates(path)
    if len(chain) < 2:
        raise CertificateFileError(
            "holds no chain", where=str(path), hint="Put the signer's certificate first and the root last."
        )
    if not _is_of(chain[0], key.public):
        raise CertificateFileError(
            "does not begin with a certificate of the key that signs",
            where=str(path),
            hint="Put the certificate of --key first, the root last.",
        )
    signer = CertifiedSigner(key, tuple(chain))
    try:
        signer.anchor.require_trusted(chain[0], chain[1:-1])
    except dsse.BundleError as error:
        raise CertificateFileError(str(error), where=str(path)) from None
    return signer


def load_certificates(path: Path) -> list[Certificate]:
    """Load certificates in PEM, in the file's order.

    Raises:
        CertificateFileError: there are none, or too many.
        KeyFileError: the file cannot be read.
    """
    from cryptography.x509 import load_pem_x509_certificates

    try:
        found = load_pem_x509_certificates(read_public(path))
    except ValueError:
        raise CertificateFileError("holds no certificates in PEM", where=str(path)) from None
    if len(found) > MOST:
        raise CertificateFileError(f"holds more than {MOST} certificates", where=str(path))
    return found


def material(chain: list[Certificate]) -> dict[str, Any]:
    """Return how a bundle holds certificates."""
    from cryptography.hazmat.primitives.serialization import Encoding

    raw = [{"rawBytes": base64.b64encode(one.public_bytes(Encoding.DER)).decode()} for one in chain]
    return {"x509CertificateChain": {"certificates": raw}, "tlogEntries": []}


def _chain(found: Mapping[str, Any]) -> list[Certificate]:
    from cryptography.x509 import load_der_x509_certificate

    held = found.get("x509CertificateChain")
    if held is None:
        raise dsse.CertificateError("holds no chain of certificates; it was signed in another way")
    try:
        raw = [base64.b64decode(one["rawBytes"], validate=True) for one in held["certificates"][: MOST + 1]]
        chain = [load_der_x509_certificate(one) for one in raw]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise dsse.BundleError("holds certificates that cannot be read") from None
    if not 0 < len(chain) <= MOST:
        raise dsse.BundleError(f"must hold 1 to {MOST} certificates")
    return chain


def _key(leaf: Certificate) -> PublicKey:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

    key = leaf.public_key()
    if not isinstance(key, EllipticCurvePublicKey) or key.curve.name not in CURVES:
        raise dsse.CertificateError("its certificate is for another kind of key than EC on P-256, P-384 or P-521")
    return PublicKey(key)


def _is_of(leaf: Certificate, key: PublicKey) -> bool:
    try:
        return _key(leaf).pem == key.pem
    except dsse.CertificateError:
        return False


def _names(leaf: Certificate) -> str:
    from cryptography.x509 import ExtensionNotFound, SubjectAlternativeName

    try:
        names = leaf.extensions.get_extension_for_class(SubjectAlternativeName).value
    except (ExtensionNotFound, ValueError):
        return "a certificate without names"
    return ", ".join(name.value for name in names if isinstance(name.value, str)) or "a certificate without names"


def _policies() -> tuple[ExtensionPolicy, ExtensionPolicy]:
    """Return what certificates above the signer's must hold, and the signer's: for signatures, and for signing code."""
    from cryptography.x509 import ExtendedKeyUsage, KeyUsage
    from cryptography.x509.verification import Criticality, ExtensionPolicy

    above = ExtensionPolicy.webpki_defaults_ca().may_be_present(ExtendedKeyUsage, Criticality.AGNOSTIC, None)
    leaf = ExtensionPolicy.webpki_defaults_ee().require_present(ExtendedKeyUsage, Criticality.AGNOSTIC, _signs_code)
    return above, leaf.require_present(KeyUsage, Criticality.AGNOSTIC, _signs)


def _signs_code(_policy: Policy, _certificate: Certificate, found: ExtendedKeyUsage) -> None:
    from cryptography.x509.oid import ExtendedKeyUsageOID

    if ExtendedKeyUsageOID.CODE_SIGNING not in found:
        raise ValueError("it is not for signing code (extended key usage)")


def _signs(_policy: Policy, _certificate: Certificate, found: KeyUsage) -> None:
    if not found.digital_signature or found.key_cert_sign:
        raise ValueError("it is not for signatures alone (key usage)")
