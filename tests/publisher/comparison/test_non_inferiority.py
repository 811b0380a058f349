from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from publisher.api import ScorerCard
from publisher.api.intervals import paired_difference
from publisher.comparison import NonInferiority, Subject, not_worse, read_subject
from publisher.comparison.non_inferiority import lines_of

TINY = Path(__file__).parents[2] / "released" / "tiny"
ID = "cigarette.plain"
Make = Callable[..., Subject]


@pytest.fixture(scope="module")
def make() -> Make:
    """Make a release of 60 images, of which these show the concept, with its check changed."""
    tiny = read_subject(TINY)
    (claim,) = tiny.report.claims

    def subject(name: str, hits: int | Sequence[bool], **changes: Any) -> Subject:
        changes = {"metric": "concept-rate", "metric_params": {"min_base": 0.5}} | changes
        check = claim.checks[0].model_copy(update=changes)
        claims = (claim.model_copy(update={"checks": (check,)}),)
        shows = [place < hits for place in range(60)] if isinstance(hits, int) else hits
        rows = [
            row.model_copy(update={"hardened_hit": hit, "prompt": f"{row.prompt} {place}"})
            for place, (row, hit) in enumerate(zip(tiny.rows[ID], shows, strict=True))
        ]
        return Subject(name, tiny.report.model_copy(update={"claims": claims}), {ID: rows})

    return subject


def told(old: Subject, new: Subject, points: float = 7) -> NonInferiority:
    return not_worse(old, new, points / 100)


@pytest.mark.parametrize(
    ("old", "new", "points", "answer"),
    [
        (0, 0, 7, "not worse"),
        (0, 0, 6, "not decided"),  # no pair differs: 60 pairs say 6.02 points at most
        (20, 2, 1, "not worse"),  # better by far
        (0, 3, 7, "not decided"),
        (0, 12, 7, "worse"),
        (0, 12, 35, "not worse"),
    ],
)
def test_the_whole_interval_has_to_lie_within_the_margin(
    make: Make, old: int, new: int, points: float, answer: str
) -> None:
    found = told(make("old", old), make("new", new), points)
    assert found.answer == found.rows[0].answer == answer
    assert found.rows[0].interval is not None
    assert found.rows[0].interval.value == pytest.approx((new - old) / 60)


def test_a_lower_share_is_a_loss_where_a_high_one_is_better(make: Make) -> None:
    kept = {"metric": "kept-accuracy", "metric_params": {}, "better": "higher", "unit": "points"}
    assert told(make("old", 40, **kept), make("new", 55, **kept)).answer == "not worse"
    assert told(make("old", 55, **kept), make("new", 30, **kept)).answer == "worse"


def test_the_base_models_images_need_not_be_equal(make: Make) -> None:
    new = make("new", 0)
    rows = [row.model_copy(update={"base_sha256": "c" * 64}) for row in new.rows[ID]]
    assert told(make("old", 0), replace(new, rows={ID: rows})).answer == "not worse"


@pytest.mark.parametrize(
    ("change", "how"),
    [
        ({"sampler": "PNDMScheduler"}, "another sampler, number of steps or guidance"),
        ({"guidance": 9.0}, "another sampler, number of steps or guidance"),
        ({"seed": 999}, "other prompts or seeds: 59 of 60 and 60 images are of one request"),
        ({"membranes": "off"}, "other prompts or seeds"),
        ({"hardened_hit": None}, "nobody judged the images"),
    ],
)
def test_images_of_other_requests_are_no_pairs(make: Make, change: dict[str, Any], how: str) -> None:
    new = make("new", 0)
    rows = list(new.rows[ID])
    rows[7] = rows[7].model_copy(update=change)
    found = told(make("old", 0), replace(new, rows={ID: rows}))
    assert (found.answer, found.rows[0].interval) == ("not comparable", None)
    assert how in found.rows[0].how


def test_other_checks_and_other_scorers_are_not_comparable(make: Make) -> None:
    old = make("old", 0)
    assert told(old, make("new", 0, id="other")).rows[0].how == "new does not make this check"
    assert "asks otherwise" in told(old, make("new", 0, attack_params={"x": 1})).rows[0].how
    assert told(old, make("new", 0, measurement=None)).rows[0].how == "new was not measured"

    def judged(name: str, **fields: Any) -> Subject:
        card = ScorerCard.parse(
            {"weights": "a" * 64, "preprocessing": "", "decision": "", "classes": {}, "calibration": ""} | fields
        )
        subject = make(name, 0)
        return replace(subject, report=subject.report.model_copy(update={"scorers": {"emoji": card}}))

    assert "other scorers" in told(judged("old"), judged("new", weights="b" * 64)).rows[0].how
    assert told(judged("old"), judged("new", calibration="n 60")).answer == "not worse"


@pytest.mark.parametrize(
    ("verdict", "answer"), [("passed", "not decided"), ("failed", "worse"), ("unknown", "not decided")]
)
def test_a_number_without_points_is_left_to_its_gate_and_decides_nothing_alone(
    make: Make, verdict: str, answer: str
) -> None:
    distance = {"metric": "image-distance", "unit": "rms", "scorer": ""}
    found = told(make("old", 0, **distance), make("new", 0, **distance, verdict=verdict))
    assert found.answer == answer
    assert f"{verdict} by its own gate" in found.rows[0].how


def test_the_worst_row_is_the_answer_and_lines_are_harmless(make: Make) -> None:
    old, new = make("old", 0), make("\x1b[0mnew", 0)
    claims = [*old.report.claims, *make("x", 0, id="b").report.claims]
    two = replace(old, report=old.report.model_copy(update={"claims": tuple(claims)}))
    found = told(two, new)
    assert [row.answer for row in found.rows] == ["not worse", "not comparable"]
    text = "\n".join(lines_of(found))
    assert text.startswith("Not comparable: ")
    assert "0 points (\u22126 points to 6 points), 60 pairs of images" in text
    assert "\x1b" not in text


@pytest.mark.parametrize("n", [60, 144])
def test_a_release_that_is_worse_by_the_margin_passes_with_two_and_a_half_percent(n: int) -> None:
    """Enumerate all outcomes of n pairs: at the margin itself at most 2.6% are called not worse (nominal 2.5%)."""
    ends = cache(lambda gains, losses: paired_difference(gains, losses, n).high)
    errors = {
        (margin, losses): passed(
            n, losses + margin, losses, lambda gained, lost, most=margin: ends(gained, lost) <= most
        )
        for margin in (0.02, 0.05, 0.1)
        for losses in (0.01, 0.03, 0.1)
    }
    assert max(errors.values()) <= 0.026, errors
    assert passed(n, 0.0, 0.0, lambda gained, lost: ends(gained, lost) <= 0.065) == pytest.approx(1)


def passed(n: int, gains: float, losses: float, says: Callable[[int, int], bool]) -> float:
    """Return how probable it is that n pairs are called not worse, of which these shares are gained and lost."""
    total = 0.0
    for gained in range(n + 1):
        for lost in range(n - gained + 1):
            same = n - gained - lost
            if (gained and not gains) or (lost and not losses):
                continue
            weight = math.lgamma(n + 1) - math.lgamma(gained + 1) - math.lgamma(lost + 1) - math.lgamma(same + 1)
            for count, share in ((gained, gains), (lost, losses), (same, 1 - gains - losses)):
                weight += count * math.log(share) if count else 0
            if weight > -24 and says(gained, lost):  # what is left out adds up to less than a millionth
                total += math.exp(weight)
    return total
