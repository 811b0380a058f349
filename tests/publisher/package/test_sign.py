from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from publisher.errors import UsageError
from publisher.package import dsse, keys, sign
from publisher.package.build import PackageError
from publisher.package.verify import verify
from support.packages import CREATED, build_unsigned


def statement(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(base64.b64decode(json.loads(path.read_bytes())["dsseEnvelope"]["payload"]))
    return data


def official(folder: Path, public: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "model_signing",
            "verify",
            "key",
            folder,
            "--signature",
            folder / "model.sig",
            "--public_key",
            public,
        ],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_official_client_accepts_the_package_with_its_defaults(signed: Path, public: Path) -> None:
    result = official(signed, public)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "succeeded" in result.stdout


def test_the_official_client_notices_a_changed_report(package: Path, public: Path) -> None:
    (package / "release/reports/report.json").write_text("{}")
    assert official(package, public).returncode != 0


def test_the_signature_names_the_release_and_lists_every_file(signed: Path) -> None:
    signed_statement = statement(signed / "model.sig")
    assert signed_statement["subject"][0]["name"] == "tiny-1.2.0"
    listed = {entry["name"] for entry in signed_statement["predicate"]["resources"]}
    present = {path.relative_to(signed).as_posix() for path in signed.rglob("*") if path.is_file()}
    assert listed == present - {"model.sig"}


def test_attestations_are_about_the_list_of_digests_and_each_payload_file(signed: Path, public: Path) -> None:
    import hashlib

    key = keys.load_public(public)
    for path in (signed / "release/attestations").iterdir():
        found = dsse.open_statement(path.read_bytes(), key)
        first = found["subject"][0]
        assert first["name"] == "release/SHA256SUMS"
        assert first["digest"]["sha256"] == hashlib.sha256((signed / "release/SHA256SUMS").read_bytes()).hexdigest()
        assert {"model_index.json", "release/reports/report.json"} < {subject["name"] for subject in found["subject"]}


def test_the_library_of_in_toto_accepts_every_statement(signed: Path) -> None:
    from google.protobuf import json_format
    from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
    from in_toto_attestation.predicates.test_result.v0.test_result_pb2 import TestResult
    from in_toto_attestation.v1 import statement_pb2
    from in_toto_attestation.v1.statement import Statement

    predicates = {
        "https://slsa.dev/provenance/v1": Provenance,
        "https://in-toto.io/attestation/test-result/v0.1": TestResult,
    }
    read = set()
    for path in [signed / "model.sig", *(signed / "release/attestations").iterdir()]:
        found = statement(path)
        parsed = json_format.Parse(json.dumps(found), statement_pb2.Statement())
        Statement.copy_from_pb(parsed).validate()
        if kind := predicates.get(found["predicateType"]):
            json_format.Parse(json.dumps(found["predicate"]), kind())  # refuses what the type does not have
            read.add(found["predicateType"])
    assert read == set(predicates)


def test_each_attestation_says_its_part(signed: Path) -> None:
    folder = signed / "release/attestations"
    provenance = statement(folder / "provenance.sigstore.json")["predicate"]
    assert "L1 at most" in provenance["buildDefinition"]["internalParameters"]["buildLevel"]
    test = statement(folder / "test-result.sigstore.json")["predicate"]
    assert (test["result"], test["passedTests"]) == ("PASSED", ["cigarette.plain"])
    decision = statement(folder / "svr.sigstore.json")["predicate"]
    assert decision["timeCreated"] == "2026-01-02T03:04:05Z"
    assert decision["properties"] == ["PUBLISHER_RELEASE_PASSED", "PUBLISHER_CLAIM_PASSED:erase.cigarette"]


def test_the_time_of_the_decision_can_be_set_for_reproducible_releases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767323045")
    assert sign.now() == CREATED
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH"):
        sign.now()


def test_an_unfinished_package_is_not_signed(tmp_path: Path, key_pair: tuple[Path, Path]) -> None:
    with pytest.raises(PackageError, match="not finished"):
        sign.sign(tmp_path, keys.load_private(key_pair[0]))
    assert not any(tmp_path.iterdir())


def test_a_signed_package_is_not_signed_again(package: Path, key_pair: tuple[Path, Path]) -> None:
    before = (package / "model.sig").read_bytes()
    with pytest.raises(PackageError, match="signed already"):
        sign.sign(package, keys.load_private(key_pair[0]))
    assert (package / "model.sig").read_bytes() == before


def test_a_failure_while_signing_leaves_the_package_unsigned(
    tmp_path: Path, model: dict[str, Path], key_pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "p"
    build_unsigned(folder, model)
    before = sorted(folder.rglob("*"))
    key = keys.load_private(key_pair[0])
    with monkeypatch.context() as patch:
        patch.setattr(sign, "_sign_model", lambda *_args: 1 / 0)
        with pytest.raises(PackageError, match="cannot be signed: ZeroDivisionError"):
            sign.sign(folder, key)
    assert sorted(folder.rglob("*")) == before
    sign.sign(folder, key)
    assert verify(folder, key_pair[1]).ok


def test_an_interruption_while_signing_leaves_the_package_unsigned(
    tmp_path: Path, model: dict[str, Path], key_pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_args: object) -> bytes:
        raise KeyboardInterrupt

    build_unsigned(tmp_path / "p", model)
    monkeypatch.setattr(sign, "_sign_model", interrupt)
    with pytest.raises(KeyboardInterrupt):
        sign.sign(tmp_path / "p", keys.load_private(key_pair[0]))
    assert not (tmp_path / "p/release/attestations").exists()
    assert not (tmp_path / "p/model.sig").exists()


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1()])
def test_larger_curves_sign_and_verify(tmp_path: Path, model: dict[str, Path], curve: ec.EllipticCurve) -> None:
    key = ec.generate_private_key(curve)
    private, public = tmp_path / "k.key", tmp_path / "k.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    private.chmod(0o600)
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    build_unsigned(tmp_path / "p", model)
    sign.sign(tmp_path / "p", keys.load_private(private))
    assert verify(tmp_path / "p", public).ok


def test_an_encrypted_key_signs(tmp_path: Path, model: dict[str, Path]) -> None:
    keys.generate(tmp_path / "k.key", tmp_path / "k.pub", b"secret")
    build_unsigned(tmp_path / "p", model)
    sign.sign(tmp_path / "p", keys.load_private(tmp_path / "k.key", b"secret"))
    assert verify(tmp_path / "p", tmp_path / "k.pub").ok


def test_one_module_uses_a_private_key_in_memory() -> None:
    folder = Path(sign.__file__).parents[1]
    users = [
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*.py")
        if ".key.sign(" in path.read_text() or "use_elliptic_key_signer" in path.read_text()
    ]
    assert users == ["package/keys.py"]
