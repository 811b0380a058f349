from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from xml.etree import ElementTree as ET

import pytest
import report_samples as samples
from junitparser import Error, Failure, JUnitXml, Skipped

from publisher.api import PluginError, ReleaseReport
from publisher.builtin.reports import FORMATS
from publisher.builtin.reports.html_page import HtmlPage
from publisher.builtin.reports.json_record import JsonRecord
from publisher.builtin.reports.junit_xml import JunitXml
from publisher.builtin.reports.markdown_summary import MarkdownSummary
from publisher.report.rows import row

every_sample = pytest.mark.parametrize("name", samples.ALL)


# All forms


@pytest.mark.parametrize("form", FORMATS)
def test_equal_reports_give_equal_bytes(form: type) -> None:
    for record in (samples.membranes(), samples.relearning()):
        assert form().render(record) == form().render(ReleaseReport.parse(record.as_json()))


def test_bytes_do_not_depend_on_the_process() -> None:
    code = (
        "import hashlib, report_samples, publisher.builtin.reports as r; "
        "print([hashlib.sha256(form().render(report_samples.failed())).hexdigest() for form in r.FORMATS])"
    )
    env = {"PYTHONPATH": samples.__file__.rpartition("/")[0], "PYTHONHASHSEED": "1"}
    output = subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True).stdout
    assert output == f"{[hashlib.sha256(form().render(samples.failed())).hexdigest() for form in FORMATS]}\n"


@pytest.mark.parametrize("form", FORMATS)
def test_no_control_or_direction_character_gets_through(form: type) -> None:
    if form is JsonRecord:
        return  # the record keeps what it was given; JSON escapes control characters
    data = form().render(samples.hostile()).decode()
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", data)
    assert "\\x1b[2J\\x00\\u202egnorw" in data.replace("\\\\", "\\").replace("\\[", "[")


# JSON


@every_sample
def test_json_parses_back_to_the_same_report(name: str) -> None:
    record = samples.ALL[name]()
    assert ReleaseReport.model_validate_json(JsonRecord().render(record)) == record


def test_json_is_sorted_indented_and_utf8() -> None:
    data = JsonRecord().render(samples.passed().model_copy(update={"name": "émoji"}))
    assert data.startswith(b'{\n  "claims": [\n    {\n      "binds": "in-weights",')
    assert data.endswith(b"\n}\n")
    assert "émoji".encode() in data


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), "\ud800"])
def test_json_refuses_what_json_cannot_hold(value: object) -> None:
    record = samples.passed()
    step = record.steps[0].model_copy(update={"params": {"lam": value}})
    with pytest.raises(PluginError, match="no JSON"):
        JsonRecord().render(record.model_copy(update={"steps": (step,)}))


# JUnit


def junit(record: ReleaseReport) -> JUnitXml:
    return JUnitXml.fromroot(ET.fromstring(JunitXml().render(record)))


def test_junit_counts_failures_and_errors_and_skips_nothing() -> None:
    parsed = junit(samples.failed())
    assert (parsed.tests, parsed.failures, parsed.errors, parsed.skipped) == (5, 1, 3 - 1, 0)
    results = {case.name: [type(result) for result in case.result] for suite in parsed for case in suite}
    assert results == {
        "plain.cigarette: upper bound ≤ 10% and value ≤ 5%": [],
        "synonyms.cigarette: upper bound ≤ 10%": [Failure],
        "kept.pencil: lower bound ≥ \u22123 points": [],
        "empty.pencil: upper bound ≤ 5%": [Error],
        "the empty prompt generates what it generated before": [Error],
    }
    assert [suite.name for suite in parsed] == [
        "erase/erase.plain",
        "erase/erase.synonyms",
        "erase/erase.kept",
        "erase/erase.empty",
    ]


def test_junit_of_a_passed_release_is_green() -> None:
    parsed = junit(samples.passed())
    assert (parsed.tests, parsed.failures, parsed.errors, parsed.skipped) == (3, 0, 0, 0)
    cases = [case for suite in parsed for case in suite]
    assert cases[0].system_out == f"passed: {row(samples.plain_check()).line('gate', brief=False)}"


@pytest.mark.parametrize("name", ["failed", "unknown", "hostile", "lying"])
def test_junit_of_any_other_release_is_not(name: str) -> None:
    parsed = junit(samples.ALL[name]())
    assert parsed.failures + parsed.errors > 0
    assert not [result for suite in parsed for case in suite for result in case.result if isinstance(result, Skipped)]


@pytest.mark.parametrize(
    "record",
    [
        samples.report((), decision="passed"),
        samples.report((), decision="unknown"),
        samples.passed().model_copy(update={"decision": "unknown"}),
        samples.report((samples.claim("plain", "gone", (samples.plain_check(),), verdict="unknown"),)),
    ],
    ids=["no claims, passed", "no claims", "claims hold, release does not", "checks hold, claim does not"],
)
def test_junit_says_error_where_no_check_explains_the_verdict(record: ReleaseReport) -> None:
    parsed = junit(record)
    assert (parsed.failures, parsed.errors) == (0, parsed.errors)
    assert parsed.errors >= 1


# Markdown


def test_a_figure_without_a_gate_is_green_in_no_form() -> None:
    report = samples.membranes()
    case = next(case for suite in junit(report) for case in suite if case.name.startswith("without.cigarette"))
    assert [type(one).__name__ for one in case.result] == ["Skipped"]
    line = next(
        line for line in MarkdownSummary().render(report).decode().splitlines() if "| without.cigarette" in line
    )
    assert line.startswith("| \u26aa reported |")
    assert "| no gate |" in line


def test_markdown_of_a_failed_release() -> None:
    text = MarkdownSummary().render(samples.failed()).decode()
    first, _, rest = text.partition("not known what it takes.\n\n")
    assert first.startswith("## ❌ Refused: emoji-safe 1.0.0\n\n1 of 4 claims failed")
    table = [line for line in rest.splitlines() if line.startswith("|")]
    assert [line.split(" | ")[1].strip("*") for line in table[2:]] == [
        "cigarette and pistol are not generated from plain prompts",
        "plain.cigarette",
        "cigarette and pistol are not generated from synonyms",
        "synonyms.cigarette",
        "pencil, rocket and pizza are generated as well as before",
        "kept.pencil",
        "empty.pencil",
        "the empty prompt generates what it generated before",
    ]
    assert [line.split(" | ")[0] for line in table[2:]] == [
        "| ✅ passed",
        "| ✅ passed",
        "| ❌ failed",
        "| ❌ failed",
        "| ⚠️ unknown",
        "| ✅ passed",
        "| ⚠️ unknown",
        "| ⚠️ unverified",
    ]
    assert (
        rest.replace("\n".join(table), "TABLE")
        == """\
#### In a word

- cigarette: generated when asked (a check that asks for it failed)
- pistol: generated when asked (a check that asks for it failed)

TABLE

### What this does not prove

- Nothing is said about fine-tuning: anyone who trains the model again may bring a concept back.
- Holds for the prompts tested; other words may still reach the concept. (all claims)

Base model embedded:emoji, sha256 cae662172fd4; manifest sha256 05b3abf2579a; seed 7; cpu float32. \
This summary is not signed: check the package with `publisher verify`.
"""
    )


def test_markdown_warns_of_a_report_that_contradicts_itself() -> None:
    text = MarkdownSummary().render(samples.lying()).decode()
    assert text.startswith("## ❌ Refused")
    assert "> **Warning:** The release is recorded as passed; its claims say failed." in text


def test_markdown_lets_foreign_text_format_link_and_embed_nothing() -> None:
    text = MarkdownSummary().render(samples.hostile()).decode()
    assert "<script" not in text
    assert "<img" not in text
    assert "https://" not in text
    assert "[a](" not in text.replace("\\[a\\](", "")
    tables = [[line for line in block.splitlines() if line.startswith("|")] for block in text.split("\n\n")]
    counts = [{line.count("|") - line.count("\\|") for line in table} for table in tables if table]
    assert [len(one) for one in counts] == [1, 1]


def test_markdown_stays_short_whatever_it_is_given() -> None:
    record = samples.passed().model_copy(update={"limits": ("long " * 100_000,)})
    assert len(MarkdownSummary().render(record)) < 10_000


@pytest.mark.parametrize("form", [MarkdownSummary, JunitXml])
def test_every_form_says_which_check_was_made_without_membranes(form: type) -> None:
    text = form().render(samples.membranes()).decode()
    assert text.count("without.cigarette (without membranes)") == 1
    assert "plain.cigarette (without" not in text


# Claims of several steps


@pytest.mark.parametrize("form", [MarkdownSummary, JunitXml, HtmlPage])
def test_a_claim_of_several_steps_names_them(form: type) -> None:
    shared = samples.claim("kept", "it stays", (samples.kept_check(),), id="kept", steps=("erase", "immunize"))
    text = form().render(samples.report((shared,))).decode()
    assert ("erase+immunize/kept" if form is JunitXml else "steps erase, immunize") in text
