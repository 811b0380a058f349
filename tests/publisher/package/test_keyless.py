"""Keyless signatures: a public bundle of Sigstore verifies without network; signing is tried with a stand-in.

``keyless/model.sig`` is test data of model-transparency (Apache-2.0), signed in 2025 and entered in the public log.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sigstore.models import Bundle

from publisher.errors import UsageError
from publisher.package import dsse, keyless
from publisher.package.anchors import trust
from publisher.package.keyless import KeylessAnchor, KeylessError, KeylessSigner
from publisher.package.verify import verify
from support.evaluating import codes

SIGNED = (Path(__file__).parent / "keyless" / "model.sig").read_bytes()
PERSON, ISSUER = "stefanb@us.ibm.com", "https://sigstore.verify.ibm.com/oauth2"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library keeps its trusted root in the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def test_a_bundle_of_the_public_log_verifies_without_network_and_without_words(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        trust(identity=PERSON, issuer=ISSUER).require(dsse.parse(SIGNED))
    assert caplog.records == []


@pytest.mark.parametrize(("identity", "issuer"), [("boss@us.ibm.com", ISSUER), (PERSON, "https://issuer.example")])
def test_another_identity_or_issuer_is_somebody_else(identity: str, issuer: str) -> None:
    with pytest.raises(dsse.IdentityError, match="is not signed by the identity"):
        trust(identity=identity, issuer=issuer).require(dsse.parse(SIGNED))


def changed(path: str, value: Any) -> bytes:
    """Return the bundle with one value replaced, at ``a.b.0.c``."""
    data = json.loads(SIGNED)
    *above, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place = data
    for part in above:
        place = place[part]
    place[last] = value
    return json.dumps(data).encode()


LOG = "verificationMaterial.tlogEntries.0"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("dsseEnvelope.payload", json.loads(SIGNED)["dsseEnvelope"]["payload"][:-8] + "IH0gIH0="),
        ("dsseEnvelope.signatures.0.sig", "MEUCIQ=="),
        (f"{LOG}.inclusionPromise.signedEntryTimestamp", "MEUCIQ=="),
        (f"{LOG}.inclusionProof.checkpoint.envelope", "rekor\n1\nAA==\n"),
        (f"{LOG}.integratedTime", "1"),
        ("verificationMaterial.tlogEntries", []),
        ("verificationMaterial.certificate.rawBytes", "AAAA"),
        ("verificationMaterial.certificate", None),
    ],
)
def test_a_changed_bundle_is_refused(path: str, value: Any) -> None:
    with pytest.raises(dsse.BundleError):
        trust(identity=PERSON, issuer=ISSUER).require(dsse.parse(changed(path, value)))


def test_a_root_of_somebody_else_or_no_root_is_refused(tmp_path: Path) -> None:
    (tmp_path / "root.json").write_text("{}")
    with pytest.raises(UsageError, match="no trusted root"):
        trust(identity=PERSON, issuer=ISSUER, root=tmp_path / "root.json")


class StandIn:
    """In place of Sigstore's servers: gives the public bundle for whatever it is asked to sign."""

    @classmethod
    def from_trust_config(cls, _config: object) -> StandIn:
        return cls()

    @contextmanager
    def signer(self, _token: object) -> Iterator[StandIn]:
        yield self

    def sign_dsse(self, _statement: object) -> Bundle:
        return Bundle.from_json(SIGNED)


@pytest.fixture
def rewritten(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The public bundle as a signer of ours writes what Sigstore gives."""
    monkeypatch.setattr(keyless, "identity_token", lambda: None)
    monkeypatch.setattr("sigstore.sign.SigningContext", StandIn)
    monkeypatch.setattr("sigstore.models.ClientTrustConfig.production", lambda offline=False: None)
    signer = KeylessSigner()
    with pytest.raises(KeylessError, match="not known"):
        _ = signer.anchor
    made = signer.bundle(dsse.parse(SIGNED).payload)
    assert signer.anchor == KeylessAnchor(PERSON, ISSUER)
    monkeypatch.undo()
    return made


def test_what_sigstore_gives_is_written_in_our_way_and_still_verifies(rewritten: bytes) -> None:
    found = dsse.open_statement(rewritten, trust(identity=PERSON, issuer=ISSUER))
    assert found["subject"][0]["name"] == "v1.1.0-sigstore"
    with pytest.raises(dsse.BundleError, match="in the one way"):
        dsse.open_statement(SIGNED, trust(identity=PERSON, issuer=ISSUER))


def test_a_package_with_a_keyless_signature_is_judged_by_identity_first(rewritten: bytes, package: Path) -> None:
    (package / "model.sig").write_bytes(rewritten)
    found = verify(package, trust(identity="boss@us.ibm.com", issuer=ISSUER))
    assert codes(found) == {"V007"}
    found = verify(package, trust(identity=PERSON, issuer=ISSUER))
    assert codes(found) == {"V008"}  # the signature is good, and signs other files than a package must
    assert found.signer == f"the identity {PERSON} of {ISSUER}"
