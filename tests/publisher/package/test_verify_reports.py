"""Reports must be there, be about this package, and not contradict their numbers."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from publisher.api import ReleaseReport
from publisher.model.files import json_bytes
from publisher.package import dsse, keys, sign, sums
from publisher.package.summary import summarise
from publisher.package.verify import verify
from support.evaluating import REPORT, Make, codes, places, release_again, resign
from support.packages import CREATED, build_unsigned, interval


def in_check(data: dict[str, Any]) -> dict[str, Any]:
    check: dict[str, Any] = data["claims"][0]["checks"][0]
    return check


def unknown(data: dict[str, Any]) -> None:
    in_check(data).update(verdict="unknown", measurement=None, evidence="", evidence_sha256="")
    data["claims"][0]["verdict"] = data["decision"] = "unknown"


def test_an_edited_report_is_found(package: Path, public: Path) -> None:
    text = (package / REPORT).read_text()
    (package / REPORT).write_text(text.replace("cigarette is not", "cigarette is never"))
    found = verify(package, public)
    assert places(found, "V010") == {REPORT}
    assert codes(found) == {"V010"}


@pytest.mark.parametrize("path", ["release/release.json", REPORT, "release/SHA256SUMS", "release/bom.cdx.json"])
def test_a_package_signed_without_a_report_is_refused(package: Path, key_pair: tuple[Path, Path], path: str) -> None:
    (package / path).unlink()
    resign(package, key_pair[0])
    assert path in places(verify(package, key_pair[1]), "V030")


def test_a_package_signed_without_an_attestation_is_refused(package: Path, key_pair: tuple[Path, Path]) -> None:
    name = "release/attestations/test-result.sigstore.json"
    (package / name).unlink()
    resign(package, key_pair[0])
    assert places(verify(package, key_pair[1]), "V030") == {name}


def test_attestations_of_another_release_are_refused(package: Path, make: Make, key_pair: tuple[Path, Path]) -> None:
    other = make(lambda data: data.update(version="1.3.0"))
    shutil.rmtree(package / "release/attestations")
    shutil.copytree(other / "release/attestations", package / "release/attestations")
    resign(package, key_pair[0])
    assert len(places(verify(package, key_pair[1]), "V031")) == 3


def test_an_attestation_by_somebody_else_is_refused(
    package: Path, key_pair: tuple[Path, Path], model: dict[str, Path], tmp_path: Path
) -> None:
    keys.generate(tmp_path / "b.key", tmp_path / "b.pub", None)
    build_unsigned(tmp_path / "other", model)
    sign.sign(tmp_path / "other", keys.load_private(tmp_path / "b.key"), created=CREATED)
    name = "release/attestations/provenance.sigstore.json"
    shutil.copy(tmp_path / "other" / name, package / name)
    resign(package, key_pair[0])
    assert places(verify(package, key_pair[1]), "V030") == {name}


def test_a_swapped_attestation_is_refused(package: Path, key_pair: tuple[Path, Path]) -> None:
    folder = package / "release/attestations"
    shutil.copy(folder / "provenance.sigstore.json", folder / "svr.sigstore.json")
    shutil.copy(folder / "provenance.sigstore.json", folder / "test-result.more.sigstore.json")
    resign(package, key_pair[0])
    assert {Path(path).name for path in places(verify(package, key_pair[1]), "V031")} == {
        "svr.sigstore.json",
        "test-result.more.sigstore.json",
    }


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("test-result", lambda predicate: predicate.update(result="WARNED")),
        ("test-result", lambda predicate: predicate.update(passedTests=[])),
        ("svr", lambda predicate: predicate["properties"].append("PUBLISHER_CLAIM_PASSED:more")),
        ("svr", lambda predicate: predicate["verifier"]["policies"].append({"name": "a policy"})),
        ("svr", lambda predicate: predicate.update(timeCreated="yesterday")),
        ("svr", lambda predicate: predicate.update(timeCreated="2026-01-02T03:04:05")),
        ("provenance", lambda predicate: predicate["buildDefinition"]["externalParameters"].update(version="9")),
        ("provenance", lambda predicate: predicate["buildDefinition"].update(resolvedDependencies=[])),
    ],
)
def test_an_attestation_that_says_something_else_than_the_report_is_refused(
    package: Path, key_pair: tuple[Path, Path], name: str, change: Callable[[dict[str, Any]], object]
) -> None:
    file = package / f"release/attestations/{name}.sigstore.json"
    statement = dsse.statement(dsse.parse(file.read_bytes()).payload)
    change(statement["predicate"])
    file.write_bytes(sign.attest(statement, keys.load_private(key_pair[0])))
    resign(package, key_pair[0])
    found = verify(package, key_pair[1])
    assert codes(found) == {"V031"}
    assert places(found, "V031") == {f"release/attestations/{name}.sigstore.json"}


@pytest.mark.parametrize(("says", "found"), [("PASSED", set()), ("WARNED", {"V031"})])
def test_one_attestation_a_check_is_how_packages_once_were_and_verifies(
    package: Path, key_pair: tuple[Path, Path], says: str, found: set[str]
) -> None:
    file = package / "release/release.json"
    report = ReleaseReport.model_validate_json((package / REPORT).read_bytes())
    file.write_bytes(json_bytes(summarise(report, former=True).as_json()))
    release_again(package, key_pair[0])
    folder = package / "release/attestations"
    statement = dsse.statement(dsse.parse((folder / "test-result.sigstore.json").read_bytes()).payload)
    statement["predicate"]["result"] = says
    (folder / "test-result.sigstore.json").unlink()
    former = folder / "test-result.cigarette.plain.sigstore.json"
    former.write_bytes(sign.attest(statement, keys.load_private(key_pair[0])))
    resign(package, key_pair[0])
    assert codes(verify(package, key_pair[1])) == found


def test_a_summary_of_something_else_than_the_report_is_refused(package: Path, key_pair: tuple[Path, Path]) -> None:
    file = package / "release/release.json"
    file.write_text(file.read_text().replace("1.2.0", "9.9.9"))
    release_again(package, key_pair[0])
    found = verify(package, key_pair[1])
    assert codes(found) == {"V031"}
    assert places(found, "V031") == {"release/release.json"}


def test_evidence_of_something_else_is_refused(package: Path, key_pair: tuple[Path, Path]) -> None:
    file = package / "release/reports/evidence.cigarette.plain.jsonl"
    file.write_text('{"prompt": "another"}\n')
    release_again(package, key_pair[0])
    found = verify(package, key_pair[1])
    assert codes(found) == {"V030"}
    assert places(found, "V030") == {"release/reports/evidence.cigarette.plain.jsonl"}


def test_sums_that_say_something_else_are_refused(package: Path, key_pair: tuple[Path, Path]) -> None:
    file = package / "release/SHA256SUMS"
    file.write_bytes(sums.render(sums.parse(file.read_bytes()) | {"LICENSE": "0" * 64}))
    resign(package, key_pair[0])
    assert "release/SHA256SUMS" in places(verify(package, key_pair[1]), "V031")


@pytest.mark.parametrize(
    "change",
    [
        lambda data: in_check(data)["measurement"].update(hardened=interval(0.0, 0.0, 0.2)),
        lambda data: in_check(data)["measurement"].update(hardened=interval(0.5, 0.4, 0.6)),
        lambda data: in_check(data)["measurement"].update(hardened=interval(0.0, 0.0, 0.06, n=0)),
        lambda data: in_check(data)["measurement"].update(hardened=interval(0.2, 0.0, 0.06)),
        lambda data: in_check(data)["measurement"].update(base=interval(0.0, 0.0, 0.06)),
        lambda data: in_check(data).update(measurement=None),
        lambda data: in_check(data).update(verdict="failed"),
        lambda data: in_check(data).update(verdict="unknown"),
        lambda data: data["claims"][0].update(checks=[]),
        lambda data: data["claims"][0].update(verdict="failed"),
        lambda data: data.update(claims=[]),
    ],
    ids=[
        "bound broken",
        "value broken",
        "n is 0",
        "outside its interval",
        "base passes too",
        "not measured",
        "check called failed",
        "check called unknown",
        "no check",
        "claim called failed",
        "no claim",
    ],
)
def test_a_verdict_that_contradicts_its_numbers_is_refused(
    make: Make, public: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    assert "V032" in codes(verify(make(change), public))


def test_a_signed_release_that_did_not_pass_is_refused(make: Make, public: Path) -> None:
    assert codes(verify(make(unknown), public)) == {"V034"}


def test_numbers_without_evidence_are_refused(make: Make, public: Path) -> None:
    package = make(lambda data: in_check(data).update(evidence="", evidence_sha256=""))
    assert codes(verify(package, public)) == {"V030"}
