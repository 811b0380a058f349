"""The rows of a report: their cells, and that every form shows them in the same words."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from xml.etree import ElementTree as ET

import pytest
import report_samples as samples
from pages import words

from publisher.api import Observation, ReleaseReport, ScorerErrors, Tally
from publisher.builtin.metrics.rates import ConceptRate, RateParams
from publisher.builtin.reports.junit_xml import JunitXml
from publisher.builtin.reports.markdown_summary import MarkdownSummary
from publisher.package.card import render
from publisher.report.rows import COLUMNS, columns, row, rows
from publisher.report.terminal import lines


def test_a_measured_check_has_all_its_cells() -> None:
    assert row(samples.plain_check()).cells == {
        "verdict": "passed",
        "check": "plain.cigarette",
        "metric": "concept-rate",
        "hardened": "1.4%",
        "interval": "0.17% to 4.9%",
        "n": "144 of 12 prompts",
        "method": "Clopper-Pearson 95%",
        "control": "base model 92.4%",
        "seen": "",
        "errors": "",
        "gate": "upper bound ≤ 10% and value ≤ 5%",
        "reason": "upper bound 0.0493 <= 0.1; value 0.0139 <= 0.05",
        "notes": "",
    }


def test_a_check_by_training_counts_its_trials_and_names_its_control() -> None:
    cells = row(samples.training_check()).cells
    assert (cells["n"], cells["control"]) == ("3 trials", "before the step")


def test_what_was_not_measured_says_why() -> None:
    found = row(samples.unmeasured())
    assert (found.cells["hardened"], found.cells["n"]) == ("not measured", "0")
    assert found.remarks == ("the scorer crashed on every image",)


def test_running_text_has_every_cell_once() -> None:
    text = row(samples.synonyms_check()).line(brief=False)
    assert text.startswith("concept-rate 4.2% (1.5% to 8.8%), n 144, Clopper-Pearson 95%, against base model 84.7%; ")
    assert text.endswith("; 8 clean images of 1 prompt not counted: " + text.partition("not counted: ")[2])


def test_narrow_forms_show_fewer_columns() -> None:
    assert {column.name for column in columns(brief=False)} - {column.name for column in columns(brief=True)} == {
        "method",
        "seen",
        "errors",
        "reason",
        "notes",
    }


def test_a_corrected_number_says_what_was_seen_and_how_well_the_scorer_is_known() -> None:
    record = samples.plain_check()
    assert record.measurement is not None
    metric = ConceptRate()
    metric.errors = {
        name: ScorerErrors(source=source, seen=Tally(hits=hits, n=100), false_alarms=Tally(hits=2, n=100))
        for name, source, hits in (("cat", "", 99), ("dog", "calibration/dog.json", 95))
    }
    seen = [
        Observation(concept=name, prompt=f"{name} {i}", seed=i, base=True, hardened=i == 0, distance=0.1)
        for name in ("cat", "dog")
        for i in range(50)
    ]
    cells = row(record.model_copy(update={"measurement": metric.measure(RateParams(), seen)})).cells
    assert (cells["hardened"], cells["seen"]) == ("2.1%", "2% (0.24% to 7%)")
    assert cells["errors"] == "sensitivity at least 88.7% by 100 images of calibration/dog.json"


def shown(text: str) -> str:
    """Return text of Markdown without its escapes, on one line."""
    return " ".join(html.unescape(re.sub(r"\\(.)", r"\1", text.replace("<!-- -->", ""))).split())


def xml(record: ReleaseReport) -> str:
    """Return names, attributes and text of all cases."""
    found = [
        part for one in ET.fromstring(JunitXml().render(record)).iter() for part in (*one.attrib.values(), one.text)
    ]
    return " ".join(" ".join(filter(None, found)).split())


FORMS: dict[str, Callable[[ReleaseReport], str]] = {
    "HTML": words,
    "Markdown": lambda record: shown(MarkdownSummary().render(record).decode()),
    "card": lambda record: shown(render(record, base_card=False).decode()),
    "JUnit": xml,
    "terminal": lambda record: " ".join("\n".join(lines(record)).split()),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["failed", "relearning", "membranes"])
def test_every_form_says_the_same_of_a_check(form: str, name: str) -> None:
    record = samples.ALL[name]()
    text = FORMS[form](record)
    found = rows(check for claim in record.claims for check in claim.checks)
    assert found
    for one in found:
        for column in columns(brief=form == "terminal"):
            assert " ".join(one.cells[column.name].split()) in text


def test_columns_have_names_of_their_own() -> None:
    assert len({column.name for column in COLUMNS}) == len({column.heading for column in COLUMNS}) == len(COLUMNS)
