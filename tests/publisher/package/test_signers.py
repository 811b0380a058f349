"""Whatever signs, a package verifies by one way; keys, PINs and URIs are in no message."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from publisher.cli import main
from publisher.cli.release import _trust
from publisher.errors import PrerequisiteError, PublisherError, UsageError
from publisher.loading import verified
from publisher.package import dsse, keys, oms, sign
from publisher.package.anchors import trust
from publisher.package.certificates import CertificateFileError, CertifiedSigner, certified
from publisher.package.keyless import KeylessAnchor, KeylessSigner
from publisher.package.signers import signer
from publisher.package.tokens import TokenUri
from publisher.package.verify import verify
from support.evaluating import codes
from support.packages import CREATED, build_unsigned

PERSON = "release@acme.example"
HSM = Path("/usr/lib/softhsm/libsofthsm2.so")
NO_HSM = "SoftHSM is not installed (apt-get install softhsm2), or python-pkcs11 is not"


def made(folder: Path, model: dict[str, Path], who: dsse.Signer) -> Path:
    build_unsigned(folder, model)
    sign.sign(folder, who, created=CREATED)
    return folder


def test_the_model_signature_says_what_the_library_of_model_signing_would_write(
    tmp_path: Path, key_pair: tuple[Path, Path]
) -> None:
    from model_signing import signing

    digests = {"b": "0" * 64, "a_b/c": "1" * 64, "a/b": "2" * 64, "B": "3" * 64, "c.txt": "4" * 64}
    config = signing.Config()  # type: ignore[no-untyped-call]
    config.set_hashing_config(oms.known_digests("tiny-1.2.0", digests))
    config.use_elliptic_key_signer(private_key=key_pair[0])
    config.sign(tmp_path, tmp_path / "model.sig")
    theirs = dsse.parse((tmp_path / "model.sig").read_bytes())
    ours = dsse.parse(sign._sign_model("tiny-1.2.0", digests, keys.load_private(key_pair[0])))
    assert dsse.statement(ours.payload) == dsse.statement(theirs.payload)
    assert ours.material == theirs.material
    keys.load_public(key_pair[1]).key.verify(theirs.signature, dsse.pae(theirs.payload), ec.ECDSA(hashes.SHA256()))


def test_files_are_listed_by_code_point_as_the_specification_has_it() -> None:
    """The library sorts by folder, which differs where a name goes on with a character before the slash."""
    found = oms.statement("tiny", {"a/b": "1" * 64, "a-b/c": "0" * 64})
    assert [entry["name"] for entry in found["predicate"]["resources"]] == ["a-b/c", "a/b"]


def test_a_key_in_a_variable_signs_the_same_bytes_as_its_file(
    tmp_path: Path,
    model: dict[str, Path],
    key_pair: tuple[Path, Path],
    signed: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SIGNING_KEY", key_pair[0].read_text())
    folder = made(tmp_path / "p", model, signer("env:SIGNING_KEY", None))
    assert (folder / "model.sig").read_bytes() == (signed / "model.sig").read_bytes()


@pytest.mark.parametrize("text", ["env:NOT_SET_HERE", "env:", "env:-----BEGIN PRIVATE KEY-----\nMIGH"])
def test_a_variable_without_a_key_is_an_error_that_shows_nothing(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError) as found:
        signer(text, None)
    assert "PRIVATE" not in str(found.value)
    monkeypatch.setenv("SIGNING_KEY", "hunter2-hunter2")
    with pytest.raises(UsageError, match="no private key in PEM") as found:
        signer("env:SIGNING_KEY", None)
    assert "hunter2" not in str(found.value)


def test_without_an_identity_sigstore_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("ACTIONS_", "GITHUB_", "SIGSTORE_", "GITLAB", "CIRCLE", "BUILDKITE", "GOOGLE_")):
            monkeypatch.delenv(name)
    monkeypatch.setattr("sigstore.oidc.detect_credential", lambda *_args: None)
    with pytest.raises(PrerequisiteError, match="no identity to sign with"):
        signer("sigstore", None)
    monkeypatch.setenv("SIGSTORE_IDENTITY_TOKEN", "eyJhbGciOi.hunter2.x")
    with pytest.raises(PrerequisiteError, match="cannot be used") as found:
        signer("sigstore", None)
    assert "hunter2" not in str(found.value)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("pkcs11:token=t;object=k?module-path=/x.so&pin-value=1234", "holds pin-value"),
        ("pkcs11:token=t;object=k;pin-source=1234?module-path=/x.so", "holds pin-source"),
        ("pkcs11:token=t;object=k", "module-path"),
        ("pkcs11:token=t?module-path=/x.so", "name the token"),
        ("pkcs11:object=k?module-path=/x.so", "name the token"),
        ("pkcs11:token=t;object=k;colour=1234?module-path=/x.so", "not known"),
        ("pkcs11:token=t;object=k;token=1234?module-path=/x.so", "stands twice"),
        ("pkcs11:token=t;object=k;type=public?module-path=/x.so", "private key"),
    ],
)
def test_a_uri_that_names_no_key_says_why_and_shows_nothing(uri: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as found:
        TokenUri.parse(uri)
    assert "1234" not in str(found.value)


def test_a_uri_is_read_by_the_rules_of_its_standard() -> None:
    found = TokenUri.parse("pkcs11:token=My%20HSM;serial=0a;object=a%3Bb;id=%01%ff;type=private?module-path=/lib/x.so")
    assert found == TokenUri("/lib/x.so", {"token_label": "My HSM", "token_serial": b"0a"}, "a;b", b"\x01\xff")


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A software token with a P-256 key; the PIN is 1234."""
    if not HSM.exists() or shutil.which("softhsm2-util") is None:
        pytest.skip(NO_HSM)
    pkcs11 = pytest.importorskip("pkcs11", reason=NO_HSM)
    folder = tmp_path_factory.mktemp("hsm")
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder / 'tokens'}\nlog.level = ERROR\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTHSM2_CONF", str(folder / "softhsm2.conf"))
        command = ["softhsm2-util", "--init-token", "--free", "--label", "release", "--pin", "1234", "--so-pin", "5678"]
        subprocess.run(command, check=True, capture_output=True)
        with pkcs11.lib(str(HSM)).get_token(token_label="release").open(user_pin="1234", rw=True) as session:
            curve = pkcs11.util.ec.encode_named_curve_parameters("secp256r1")
            parameters = session.create_domain_parameters(
                pkcs11.KeyType.EC, {pkcs11.Attribute.EC_PARAMS: curve}, local=True
            )
            parameters.generate_keypair(store=True, label="signer")
        yield f"pkcs11:token=release;object=signer?module-path={HSM}"


def test_a_key_in_a_token_signs_and_the_official_client_accepts_it(
    token: str, tmp_path: Path, model: dict[str, Path]
) -> None:
    who = signer(token, b"1234")
    folder = made(tmp_path / "p", model, who)
    assert verify(folder, who.anchor).ok
    assert isinstance(who.anchor, keys.PublicKey)
    (tmp_path / "k.pub").write_bytes(who.anchor.pem)
    assert official(folder, "key", "--public_key", tmp_path / "k.pub").returncode == 0
    assert "1234" not in repr(who)


@pytest.mark.parametrize(
    ("change", "pin", "message"),
    [
        ({}, b"4321", "refuses the PIN"),
        ({}, None, "PIN"),
        ({"object=signer": "object=other"}, b"1234", "no such key"),
        ({"token=release": "token=other"}, b"1234", "no token"),
        ({str(HSM): "/nowhere/lib.so"}, b"1234", "cannot be loaded"),
    ],
)
def test_a_token_that_does_not_sign_says_why_and_shows_no_pin(
    token: str, change: dict[str, str], pin: bytes | None, message: str
) -> None:
    for old, new in change.items():
        token = token.replace(old, new)
    with pytest.raises(PublisherError, match=message) as found:
        signer(token, pin)
    assert not {"1234", "4321"} & set(str(found.value).split())


def official(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "model_signing",
        "verify",
        arguments[0],
        folder,
        "--signature",
        folder / "model.sig",
    ]
    return subprocess.run(list(map(str, [*command, *arguments[1:]])), capture_output=True, text=True, check=False)


@dataclass(frozen=True)
class Authority:
    """A certificate authority of a test: it says of a key what it is told to."""

    name: str
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def new(cls, name: str) -> Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        return cls(name, key, certificate(name, key, name, key.public_key(), authority=True))

    def below(self, name: str) -> Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        return Authority(name, key, certificate(self.name, self.key, name, key.public_key(), authority=True))


def certificate(  # noqa: PLR0913 - what a certificate says
    issuer: str,
    issuing: ec.EllipticCurvePrivateKey,
    subject: str,
    key: Any,
    *,
    authority: bool = False,
    days: tuple[int, int] = (-1, 30),
    usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CODE_SIGNING,
    signs: bool = True,
) -> x509.Certificate:
    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name(issuer), name(subject), key, x509.random_serial_number())
    builder = builder.not_valid_before(now + timedelta(days[0])).not_valid_after(now + timedelta(days[1]))
    flags = dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False)
    flags |= {"encipher_only": False, "decipher_only": False, "crl_sign": False}
    found = x509.KeyUsage(digital_signature=signs and not authority, key_cert_sign=authority, **flags)
    builder = builder.add_extension(found, critical=True)
    builder = builder.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuing.public_key())
    builder = builder.add_extension(identifier, critical=False)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    if not authority:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.RFC822Name(PERSON)]), critical=False)
    return builder.sign(issuing, hashes.SHA256())


@pytest.fixture(scope="module")
def authorities() -> tuple[Authority, Authority]:
    root = Authority.new("Acme root")
    return root, root.below("Acme releases")


@pytest.fixture
def person(key_pair: tuple[Path, Path], authorities: tuple[Authority, Authority], tmp_path: Path) -> CertifiedSigner:
    root, below = authorities
    key = keys.load_private(key_pair[0])
    leaf = certificate(below.name, below.key, "releases", key.public.key)
    (tmp_path / "root.pem").write_bytes(root.certificate.public_bytes(Encoding.PEM))
    chain = tmp_path / "chain.pem"
    chain.write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in (leaf, below.certificate, root.certificate)))
    return certified(key, chain)


def ask(folder: Path, *options: object) -> Result:
    return CliRunner().invoke(main, ["verify", str(folder), *map(str, options)])


def test_a_certificate_below_a_known_root_signs_and_the_official_client_accepts_it(
    person: CertifiedSigner, tmp_path: Path, model: dict[str, Path]
) -> None:
    folder = made(tmp_path / "p", model, person)
    found = ask(folder, "--identity", PERSON, "--root", tmp_path / "root.pem")
    assert found.exit_code == 0, found.output
    assert f"signed with a certificate of {PERSON}" in found.output
    assert verified(folder, trust(identity=PERSON, root=tmp_path / "root.pem")) == folder
    material = json.loads((folder / "model.sig").read_bytes())["verificationMaterial"]
    assert len(material["x509CertificateChain"]["certificates"]) == 2  # the root is not in the package
    assert official(folder, "certificate", "--certificate_chain", tmp_path / "root.pem").returncode == 0


def test_a_release_says_whom_to_trust(person: CertifiedSigner, key_pair: tuple[Path, Path]) -> None:
    root = ["--root", "ROOT.pem", "--identity", PERSON]
    assert _trust(person, None) == (root, f"publisher.trust(root='ROOT.pem', identity='{PERSON}')")
    assert _trust(keys.load_private(key_pair[0]), None) == (["--key", "PUBLIC_KEY"], "'PUBLIC_KEY'")
    keyless = KeylessSigner([KeylessAnchor(PERSON, "https://issuer.example")])
    assert _trust(keyless, None)[0] == ["--identity", PERSON, "--issuer", "https://issuer.example"]


def test_a_policy_that_names_keys_takes_no_certificate(
    person: CertifiedSigner, tmp_path: Path, model: dict[str, Path], public: Path
) -> None:
    folder = made(tmp_path / "p", model, person)
    (tmp_path / "a.pub").write_bytes(public.read_bytes())
    (tmp_path / "policy.yaml").write_text("policy: 1\nkeys: [a.pub]\n")
    found = ask(folder, "--identity", PERSON, "--root", tmp_path / "root.pem", "--policy", tmp_path / "policy.yaml")
    assert found.exit_code == 1
    assert "a certificate or an identity is none of those that may sign" in found.output


def test_another_name_another_root_and_a_key_are_refused_by_their_codes(
    person: CertifiedSigner, tmp_path: Path, model: dict[str, Path], public: Path, signed: Path
) -> None:
    folder = made(tmp_path / "p", model, person)
    other = tmp_path / "other.pem"
    other.write_bytes(Authority.new("Acme root").certificate.public_bytes(Encoding.PEM))
    assert codes(verify(folder, trust(identity="boss@acme.example", root=tmp_path / "root.pem"))) == {"V007"}
    assert codes(verify(folder, trust(identity=PERSON, root=other))) == {"V006"}
    assert codes(verify(folder, public)) == {"V004"}
    assert codes(verify(signed, trust(identity=PERSON, root=other))) == {"V006"}
    assert codes(verify(folder, trust(identity=PERSON, issuer="https://issuer.example"))) == {"V006"}


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"days": (-30, -1)}, "not valid at validation time"),
        ({"days": (1, 30)}, "not valid at validation time"),
        ({"usage": ExtendedKeyUsageOID.CLIENT_AUTH}, "signing code"),
        ({"signs": False}, "for signatures"),
    ],
)
def test_a_certificate_that_is_not_valid_now_or_not_for_signing_neither_signs_nor_verifies(
    how: dict[str, Any],
    message: str,
    person: CertifiedSigner,
    authorities: tuple[Authority, Authority],
    tmp_path: Path,
    model: dict[str, Path],
) -> None:
    root, below = authorities
    leaf = certificate(below.name, below.key, "releases", person.key.public.key, **how)
    chain = (leaf, below.certificate, root.certificate)
    (tmp_path / "chain.pem").write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in chain))
    with pytest.raises(CertificateFileError, match=message):
        certified(person.key, tmp_path / "chain.pem")
    folder = made(tmp_path / "p", model, replace(person, chain=chain))
    found = verify(folder, person.anchor)
    assert codes(found) == {"V006"}
    assert message in found.findings[0].message


def test_a_chain_of_another_key_does_not_sign(person: CertifiedSigner, tmp_path: Path) -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    private = tmp_path / "other.key"
    private.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    private.chmod(0o600)
    with pytest.raises(CertificateFileError, match="does not begin with a certificate of the key"):
        certified(keys.load_private(private), tmp_path / "chain.pem")
    (tmp_path / "chain.pem").write_bytes(person.chain[0].public_bytes(Encoding.PEM))
    with pytest.raises(CertificateFileError, match="holds no chain"):
        certified(person.key, tmp_path / "chain.pem")


def test_the_statement_of_somebody_else_below_a_good_certificate_is_refused(
    person: CertifiedSigner, tmp_path: Path, model: dict[str, Path]
) -> None:
    folder = made(tmp_path / "p", model, person)
    data = json.loads((folder / "model.sig").read_bytes())
    payload = base64.b64decode(data["dsseEnvelope"]["payload"]).replace(b"tiny-1.2.0", b"tiny-1.2.1")
    found = dsse.parse((folder / "model.sig").read_bytes())
    (folder / "model.sig").write_bytes(dsse.bundle(payload, found.signature, found.material))
    assert codes(verify(folder, person.anchor)) == {"V003"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--identity", PERSON], "an identity alone says nothing"),
        (["--root", "r.pem"], "but not for whom"),
        (["--identity", PERSON, "--issuer", "https://i.example", "--key", "k.pub"], "exclude each other"),
    ],
)
def test_half_a_trust_is_a_usage_error(signed: Path, options: list[str], message: str) -> None:
    found = ask(signed, *options)
    assert found.exit_code == 2
    assert message in found.output
