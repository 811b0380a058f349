from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from publisher.api import CheckRecord, ImagePair, Interval, ScorerCard
from publisher.api.evidence import EvidenceRow
from publisher.comparison import Subject, compare, read_subject
from publisher.comparison.forms import as_html, as_markdown, lines
from publisher.errors import UsageError

TINY = Path(__file__).parents[2] / "released" / "tiny"
ID = "cigarette.plain"


@pytest.fixture(scope="module")
def subject() -> Subject:
    found = read_subject(TINY)
    return with_check(found, metric="concept-rate", metric_params={"min_base": 0.5})


def with_check(subject: Subject, **changes: Any) -> Subject:
    """Return the subject with its check changed."""
    (claim,) = subject.report.claims
    check = claim.checks[0].model_copy(update=changes)
    claims = (claim.model_copy(update={"checks": (check,)}),)
    return replace(subject, report=subject.report.model_copy(update={"claims": claims}))


def with_hits(subject: Subject, name: str, hits: Sequence[bool]) -> Subject:
    """Return the subject under another name, with these images showing the concept."""
    old = subject.rows[ID]
    rows = [row.model_copy(update={"hardened_hit": hit}) for row, hit in zip(old, hits, strict=True)]
    return replace(subject, name=name, rows={ID: rows})


def with_rows(subject: Subject, name: str, rows: Sequence[EvidenceRow]) -> Subject:
    return replace(subject, name=name, rows={ID: rows})


def some(n: int) -> list[bool]:
    return [place < n for place in range(60)]


def told(*subjects: Subject) -> Any:
    ((_, cell),) = [row.cells for row in compare(subjects).rows]
    return cell.difference


@pytest.mark.parametrize(
    ("first", "second", "outcome"),
    [
        (0, 0, "not told apart"),
        (0, 3, "not told apart"),
        (0, 12, "worse"),
        (20, 2, "better"),
        (30, 30, "not told apart"),
    ],
)
def test_shares_are_compared_image_by_image(subject: Subject, first: int, second: int, outcome: str) -> None:
    found = told(with_hits(subject, "a", some(first)), with_hits(subject, "b", some(second)))
    assert found.outcome == outcome
    assert found.interval.value == pytest.approx((second - first) / 60)
    assert found.interval.n == 60


def test_a_higher_share_is_better_where_the_metric_says_so(subject: Subject) -> None:
    kept = with_check(subject, metric="kept-accuracy", metric_params={}, better="higher", unit="points")
    assert told(with_hits(kept, "a", some(40)), with_hits(kept, "b", some(55))).outcome == "better"


def test_the_order_of_the_images_makes_no_difference(subject: Subject) -> None:
    first, second = with_hits(subject, "a", some(5)), with_hits(subject, "b", some(20))
    turned = replace(second, rows={ID: list(reversed(second.rows[ID]))})
    assert told(first, turned) == told(first, second)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"seed": 999}, "other prompts or seeds: 59 of 60 and 60 images are of the same request"),
        ({"guidance": 9.0}, "other prompts or seeds"),
        ({"base_sha256": "c" * 64}, "1 of 60 images of the base model differ"),
        ({"hardened_hit": None, "base_hit": None}, "nobody judged the images"),
    ],
)
def test_images_of_other_requests_or_another_machine_are_not_compared(
    subject: Subject, change: dict[str, Any], reason: str
) -> None:
    rows = list(subject.rows[ID])
    rows[7] = rows[7].model_copy(update=change)
    found = told(subject, with_rows(subject, "b", rows))
    assert found.outcome == "not compared"
    assert reason in found.how
    assert compare([subject, with_rows(subject, "b", rows)]).comparisons == 0


def test_judgements_of_other_scorers_are_not_compared(subject: Subject) -> None:
    def judged(name: str, version: str) -> Subject:
        card = ScorerCard(
            weights="a" * 64, preprocessing="", decision="arg-max", classes={}, calibration="", version=version
        )
        return replace(subject, name=name, report=subject.report.model_copy(update={"scorers": {"emoji": card}}))

    assert "other scorers" in told(judged("a", "1"), judged("b", "2")).how
    assert told(judged("a", "1"), judged("b", "1")).outcome == "not told apart"


def test_numbers_that_are_no_shares_are_compared_by_their_intervals(subject: Subject) -> None:
    def measured(value: float, name: str) -> Subject:
        (check,) = (one for claim in subject.report.claims for one in claim.checks)
        assert check.measurement is not None
        interval = Interval(value=value, low=value - 0.1, high=value + 0.1, n=60, method="x")
        measurement = check.measurement.model_copy(update={"hardened": interval})
        found = with_check(subject, metric="image-distance", unit="rms", scorer="", measurement=measurement)
        return replace(found, name=name)

    assert told(measured(0.5, "a"), measured(0.6, "b")).outcome == "not told apart"
    assert told(measured(0.5, "a"), measured(0.9, "b")).outcome == "worse"
    assert told(measured(0.9, "a"), measured(0.5, "b")).outcome == "better"


def test_a_check_that_one_model_lacks_or_nobody_measured_stays_in_its_row(subject: Subject) -> None:
    none = replace(subject, name="b", report=subject.report.model_copy(update={"claims": ()}))
    assert told(subject, none).how == "b was not tested"
    unmeasured = replace(with_check(subject, measurement=None, verdict="unknown", reason="it crashed"), name="c")
    assert told(subject, unmeasured).how == "c was not measured"
    assert "not measured: it crashed" in "\n".join(lines(compare([subject, unmeasured])))


def test_another_attack_is_another_row(subject: Subject) -> None:
    other = replace(with_check(subject, attack="paraphrase"), name="b")
    assert [len(row.cells) for row in compare([subject, other]).rows] == [2, 2]


def test_reports_that_cannot_stand_side_by_side_are_refused(subject: Subject) -> None:
    with pytest.raises(UsageError, match="one report alone"):
        compare([subject])
    with pytest.raises(UsageError, match="two reports have one name"):
        compare([subject, subject])
    model = subject.report.model.model_copy(update={"digest": "f" * 64, "source": "hf:acme/other"})
    other = replace(subject, name="b", report=subject.report.model_copy(update={"model": model}))
    with pytest.raises(UsageError, match=r"different base models: .*hf:acme/other") as caught:
        compare([other, subject])
    assert "same one" in caught.value.hint or "hf:acme/other" in str(caught.value)


def pictured(subject: Subject, name: str, hardened: str, base: str = "QQ==") -> Subject:
    pair = ImagePair(
        concept="cigarette",
        check=ID,
        prompt="a cigarette",
        seed=0,
        base_png=base,
        hardened_png=hardened,
        base_label="",
        hardened_label="",
    )
    return replace(subject, name=name, report=subject.report.model_copy(update={"pairs": (pair,)}))


def test_pictures_of_one_request_stand_in_one_strip(subject: Subject) -> None:
    found = compare([pictured(subject, "a", "Qg=="), pictured(subject, "b", "Qw==")])
    assert [(one.base_png, one.pngs) for one in found.strips] == [("QQ==", ("Qg==", "Qw=="))]
    other = compare([pictured(subject, "a", "Qg=="), pictured(subject, "b", "Qw==", base="RA==")])
    assert other.strips == ()


def test_every_form_says_all_and_shows_foreign_text_harmlessly(subject: Subject) -> None:
    name = "<b>\u202eevil|\x1b[0m"
    found = compare([with_hits(subject, "a", some(0)), with_hits(subject, name, some(12))])
    page, text, plain = as_html(found).decode(), as_markdown(found), "\n".join(lines(found))
    for form in (page, text, plain):
        assert "20 points" in form
        assert "\u202e" not in form
        assert "\x1b" not in form
        assert "<b>" not in form or form is plain
    assert "http://" not in page
    assert "<script" not in page
    assert page == as_html(found).decode()


def test_exchanged_or_missing_evidence_is_refused(tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "reports"
    shutil.copytree(TINY / "release" / "reports", folder)
    (file,) = folder.glob("*.jsonl")
    file.write_text(file.read_text().replace("pencil", "rocket"))
    with pytest.raises(UsageError, match="is not the evidence"):
        read_subject(folder)
    file.unlink()
    with pytest.raises(UsageError, match="cannot be read") as caught:
        read_subject(folder / "report.json")
    assert "whole report folder" in caught.value.hint


def test_evidence_outside_of_the_folder_is_not_opened(tmp_path: Path, subject: Subject) -> None:
    (check,) = (one for claim in subject.report.claims for one in claim.checks)
    outside: CheckRecord = check.model_copy(update={"evidence": "../secret.jsonl"})
    claims = [claim.model_copy(update={"checks": (outside,)}) for claim in subject.report.claims]
    from publisher.model.files import json_bytes

    (tmp_path / "report.json").write_bytes(
        json_bytes(subject.report.model_copy(update={"claims": tuple(claims)}).as_json())
    )
    with pytest.raises(UsageError, match="outside"):
        read_subject(tmp_path)
