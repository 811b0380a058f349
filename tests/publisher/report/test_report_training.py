from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import report_samples as samples
from pages import page, words

from publisher.api import ReleaseReport
from publisher.builtin.reports.html_page import HtmlPage
from publisher.builtin.reports.json_record import JsonRecord
from publisher.builtin.reports.junit_xml import JunitXml
from publisher.builtin.reports.markdown_summary import MarkdownSummary
from publisher.errors import UsageError
from publisher.report import load
from publisher.report.terminal import lines


def test_html_has_a_figure_for_each_check_and_concept() -> None:
    figures = [tag for tag in page(samples.relearning()).all("figure") if tag.get("class") == "curves"]
    assert len(figures) == 3
    assert "Curves show attacks that train." in words(samples.relearning())
    assert "Curves show" not in words(samples.passed())


def test_html_figures_have_titles_and_say_their_curves_in_words() -> None:
    found = page(samples.relearning())
    ids = {str(tag["id"]) for _, tag in found.tags if tag.get("id")}
    images = [tag for tag in found.all("svg") if tag.get("aria-labelledby")]
    assert len(images) == 6
    assert {name for tag in images for name in str(tag["aria-labelledby"]).split()} <= ids
    text = words(samples.relearning())
    assert "Share of cigarette that is back over training steps" in text
    assert "before the step: 0% at 0, 22.2% at 5, 66.7% at 10" in text
    assert "one half: 8.12." in text
    assert "Held-out loss of cigarette: hardened model 0.412 to 0.145" in text


def test_html_generates_half_t50_bands_and_marks() -> None:
    data = HtmlPage().render(samples.relearning()).decode()
    assert data.count('class="half"') == 3
    assert data.count('class="t50"') == 4 + 4 + 3
    assert data.count('class="band"') == 4 + 4 + 3
    assert data.count("<title id=") == 6


def test_html_tells_models_apart_by_shape() -> None:
    found = page(samples.relearning())
    swatches = [str(tag["d"]) for tag in found.all("path") if str(tag.get("d", "")).startswith("M14 7")]
    assert len(swatches) == 3 + 4 + 4
    assert len(set(swatches)) == 5


def test_html_says_what_was_found_and_what_it_took() -> None:
    text = words(samples.relearning())
    assert "6.2x 3.9x to 9.1x before the step" in text
    assert "attack lora, captions: name, 20 images, batches of 4, at most 160 steps." in text
    assert "before the step 8.12 6.88 to 9.38 3 0% 100% at 40 100% at 160" in text
    assert "Concept Attack Captions Images Trials hardened model before the step base model" in text
    assert "cigarette lora name 20 3 60 136 8.12 22 0 0 23.3 62" in text
    assert "Ended early: hardened model, trial 2: the loss of step 13 is not finite" in text
    assert "timings.json" in text


def test_html_of_a_training_check_stays_small() -> None:
    with_trials, without = (len(HtmlPage().render(one())) for one in (samples.relearning, samples.passed))
    assert with_trials - without < 45_000


def test_html_names_the_control_of_a_number_of_steps() -> None:
    record = samples.relearning()
    measured = samples.training_check().measurement
    assert measured is not None
    measured = measured.model_copy(update={"base": samples.interval(8.1, 7, 9.4)})
    one = samples.training_check().model_copy(update={"unit": "steps", "measurement": measured})
    record = samples.report((samples.claim("relearn", "slow", (one,)),))
    assert "before the step 8.1 steps" in words(record)
    assert "base model 8.1" not in words(record)


def test_html_bar_of_a_lower_bound_ends_where_the_axis_does() -> None:
    measured = samples.training_check().measurement
    assert measured is not None
    update = {"hardened": samples.interval(6.2, 3.9, 1e6, 3), "details": {"against": "before", "censored": True}}
    one = samples.training_check().model_copy(update={"measurement": measured.model_copy(update=update)})
    text = words(samples.report((samples.claim("relearn", "slow", (one,)),)))
    assert "at least 6.2x 3.9x or more before the step 0x 2x 4x 6x 8x" in text


def test_markdown_lists_checks_by_training_with_their_steps() -> None:
    text = MarkdownSummary().render(samples.relearning()).decode()
    assert (
        "### Re-learning\n\n- lora.cigarette: t50-ratio 6.2x (3.9x to 9.1x), n 3 trials, against before the step\n"
        in text
    )
    assert "  - steps to one half, cigarette: hardened 60, before 8.12, base 0, retrained 23.3\n" in text
    assert "Re-learning" not in MarkdownSummary().render(samples.passed()).decode()


def test_junit_has_the_steps_as_properties() -> None:
    root = ET.fromstring(JunitXml().render(samples.relearning()))
    found = {one.attrib["name"]: one.attrib["value"] for one in root.iter("property")}
    assert found["lora.cigarette: steps to one half, cigarette, hardened"] == "60"
    assert found["dreambooth.cigarette: steps to one half, cigarette, erase"] == "6.88"
    assert len(found) == 4 + 4 + 3


def test_the_terminal_has_one_line_for_a_check_by_training() -> None:
    found = [line for line in lines(samples.relearning()) if "  lora.cigarette" in line]
    line = "t50-ratio 6.2x (3.9x to 9.1x), n 3 trials, against before the step; lower bound ≥ 2x"
    assert found == [f"  passed  lora.cigarette  {line}"]


def test_a_report_from_before_there_were_trials_still_reads(tmp_path: Path) -> None:
    data = json.loads(JsonRecord().render(samples.passed()))
    for claim in data["claims"]:
        for check in claim["checks"]:
            assert check.pop("trials") == []
    (tmp_path / "report.json").write_text(json.dumps(data))
    assert load(tmp_path) == samples.passed()


def test_trials_read_back_as_they_were(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_bytes(JsonRecord().render(samples.relearning()))
    assert load(tmp_path) == samples.relearning()


@pytest.mark.parametrize(
    ("field", "value"), [("hits", [99] * 7), ("evaluation_steps", [0]), ("full", "1"), ("more", 1)]
)
def test_a_trial_that_cannot_be_is_no_report(tmp_path: Path, field: str, value: object) -> None:
    data = json.loads(JsonRecord().render(samples.relearning()))
    data["claims"][1]["checks"][0]["trials"][0][field] = value
    (tmp_path / "report.json").write_text(json.dumps(data))
    with pytest.raises(UsageError, match="not a valid release report"):
        load(tmp_path)


def test_hostile_trials_stay_inside_the_page() -> None:
    text = words(samples.hostile())
    assert "Not generated: after <script>" in text
    generated = [str(tag[key]) for _, tag in page(samples.hostile()).tags for key in ("points", "d") if key in tag]
    assert generated
    assert not [places for places in generated if "nan" in places or "inf" in places]


def test_the_record_is_the_same_through_json() -> None:
    record = samples.relearning()
    assert ReleaseReport.parse(record.as_json()) == record
