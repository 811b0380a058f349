"""Numbers and verdicts of a report must follow from its evidence, and be about the files beside it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from click.testing import CliRunner

from publisher.api import CalibrationSheet, Observation, ScorerErrors, Tally
from publisher.builtin.metrics.rates import ConceptRate, RateParams
from publisher.cli import main
from publisher.package import build, keys, sign, sums
from publisher.package.verify import Verification, verify
from support.evaluating import UNET, codes, places
from support.packages import CREATED, evidence_row, finish, json_lines, judgement, report_data

NAME = "evidence.cigarette.plain.jsonl"
ROWS = [evidence_row(seed, hardened=seed == 7) for seed in range(100)]
SHEET = "calibration/emoji.object.cigarette.json"
Rows = list[dict[str, Any]]
Check = dict[str, Any]


def pizza(seed: int, *, shows: bool = True) -> dict[str, Any]:
    """Return a line about a kept concept."""
    own = {"concept": "pizza", "prompt": "a pizza", "base": judgement("pizza"), "base_hit": True, "hardened_hit": shows}
    return evidence_row(seed) | own | {"hardened": judgement("pizza" if shows else "pencil")}


def measured(rows: Rows, sheet: CalibrationSheet | None = None) -> dict[str, Any]:
    """Return what the metric says of rows; corrected by a sheet, or by the base model before any test changes rows."""
    seen = [
        Observation(
            concept=row["concept"],
            prompt=row["prompt"],
            seed=row["seed"],
            steps=row["steps"],
            guidance=row["guidance"],
            base=row["base_hit"],
            hardened=row["hardened_hit"],
            distance=row["distance"],
        )
        for row in rows
    ]
    metric = ConceptRate()
    hits, n = sum(row["base_hit"] for row in ROWS), len(ROWS)
    tally = Tally(hits=hits, n=n, groups=((hits, n),))
    metric.errors = {"cigarette": sheet.errors(SHEET) if sheet else ScorerErrors(source="", seen=tally)}
    return metric.measure(RateParams(), seen).as_json()


@pytest.fixture
def verified(tmp_path: Path, model: dict[str, Path], key_pair: tuple[Path, Path]) -> Callable[..., Verification]:
    """Build, sign and verify a package whose check is of the publisher's own metric, after some changes."""

    def run(
        check: Callable[[Check], object],
        rows: Callable[[Rows], object] = lambda _rows: None,
        controls: Mapping[str, bytes] = MappingProxyType({}),
        **changes: Any,
    ) -> Verification:
        data = report_data() | changes
        record = data["claims"][0]["checks"][0]
        record |= {"metric": "concept-rate", "metric_params": {"min_base": 0.5}, "measurement": measured(ROWS)}
        lines = json.loads(json.dumps(ROWS))
        rows(lines)
        record["evidence_sha256"] = hashlib.sha256(json_lines(lines)).hexdigest()
        check(record)
        folder = tmp_path / f"made{len(list(tmp_path.iterdir()))}"
        build.lay_out(folder, model, {})
        finish(folder, data, evidence={NAME: json_lines(lines), **controls})
        sign.sign(folder, keys.load_private(key_pair[0]), created=CREATED)
        return verify(folder, key_pair[1])

    return run


def test_numbers_that_follow_from_the_evidence_pass(verified: Callable[..., Verification]) -> None:
    found = verified(lambda _check: None)
    assert (found.findings, found.recomputed.checks, found.recomputed.others) == ((), ["cigarette.plain"], {})


def number(value: float, low: float, high: float, n: int) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": n, "method": "Clopper-Pearson 95%"}


BEFORE, KEPT, FLOOR = "kept before", "kept", "retrained"
CONTROLS = {
    BEFORE: [pizza(seed) for seed in range(60)],
    KEPT: [pizza(seed, shows=seed > 3) for seed in range(60)],
    FLOOR: [evidence_row(seed) for seed in range(60)],
}
COUNTED = {
    BEFORE: number(1.0, 0.9403705077, 1.0, 60),
    KEPT: number(56 / 60, 0.8380132448, 0.9815382224, 60),
    FLOOR: measured(CONTROLS[FLOOR])["hardened"],
}


def controlled(
    change: Callable[[Rows], object] = lambda _rows: None, of: str = FLOOR, **numbers: dict[str, Any]
) -> tuple[Callable[[Check], object], dict[str, bytes]]:
    """Return a change that gives the check its controls, and the files of their evidence after another change."""
    rows: dict[str, Rows] = json.loads(json.dumps(CONTROLS))
    change(rows[of])
    files = {
        f"evidence/controls/cigarette.plain.{name.replace(' ', '-')}.jsonl": json_lines(rows[name]) for name in rows
    }
    return lambda check: check.update(controls=COUNTED | numbers), files


def test_controls_of_attacks_on_weights_are_counted_again(verified: Callable[..., Verification]) -> None:
    check, files = controlled()
    found = verified(check, controls=files)
    assert (found.findings, found.recomputed.checks, found.recomputed.others) == ((), ["cigarette.plain"], {})


@pytest.mark.parametrize(
    ("of", "change", "code", "message"),
    [
        (
            FLOOR,
            lambda rows: rows[0].update(hardened_hit=True),
            "V032",
            "counts otherwise than its labels say, in line 1",
        ),
        (FLOOR, lambda rows: rows.pop(), "V032", "of its control 'retrained', its evidence 0 (0 to 0.06"),
        (FLOOR, lambda rows: rows[1].update(concept="pizza"), "V031", "is about another check or concept in line 2"),
        (KEPT, lambda rows: rows.pop(), "V032", "of its control 'kept', its evidence 0.93"),
        (KEPT, lambda rows: rows[1].update(concept="cigarette"), "V031", "is about another check or concept in line 2"),
        (BEFORE, lambda rows: rows.clear(), "V032", "has a control 'kept before' that cannot be counted"),
    ],
)
def test_controls_that_their_evidence_does_not_give_are_refused(
    verified: Callable[..., Verification], of: str, change: Callable[[Rows], object], code: str, message: str
) -> None:
    check, files = controlled(change, of)
    found = verified(check, controls=files)
    assert codes(found) == {code}
    assert message in found.findings[0].message
    assert found.recomputed.checks == []


def test_a_control_without_evidence_is_refused(verified: Callable[..., Verification]) -> None:
    check, files = controlled()
    found = verified(check, controls=dict(list(files.items())[:-1]))
    assert codes(found) == {"V030"}


def test_a_verdict_that_its_controls_take_away_is_refused(verified: Callable[..., Verification]) -> None:
    """Here the altered model is broken: it shows half of what stays."""

    def half(rows: Rows) -> None:
        rows[:] = [pizza(seed, shows=seed % 2 == 0) for seed in range(60)]

    check, files = controlled(half, KEPT, kept=number(0.5, 0.3680620319, 0.6319379681, 60))
    found = verified(check, controls=files)
    assert codes(found) == {"V032"}
    assert "by its controls it says nothing: the altered model shows 50.0% of what stays" in found.findings[0].message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda check: check["measurement"].update(hardened=number(0.0, 0.0, 0.06, 1)),
            "check cigarette.plain says 0 (0 to 0.06), n 1, its evidence 0.01 (0.000253146 to 0.0550169), n 100",
        ),
        (lambda check: check["measurement"]["hardened"].update(high=0.0540), "its evidence 0.01 (0.000253146"),
        (lambda check: check["measurement"]["hardened"].update(n=101), "n 101, its evidence"),
        (lambda check: check["measurement"]["hardened"].update(method="exact"), "its evidence"),
        (lambda check: check["measurement"].update(base=None), "another 'base' than its evidence gives"),
        (lambda check: check["measurement"]["base"].update(n=99), "another 'base' than its evidence gives"),
        (lambda check: check["measurement"].update(by_concept={}), "another 'by_concept'"),
        (lambda check: check["measurement"]["details"].update(prompts=9), "another 'details'"),
        (lambda check: check["measurement"].update(notes=["all is well"]), "another 'notes'"),
        (lambda check: check.update(metric_params={"min_base": 0}), "by its evidence there is none"),
    ],
)
def test_numbers_that_the_evidence_does_not_give_are_refused_although_signed(
    verified: Callable[..., Verification], change: Callable[[Check], object], message: str
) -> None:
    found = verified(change)
    assert codes(found) == {"V032"}
    assert message in found.findings[0].message
    assert found.recomputed.checks == []


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (lambda rows: rows[7].update(hardened_hit=False), "V032", "counts otherwise than its labels say, in line 8"),
        (lambda rows: rows[0].update(base_hit=False), "V032", "counts otherwise than its labels say, in line 1"),
        (lambda rows: rows[0]["base"]["labels"].clear(), "V032", "counts otherwise than its labels say, in line 1"),
        (lambda rows: rows.append(rows[0]), "V032", "counts something twice, in line 101"),
        (lambda rows: rows[1].update(concept="pizza"), "V031", "is about another check or concept in line 2"),
        (lambda rows: rows[1].update(check="other"), "V031", "is about another check or concept in line 2"),
        (lambda rows: rows[1].pop("seed"), "V031", "cannot be read in line 2: it is not as evidence is written"),
        (lambda rows: rows[1].update(more=1), "V031", "cannot be read in line 2: it is not as evidence is written"),
        (lambda rows: rows.pop(), "V032", "check cigarette.plain says 0.01"),
        (lambda rows: rows.clear(), "V032", "by its evidence there is none: there are no images"),
    ],
)
def test_evidence_that_says_something_else_is_refused_although_signed(
    verified: Callable[..., Verification], change: Callable[[Rows], object], code: str, message: str
) -> None:
    found = verified(lambda _check: None, change)
    assert codes(found) == {code}
    assert message in found.findings[0].message


@pytest.mark.parametrize(
    ("changes", "used", "message"),
    [
        ({}, True, ""),
        ({}, False, "its evidence 0.0102041 (0.000253146 to 0.0561"),
        ({"version": "2"}, True, "is about another scorer: its version is '2', here it is '1'"),
        ({"params": {"threshold": 0.5}}, True, "is about another scorer: its params have 'threshold' 0.5"),
    ],
)
def test_numbers_are_corrected_again_by_the_sheet_in_the_package(
    changes: dict[str, Any],
    used: bool,  # noqa: FBT001
    message: str,
    tmp_path: Path,
    model: dict[str, Path],
    key_pair: tuple[Path, Path],
) -> None:
    fields: dict[str, Any] = {"scorer": "emoji", "version": "1", "weights": "ab" * 32, "params": {}, "size": (32, 32)}
    fields |= {"kind": "object", "label": "cigarette", "method": "labelled", "seed": 0, "salt": "", "digests": ("", "")}
    counts = {"positives": Tally(hits=98, n=100), "negatives": Tally(hits=0, n=100)}
    sheet = CalibrationSheet(**{**fields, **counts, **changes})
    written = (json.dumps(sheet.as_json()) + "\n").encode()
    card = {"weights": "ab" * 32, "preprocessing": "", "decision": "", "classes": {"object": 1}, "calibration": ""}
    card |= {
        "use": "emoji",
        "version": "1",
        "kinds": ["object"],
        "sheets": {SHEET: hashlib.sha256(written).hexdigest()},
    }
    data = report_data() | {"scorers": {"emoji": card}}
    record = data["claims"][0]["checks"][0]
    record |= {"metric": "concept-rate", "metric_params": {"min_base": 0.5}}
    record |= {
        "measurement": measured(ROWS, sheet if used else None),
        "evidence_sha256": hashlib.sha256(json_lines(ROWS)).hexdigest(),
    }
    folder = tmp_path / "made"
    build.lay_out(folder, model, {})
    finish(folder, data, evidence={NAME: json_lines(ROWS), SHEET: written})
    sign.sign(folder, keys.load_private(key_pair[0]), created=CREATED)
    found = verify(folder, key_pair[1])
    assert codes(found) == ({"V032"} if message else set())
    assert message in " ".join(finding.message for finding in found.findings)
    assert bool(found.recomputed.checks) is (used)


@pytest.mark.parametrize(
    ("plugin", "reason"),
    [
        ({"name": "rate"}, "its metric 'rate' is not one of the publisher's own"),
        ({"name": "concept-rate", "version": "1"}, "its metric 'concept-rate' is version 1, here is version 3"),
        ({"name": "concept-rate", "module": "theirs:Rate"}, "its metric 'concept-rate' is not one of"),
    ],
)
def test_what_was_not_measured_again_is_said(
    tmp_path: Path, model: dict[str, Path], key_pair: tuple[Path, Path], plugin: dict[str, str], reason: str
) -> None:
    data = report_data()
    data["claims"][0]["checks"][0] |= {"metric": plugin["name"]}
    origin = {"distribution": "d", "version": "1", "module": plugin.get("module", "publisher.builtin.metrics:X")}
    data["plugins"] = [
        {"kind": "metric", "name": plugin["name"], "version": plugin.get("version", "3"), "origin": origin}
    ]
    build.lay_out(tmp_path / "made", model, {})
    finish(tmp_path / "made", data)
    sign.sign(tmp_path / "made", keys.load_private(key_pair[0]), created=CREATED)
    result = CliRunner().invoke(main, ["verify", str(tmp_path / "made"), "--key", str(key_pair[1])])
    assert result.exit_code == 0
    assert "0 checks were measured again from the evidence" in result.stdout
    assert f"not measured again: check cigarette.plain: {reason}" in result.stdout
    answer = CliRunner().invoke(main, ["verify", str(tmp_path / "made"), "--key", str(key_pair[1]), "--json"]).stdout
    assert json.loads(answer)["recomputed"] == []
    assert reason in json.loads(answer)["not_recomputed"]["check cigarette.plain"]


def test_a_foreign_metric_cannot_have_counted_more_than_there_is(
    verified: Callable[..., Verification],
) -> None:
    def change(check: Check) -> None:
        check |= {"metric": "rate"}
        check["measurement"]["hardened"]["n"] = 101

    found = verified(change)
    assert [finding.message for finding in found.findings] == [
        "check cigarette.plain counts 101 observations, its evidence has 100"
    ]


FIRST_TABLE = {"access": "prompt", "metric": "concept-rate", "resistance": True}


@pytest.mark.parametrize(
    ("concept", "check", "code", "message"),
    [
        ({"name": "cigar"}, {}, "V031", "names other concepts to go than the manifest"),
        ({"synonyms": ["smoke"]}, {}, "V031", "names other concepts to go than the manifest"),
        ({}, {"access": "base"}, "V032", "check cigarette.plain says that its attack needs base; plain needs prompt"),
        ({}, {"access": None}, "V032", "check cigarette.plain says that its attack needs nothing; plain needs prompt"),
        ({}, {"resistance": False}, "V032", "says otherwise than concept-rate whether that is about getting it back"),
    ],
)
def test_a_check_in_another_cell_of_the_first_table_is_refused_although_signed(
    verified: Callable[..., Verification], concept: Check, check: Check, code: str, message: str
) -> None:
    gone = {"id": "cigarette", "name": "cigarette", "kind": "object"}
    assert verified(lambda made: made.update(FIRST_TABLE), concepts=[gone]).findings == ()
    found = verified(lambda made: made.update({**FIRST_TABLE, **check}), concepts=[{**gone, **concept}])
    assert [(one.code.value, message in one.message) for one in found.findings] == [(code, True)]


def test_a_report_about_other_weights_is_refused_although_signed(package: Path, key_pair: tuple[Path, Path]) -> None:
    """Who holds the key pairs a report with weights that nobody measured."""
    (package / UNET).write_bytes((package / UNET).read_bytes()[:-1] + b"\0")
    for path in (package / "release/attestations").iterdir():
        path.unlink()
    (package / "release/attestations").rmdir()
    (package / "model.sig").unlink()
    (package / "release/SHA256SUMS").write_bytes(sums.render(build._digests(package)))
    sign.sign(package, keys.load_private(key_pair[0]), created=CREATED)
    found = verify(package, key_pair[1])
    assert [str(finding) for finding in found.findings] == [
        f"V031 release/reports/report.json: was made about another '{UNET}'"
    ]


def test_a_report_that_names_no_files_is_refused(
    tmp_path: Path, model: dict[str, Path], key_pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("support.packages.judged_files", lambda _folder: {})
    build.lay_out(tmp_path / "made", model, {})
    finish(tmp_path / "made", report_data())
    sign.sign(tmp_path / "made", keys.load_private(key_pair[0]), created=CREATED)
    assert places(verify(tmp_path / "made", key_pair[1]), "V030") == {"release/reports/report.json"}
