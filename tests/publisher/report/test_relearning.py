from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import report_samples as samples
from pydantic import ValidationError

from publisher.api import CheckRecord, CurveMetric, Trial
from publisher.builtin.metrics.curve_statistics import curves_of, half_time
from publisher.builtin.metrics.curves import HalfTime, HalfTimeRatio, RelearnedLast
from publisher.builtin.reports import learning_curves
from publisher.builtin.reports.scales import path
from publisher.report import budget, relearning
from publisher.report.relearning import crossing
from publisher.report.rows import row


def check(*trials: Trial, **changes: Any) -> CheckRecord:
    return samples.training_check().model_copy(update={"trials": trials, **changes})


def model(*trials: Trial) -> relearning.ModelCurve:
    (curves,) = relearning.curves_by_concept(check(*trials))
    return curves.models[0]


# Steps


@pytest.mark.parametrize(
    ("curve", "steps"),
    [
        ([(0, 0.0), (10, 0.4), (20, 0.6)], 15.0),
        ([(0, 0.5), (10, 0.0)], 0.0),
        ([(0, 0.0), (10, 0.5)], 10.0),
        ([(0, 0.0), (10, 1.0), (20, 0.0)], 5.0),
        ([(0, 0.0), (10, 0.49)], None),
        ([], None),
    ],
)
def test_a_share_is_reached_on_the_straight_line_between_two_evaluation_steps(
    curve: list[tuple[int, float]], steps: float | None
) -> None:
    assert crossing(curve, 0.5) == steps


def test_t50_is_that_of_the_metric() -> None:
    for curves in relearning.curves_by_concept(samples.training_check()):
        for one in curves.models:
            own = curves_of(one.trials, one.name)
            assert one.delay().mean == pytest.approx(float(half_time(own.evaluation_steps, own.relative())[0][0]))


def test_the_delay_has_the_mean_and_the_fastest_and_slowest_trial() -> None:
    delay = model(*(samples.trial("hardened", seed) for seed in range(3))).delay()
    assert (delay.words, delay.range, delay.trials) == ("60", "46.7 to 73.3", 3)


def test_what_does_not_come_back_is_later_than_the_last_evaluation_step() -> None:
    delay = model(samples.trial(hits=(0,) * 7), samples.trial(seed=1, hits=(0, 0, 0, 0, 9, 9, 9))).delay(0.9)
    assert (delay.words, delay.brief, delay.range) == ("not within 160", ">160", "38 to >160")


def test_one_trial_has_no_range() -> None:
    assert model(samples.trial()).delay().range == ""


def test_shares_are_relative_to_what_the_base_model_generates() -> None:
    points = model(samples.trial(hits=(0, 3, 6), full=0.5), samples.trial(seed=1, hits=(0, 6, 12), full=0.5)).points
    assert [(point.step, point.low, point.mean, point.high) for point in points] == [
        (0, 0, 0, 0),
        (5, 0.5, 0.75, 1.0),
        (10, 1.0, 1.5, 2.0),
    ]


def test_a_trial_that_ended_early_counts_as_far_as_it_got_and_is_named() -> None:
    (curves,) = relearning.curves_by_concept(check(samples.trial(), samples.trial(seed=1, hits=(0, 12), problem="NaN")))
    assert [point.high for point in curves.models[0].points[:3]] == [0, pytest.approx(4 / 3), 0]
    assert curves.problems == ("hardened model, trial 1: NaN",)


def test_a_concept_that_the_base_model_never_generates_has_no_share() -> None:
    found = model(samples.trial(full=0.0))
    assert found.points == ()
    assert (found.delay().words, found.delay().brief) == ("nothing to compare with", "\u2013")
    (plot,) = learning_curves.plots(check(samples.trial(full=0.0)), 9)
    assert plot.lines == ()


def test_models_come_in_one_order_and_unknown_ones_last() -> None:
    trials = [samples.trial("hardened").model_copy(update={"model": name}) for name in ("erase", "retrained", "base")]
    found = check(*trials, samples.trial("before"), samples.trial("hardened"))
    assert relearning.models_of([found]) == ["hardened", "before", "base", "retrained", "erase"]
    assert [one.title for one in relearning.curves_by_concept(found)[0].models][-1] == "after erase"


# Images


def test_the_axis_has_a_place_for_step_0_and_equal_ones_for_doublings() -> None:
    (plot, _) = learning_curves.plots(samples.training_check(), 9)
    places = {mark.label: mark.at for mark in plot.across}
    assert list(places) == ["0", "5", "10", "20", "40", "80", "160"]
    assert places["0"] == learning_curves.LEFT
    assert places["160"] == learning_curves.RIGHT
    assert places["160"] - places["80"] == pytest.approx(places["80"] - places["40"], rel=0.05)


def test_labels_of_steps_do_not_touch() -> None:
    (plot,) = learning_curves.plots(check(samples.trial(hits=(0,) * 60, evaluation_steps=tuple(range(60)))), 9)
    places = [mark.at for mark in plot.across]
    assert min(b - a for a, b in pairwise(places)) >= learning_curves.APART / 2
    assert plot.across[-1].label == "59"


def test_the_mark_of_t50_lies_on_the_line() -> None:
    (plot, _) = learning_curves.plots(samples.training_check(), 9)
    hardened = plot.lines[0]
    points = [tuple(map(float, pair.split(","))) for pair in hardened.mean.split()]
    after = next(i for i, (_, y) in enumerate(points) if y <= plot.half)
    assert hardened.half is not None
    assert points[after - 1][0] <= hardened.half <= points[after][0]
    (x0, y0), (x1, y1) = points[after - 1], points[after]
    assert y0 + (y1 - y0) * (hardened.half - x0) / (x1 - x0) == pytest.approx(plot.half, abs=1.5)


def test_the_band_goes_out_along_the_highest_trial_and_back_along_the_lowest() -> None:
    trials = (samples.trial(hits=(0, 0, 0)), samples.trial(seed=1, hits=(9, 9, 9)))
    (plot,) = learning_curves.plots(check(*trials), 9)
    heights = [float(pair.split(",")[1]) for pair in plot.lines[0].band.split()]
    assert set(heights[: len(heights) // 2]) == {learning_curves.TOP}
    assert set(heights[len(heights) // 2 :]) == {learning_curves.BOTTOM}


def test_every_model_has_a_mark_of_its_own_and_the_eighth_is_only_named() -> None:
    trials = [samples.trial(seed=0).model_copy(update={"model": f"s{number}"}) for number in range(5)]
    (plot,) = learning_curves.plots(check(samples.trial(), *trials), 9)
    shapes = [learning_curves.SHAPES[line.style] for line in plot.lines]
    assert len(set(shapes)) == len(shapes) == 4
    assert plot.left_out == ("after s3", "after s4")


def test_shares_far_above_the_base_models_stay_inside() -> None:
    (plot,) = learning_curves.plots(check(samples.trial(hits=(0, 12), full=0.01)), 9)
    heights = [float(pair.split(",")[1]) for pair in plot.lines[0].mean.split()]
    assert min(heights) == learning_curves.TOP
    assert plot.up[-1].label == "200%"


def test_a_page_has_so_many_images_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning_curves, "MOST_PLOTS", 3)
    found, missing = learning_curves.galleries([samples.training_check()] * 3)
    assert ([len(some) for some in found], missing) == ([2, 1, 0], [0, 1, 2])


def test_a_line_of_text_says_what_the_plot_says() -> None:
    (plot, _) = learning_curves.plots(samples.training_check(), 9)
    assert plot.lines[1].says.startswith("0% at 0, 22.2% at 5, 66.7% at 10")


def test_places_are_short() -> None:
    assert path([(1.0, 2.04), (math.pi, 0.0)]) == "1,2 3.1,0"


# Words


def test_a_ratio_names_what_it_is_a_ratio_of() -> None:
    assert row(samples.training_check()).line("gate") == (
        "t50-ratio 6.2x (3.9x to 9.1x), n 3 trials, against before the step"
    )
    assert budget.attack(samples.training_check()) == (
        "attack lora, captions: name, 20 images, batches of 4, at most 160 steps"
    )


@pytest.mark.parametrize(
    ("metric", "hits", "words"),
    [
        (HalfTimeRatio, None, "t50-ratio 7.4x ("),
        (HalfTimeRatio, (0,) * 7, "t50-ratio at least 19.7x (13."),
        (
            HalfTime,
            (0,) * 7,
            "t50 at least 160 steps (160 steps or more), n 3 trials, against before the step 8.1 steps",
        ),
        (RelearnedLast, None, "relearned-last 75% ("),
    ],
)
def test_what_the_metrics_find_is_said_in_their_words(
    metric: type[CurveMetric[Any]], hits: tuple[int, ...] | None, words: str
) -> None:
    trials = [samples.trial("hardened", seed, hits) for seed in range(3)]
    trials += [samples.trial("before", seed) for seed in range(3)]
    found = metric().read(metric.Params(), trials)
    one = check(*trials, measurement=found, metric=metric.name, unit=metric.unit)
    assert row(one).line().startswith(words)


def test_a_lower_bound_says_so() -> None:
    number = samples.interval(6.2, 3.9, 1e6, 3)
    found = samples.training_check().measurement
    assert found is not None
    update = {"hardened": number, "details": {"against": "before", "censored": True}}
    one = samples.training_check().model_copy(update={"measurement": found.model_copy(update=update)})
    assert row(one).line("n", "gate", "control") == "t50-ratio at least 6.2x (3.9x or more)"


def test_steps_name_their_control() -> None:
    found = samples.training_check().measurement
    assert found is not None
    numbers = {"hardened": samples.interval(60, 47, 73), "base": samples.interval(8.1, 7, 9.4)}
    measured = found.model_copy(update=numbers)
    one = samples.training_check().model_copy(update={"metric": "t50", "unit": "steps", "measurement": measured})
    assert row(one).cells["control"] == "before the step 8.1 steps"


def test_a_metric_of_features_is_called_by_its_scorer() -> None:
    found = samples.training_check().measurement
    assert found is not None
    measured = found.model_copy(update={"details": {"against": "before", "name": "sgr[emoji]"}})
    one = samples.training_check().model_copy(update={"metric": "sgr", "unit": "share", "measurement": measured})
    assert row(one).line().startswith("sgr[emoji] 620%")


def test_the_budget_has_a_row_for_each_check_and_concept() -> None:
    checks = [found for _, found in relearning.trained(samples.relearning())]
    table = budget.budget(checks)
    assert table.models == (
        "hardened model",
        "before the step",
        "base model",
        "retrained: never knew it",
        "after erase",
    )
    assert [(row.concept, row.attack, row.captions, row.images, row.trials) for row in table.rows] == [
        ("cigarette", "lora", "name", "20", 3),
        ("pistol", "lora", "name", "20", 3),
        ("cigarette", "dreambooth", "rare", "5", 3),
    ]
    assert table.rows[0].cells == (("60", "136"), ("8.12", "22"), ("0", "0"), ("23.3", "62"), budget.NOT_RUN)


# The record


@pytest.mark.parametrize(
    "change",
    [
        {"hits": (0, 13, 0)},
        {"hits": (0, -1, 0)},
        {"hits": (0, 0)},
        {"evaluation_steps": (0, 10, 5)},
        {"evaluation_steps": (0, 5, 5)},
        {"evaluation_steps": (-1, 5, 10)},
        {"evaluation_steps": (0, 5, 10**9)},
        {"losses": (0.1, float("nan"), 0.1)},
        {"losses": (0.1, 0.1, float("inf"))},
        {"similarity": (0.5,)},
        {"full": 1.5},
        {"full": -0.1},
        {"images_per_evaluation": 0},
        {"seed": -1},
        {"seconds": 3.0},
    ],
    ids=str,
)
def test_a_trial_that_cannot_be_is_refused(change: dict[str, Any]) -> None:
    good = samples.trial(hits=(0, 3, 9)).model_dump()
    Trial(**good)
    with pytest.raises(ValidationError):
        Trial(**good | change)
