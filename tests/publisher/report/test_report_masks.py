"""Reports of releases with a freeze mask: names, shares that are left, and what the mask is."""

from __future__ import annotations

import report_samples as samples
from pages import words
from sample_masks import GAINS, mask_record, masked_check, masked_trials

from publisher.api import Gate, MatrixCell, ReleaseReport
from publisher.builtin.reports.html_page import HtmlPage
from publisher.builtin.reports.markdown_summary import MarkdownSummary
from publisher.report import budget, relearning, verdicts
from publisher.report.kept_gains import kept_gains
from publisher.report.rows import row

CHECK = masked_check("left", Gate(upper_at_most=0.5), (0.25, 0.2, 0.3))


def with_cells(*cells: tuple[str, str, str]) -> ReleaseReport:
    matrix = tuple(MatrixCell(claim=f"erase.{claim}", after=after, verdict=verdict) for claim, after, verdict in cells)
    return samples.masked().model_copy(update={"matrix": matrix})


def test_models_under_masks_have_names_that_people_can_read() -> None:
    (curves, _) = relearning.curves_by_concept(CHECK)
    assert [model.title for model in curves.models] == [
        "under the mask",
        "no mask",
        "a random mask",
        "another seed's mask (1)",
    ]
    unmasked = CHECK.model_copy(update={"attack_params": {}})
    assert relearning.curves_by_concept(unmasked)[0].models[0].title == "hardened model"
    assert relearning.title("seed-1") == "after seed-1"


def test_shares_are_means_of_pairs_against_no_mask() -> None:
    found = kept_gains([CHECK])
    assert found is not None
    assert found.models == ("under the mask", "a random mask", "another seed's mask (1)")
    assert [(row.concept, row.of, row.gain, row.cells) for row in found.rows] == [
        ("cigarette", "no mask", "loss after 20 steps", ("25%", "75%", "30%")),
        ("pizza", "no mask", "loss after 20 steps", ("95%", "75%", "90%")),
    ]


def test_equal_rows_of_several_checks_stand_there_once_and_innocents_are_named() -> None:
    other = CHECK.model_copy(update={"id": "again"})
    innocents = CHECK.model_copy(update={"metric_params": {"innocents": ["pizza"]}})
    found = kept_gains([CHECK, other])
    assert found is not None
    assert len(found.rows) == 2
    told = kept_gains([innocents])
    assert told is not None
    assert [row.innocent for row in told.rows] == [False, True]


def test_an_earlier_evaluation_step_and_another_control_are_read_as_the_check_reads_them() -> None:
    trials = tuple(one for one in masked_trials() if one.model != "unmasked")
    params = {"against": "random-mask", "evaluation_step": 10, "of": "rate"}
    found = kept_gains([CHECK.model_copy(update={"trials": trials, "metric_params": params})])
    assert found is not None
    assert found.models == ("under the mask", "another seed's mask (1)")
    assert [(row.of, row.gain, row.cells[0]) for row in found.rows] == [
        ("a random mask", "rate after 10 steps", "100%")
    ] * 2


def test_a_control_that_gains_nothing_leaves_no_share() -> None:
    flat = tuple(
        one.model_copy(update={"losses": (0.6, 0.6, 0.6)}) if one.model == "unmasked" else one
        for one in masked_trials()
    )
    found = kept_gains([CHECK.model_copy(update={"trials": flat})])
    assert found is not None
    assert {cell for row in found.rows for cell in row.cells} == {"\u2013"}


def test_checks_without_a_mask_have_no_such_table() -> None:
    assert kept_gains([samples.training_check()]) is None
    assert "What masks leave" not in words(samples.relearning())


def test_html_shows_shares_and_the_mask_and_whom_it_binds() -> None:
    text = words(samples.masked())
    assert "Share of the gain that is left Concept Attack Gain Of under the mask a random mask" in text
    assert "pizza (innocent) full-finetune loss after 20 steps no mask 95% 75% 90%" in text
    assert "Nobody is stopped: anyone who ignores the mask trains everything." in text
    assert "2,637,000 of 8,790,000 are frozen, 30%" in text
    assert "62 of 326, 19%" in text
    assert "Another seed's mask (1) has 91.4% in common with it" in text.replace("\u2019", "'")
    assert "mid_block.resnets.0.conv1.weight 589,824 589,824" in text
    assert "binds those who honour it" in text


def test_html_without_a_mask_says_nothing_of_one() -> None:
    assert "freeze mask" not in words(samples.passed()).lower()


def test_a_mask_without_another_one_or_large_tensors_is_shown_too() -> None:
    alone = samples.masked().model_copy(update={"freeze_mask": mask_record(others={}, largest=(), granularity="row")})
    assert "Frozen as one a row" in words(alone)
    assert "Jaccard" not in words(alone)


def test_lines_of_the_other_forms_say_what_the_share_is_of() -> None:
    assert row(CHECK).line("gate") == "gain-left 25% (20% to 30%), n 4 (2 trials), against no mask"
    assert "honours the freeze mask" in budget.attack(CHECK)
    assert (
        "gain-left 25% (20% to 30%), n 4 (2 trials), against no mask"
        in MarkdownSummary().render(samples.masked()).decode()
    )
    assert {row.attack for row in budget.budget([CHECK]).rows} == {"full-finetune (under the mask)"}


def test_equal_reports_give_equal_pages() -> None:
    assert HtmlPage().render(samples.masked()) == HtmlPage().render(samples.masked())
    assert len(GAINS) == 8


def test_a_claim_is_undone_by_a_later_step_alone() -> None:
    own = with_cells(("mask", "erase", "passed"), ("mask", "freeze-mask", "failed"))
    assert verdicts.undone(own) == []
    later = with_cells(("plain", "erase", "passed"), ("plain", "freeze-mask", "failed"))
    assert verdicts.undone(later) == ["Claim erase.plain held after erase and no longer after freeze-mask."]
    open_ = with_cells(("plain", "erase", "passed"), ("plain", "freeze-mask", "unknown"))
    assert verdicts.undone(open_) == ["Claim erase.plain held after erase and could not be decided after freeze-mask."]


def test_the_matrix_says_in_words_what_a_later_step_did() -> None:
    kept = with_cells(("plain", "erase", "passed"), ("plain", "freeze-mask", "passed"))
    assert "No later step undid a claim; 1 claim was measured again after one." in words(kept)
    none = with_cells(("plain", "erase", "passed"))
    assert "No claim was measured both after its own step and after a later one." in words(none)
    broken = with_cells(("plain", "erase", "passed"), ("plain", "freeze-mask", "failed"))
    assert words(broken).count("Claim erase.plain held after erase and no longer after freeze-mask.") == 2
