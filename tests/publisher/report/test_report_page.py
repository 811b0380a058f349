"""The HTML page as a whole: the order of its sections, what stands where, and what search and filter need."""

from __future__ import annotations

from collections import Counter

import pytest
import report_samples as samples
from pages import Page, page, words

from publisher.api import GoneConcept, Opinion, PublisherRecord, ReleaseReport
from publisher.builtin.reports.html_page import HtmlPage
from publisher.builtin.reports.markdown_summary import MarkdownSummary
from publisher.builtin.reports.outline import Section, anchors, outline

every_sample = pytest.mark.parametrize("name", samples.ALL)


def _checks(record: ReleaseReport) -> list[str]:
    return [check.id for claim in record.claims for check in claim.checks]


def _sections(record: ReleaseReport) -> list[tuple[str, list[str]]]:
    """Return title and checks of each section about checks."""
    return [(section.title, [check.id for check in section.checks]) for section in outline(record).sections]


def _classes(found: Page, name: str) -> list[tuple[dict[str, str | None], list[str]]]:
    shown = [(tag, (tag.get("class") or "").split()) for _, tag in found.tags]
    return [(tag, classes) for tag, classes in shown if name in classes]


def test_the_page_goes_from_pictures_to_how_to_verify() -> None:
    ids = [str(tag["id"]) for tag in page(samples.masked()).all("section")]
    order = [
        "pictures",
        "access",
        "stays",
        "concept-1",
        "concept-2",
        "several",
        "steps",
        "mask",
        "matrix",
        "provenance",
    ]
    assert ids == [*order, "limits", "verify"]
    titles = [title for title, _ in _sections(samples.passed())]
    assert titles == ["What stays", "cigarette", "pistol", "Several concepts together"]


@every_sample
def test_every_check_and_every_picture_stands_in_one_place(name: str) -> None:
    record = samples.ALL[name]()
    order = outline(record)
    assert Counter(one for _, checks in _sections(record) for one in checks) == Counter(_checks(record))
    shown = [one.record for strip in order.strips for one in strip.pairs]
    shown += [one.record for section in order.sections for group in section.groups for one in group.pairs]
    assert Counter(map(id, shown)) == Counter(map(id, record.pairs))
    found = page(record)
    assert len(_classes(found, "check")) == max(len(_checks(record)), len(anchors(order))) + _untested(record)
    ids = [tag["id"] for _, tag in found.tags if "id" in tag]
    assert len(ids) == len(set(ids))


def _untested(record: ReleaseReport) -> int:
    return sum(not claim.checks for claim in record.claims)


def test_a_check_stands_with_the_one_concept_that_goes_and_that_it_is_about() -> None:
    alone = samples.check("alone", None, None, concepts=("pistol", "pizza"))
    near = samples.distance_check().model_copy(update={"id": "unconditional", "concepts": ("cigarette",)})
    both = samples.plain_check()
    record = samples.report((samples.claim("mixed", "all of it", (alone, near, both, samples.kept_check())),))
    assert _sections(record) == [
        ("What stays", ["unconditional", "kept.pencil"]),
        ("cigarette", []),
        ("pistol", ["alone.pistol"]),
        ("Several concepts together", ["plain.cigarette"]),
    ]
    links = [tag for tag in page(record).all("article") if tag.get("id") == "claim-1"]
    assert len(links) == 1


def test_a_report_that_does_not_say_what_was_to_go_has_one_section_of_claims() -> None:
    record = samples.passed().model_copy(update={"concepts": ()})
    assert _sections(record) == [("Claims", _checks(record))]
    text = words(record)
    assert "This record does not say which concepts were to go" in text
    assert "Before and after" not in text
    assert len(page(record).all("img")) == 2 * len(record.pairs)


def test_a_concept_that_stands_twice_in_a_strange_record_is_one_section() -> None:
    twice = GoneConcept(id="cigarette", name="cigarette", kind="object")
    record = samples.passed().model_copy(update={"concepts": (twice, twice)})
    assert [title for title, _ in _sections(record)].count("cigarette") == 1


def test_the_first_table_links_each_number_to_its_check_and_says_what_nobody_tried() -> None:
    record = samples.relearning()
    found = page(record)
    text = words(record)
    assert "Somebody with cigarette pistol Prompt only words 2.8% passed 0.34% to 9.7%; n 72" in text
    assert "Search a program that tries many prompts not attacked not attacked" in text
    targets = {str(tag["id"]) for tag, _ in _classes(found, "check") if "id" in tag}
    cells = [tag for tag in found.all("a") if str(tag["href"]).startswith("#check-")]
    assert cells
    assert {str(tag["href"])[1:] for tag in cells} <= targets


def test_the_strip_has_a_row_for_each_model_and_equal_columns() -> None:
    record = samples.membranes()
    rows = _classes(page(record), "row")
    assert len(rows) == 3
    text = words(record)
    assert "cigarette object base with membranes without them pistol object" in text
    assert (
        "a cigarette emoji in noto style seed 0 : cigarette, noto → pencil, noto, without membranes cigarette" in text
    )


@pytest.mark.parametrize("kind", ["person", "unsafe"])
def test_a_strip_says_why_it_is_empty(kind: str) -> None:
    concepts = (samples.passed().concepts[0], GoneConcept(id="x", name="someone", kind=kind))
    text = words(samples.passed().model_copy(update={"concepts": concepts}))
    assert f"someone {kind} Images of this kind are never shown." in text
    assert "The record holds no picture of it." in words(samples.report(samples.passed().claims, pairs=()))


def test_what_stays_shows_the_concepts_that_lost_most_with_their_change() -> None:
    kept = samples.kept_check()
    assert kept.measurement is not None
    details = {"worst": [{"concept": "pizza", "change": 0.0, "n": 40}]}
    kept = kept.model_copy(update={"measurement": kept.measurement.model_copy(update={"details": details})})
    text = words(samples.report((samples.claim("kept", "it stays", (kept,)),)))
    assert "The concepts that lost most" in text
    assert "pizza 0 points (\u22127 points to 7 points), n 40 a pizza emoji in noto style seed 0" in text


def test_the_shares_behind_a_selectivity_are_called_what_they_are() -> None:
    number = samples.interval(0.86, 0.8, 0.91, 3)
    masked = samples.masked()
    selective = masked.claims[1].checks[1]
    assert selective.measurement is not None
    update = {
        "concept_figure": "share of the gain that is left",
        "concept_unit": "share",
        "measurement": selective.measurement.model_copy(update={"by_concept": {"cigarette": number, "pizza": number}}),
    }
    text = words(samples.report((samples.claim("mask", "selective", (selective.model_copy(update=update),)),)))
    assert "By concept (2): share of the gain that is left" in text
    assert "pizza 86% 80% to 91% 3" in text
    assert "86 points" not in text


@every_sample
def test_long_tables_scroll_inside_the_page(name: str) -> None:
    found = page(samples.ALL[name]())
    for (tag, attributes), parent in zip(found.tags, found.parents, strict=True):
        if tag == "table" and attributes.get("class") != "detail":
            assert "scroll" in str(parent.get("class")).split(), attributes
            assert (parent["tabindex"], parent["role"]) == ("0", "region")
            assert parent["aria-label"]
        if tag == "th":
            assert attributes["scope"] in ("col", "row", "colgroup", "rowgroup")


def test_filter_and_search_have_what_they_work_on() -> None:
    record = samples.failed()
    found = page(record)
    verdicts = [classes[1] for _, classes in _classes(found, "check")]
    assert sorted(verdicts) == ["failed", "passed", "passed", "unknown", "unknown"]
    assert all("data-find" in tag for tag, _ in _classes(found, "check"))
    assert [classes for _, classes in _classes(found, "part")] == [
        ["part", "stays"],
        ["part", "concept", "all-passed"],
        ["part", "concept", "all-passed"],
        ["part", "several"],
        ["part", "untested"],
    ]
    data = HtmlPage().render(record).decode()
    for rule in (".check.passed", "tr.passed", ".part.all-passed"):
        assert f"body:has(#open:checked) {rule}" in data
    boxes = {str(tag["id"]): tag["type"] for tag in found.all("input")}
    assert boxes == {"find": "search", "open": "checkbox"}
    assert "hidden" in next(tag for tag in found.all("label") if tag.get("id") == "finder")


def test_a_section_counts_what_is_not_passed() -> None:
    def opens(section: Section) -> int:
        return section.open

    assert list(map(opens, outline(samples.failed()).sections)) == [1, 0, 0, 1, 1]
    assert list(map(opens, outline(samples.membranes()).sections)) == [0, 0, 0, 1]


def test_the_page_names_the_folder_of_its_package_in_the_commands() -> None:
    record = samples.passed().model_copy(update={"name": "a b; rm -rf /", "version": "$(x)"})
    assert "publisher verify a_b__rm_-rf__-__x_ --key publisher.pub" in words(record)


@pytest.mark.parametrize(
    ("membranes", "place"), [(("cigarette",), "cigarette"), (("cigarette", "pistol"), "What stays"), ((), "")]
)
def test_permeabilities_stand_with_their_concept_or_with_all(membranes: tuple[str, ...], place: str) -> None:
    table = samples.permeabilities().model_copy(update={"membranes": membranes})
    record = samples.report((samples.claim("kept", "it stays", (samples.kept_check(),)),), permeabilities=table)
    ids = [str(tag.get("id")) for name, tag in page(record).tags if name in ("section", "h3")]
    before = ids[: ids.index("membranes")] if "membranes" in ids else []
    titles = {section.anchor: section.title for section in outline(record).sections}
    assert [titles[one] for one in before if one in titles][-1:] == ([place] if place else [])


def test_permeabilities_are_not_lost_where_only_concepts_have_sections() -> None:
    record = samples.report((), permeabilities=samples.permeabilities(), pairs=())
    assert "How far prompts open the membranes" in words(record)


def test_the_page_of_a_model_that_was_tested_as_it_is_promises_no_signature() -> None:
    record = samples.passed()
    text = words(record.model_copy(update={"tested": record.model, "steps": ()}))
    assert "publisher verify" not in text
    assert "Nothing was packaged or signed, so there is no signature to check." in text
    assert "Nothing was hardened: the model was tested as it is." in text
    assert "cigarette object base tested pistol object" in text


def test_second_opinions_and_the_publisher_stand_on_the_page_in_markdown_and_nowhere_else() -> None:
    plain = samples.passed()
    card = next(iter(plain.scorers.values()))
    counts = {"both": 58, "first": 1, "second": 1, "neither": 0}
    opinions = (Opinion(concept="cigarette", model="base", **counts), Opinion(concept="", model="hardened", **counts))
    second = card.model_copy(update={"decides": False, "opinions": opinions})
    about = PublisherRecord(provider="Acme <Ltd>", contact="safety@acme.example")
    gone = tuple(one.model_copy(update={"hazard": "tobacco"}) for one in plain.concepts)
    record = plain.model_copy(
        update={"scorers": {**plain.scorers, "second": second}, "publisher": about, "concepts": gone}
    )
    text = words(record)
    assert "The second opinion second agrees about 96.7% (91.7% to 99.1%) of 120 images" in text
    assert "cigarette base model 59 of 60 59 of 60" in text
    assert "what is kept hardened model 59 of 60 59 of 60" in text
    assert "judged by second" not in text
    assert "Acme <Ltd>" in text
    assert "hazard: tobacco" in text
    assert "The second opinion second agrees about" in MarkdownSummary().render(record).decode()
    assert "second opinion" not in words(plain)
    silent = record.model_copy(update={"scorers": {"second": second.model_copy(update={"opinions": ()})}})
    assert "The second opinion second judged no image." in words(silent)
