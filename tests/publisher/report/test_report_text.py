from __future__ import annotations

import pytest
from report_samples import interval, kept_check, plain_check

from publisher.api import CheckRecord, Gate, Measurement
from publisher.builtin.reports import bars
from publisher.report.wording import figure, gate_words, size, span, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a pizza emoji", "a pizza emoji"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\nb\x00", "a\\nb\\x00"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("\ud800", "\\ud800"),
        ("naïve 猫 👩\u200d🚀 10\u00a0%", "naïve 猫 👩\u200d🚀 10\u00a0%"),
    ],
)
def test_what_cannot_be_seen_is_written_out(text: str, shown: str) -> None:
    assert visible(text) == shown


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (0.0, "share", "0%"),
        (-0.0, "points", "0 points"),
        (0.0139, "share", "1.4%"),
        (0.00001, "share", "0.001%"),
        (1.0, "share", "100%"),
        (-0.02, "points", "\u22122 points"),
        (0.1234, "rms", "0.12 rms"),
        (12345.678, "", "12345.7"),
    ],
)
def test_figures_in_their_unit(value: float, unit: str, shown: str) -> None:
    assert figure(value, unit) == shown


def test_a_figure_never_rounds_across_a_bound() -> None:
    gate = Gate(upper_at_most=0.1)
    assert figure(0.1004, "share", gate) == "10.04%"
    assert figure(0.0996, "share", gate) == "9.96%"
    assert figure(0.10000001, "share", gate) == "10.000001%"
    assert figure(0.1, "share", gate) == "10%"


def test_spans_gates_and_sizes_in_words() -> None:
    assert span(interval(0.01, 0.004, 0.06), "share") == "0.4% to 6%"
    gate = Gate(upper_at_most=0.1, lower_at_least=-0.2, value_at_most=0.05, value_at_least=0.0)
    expected = "upper bound ≤ 10% and lower bound ≥ \u221220% and value ≤ 5% and value ≥ 0%"
    assert gate_words(gate, "share") == expected
    assert [size(amount) for amount in (0, 999, 11_083_491, 2_567_463_684)] == ["0", "999", "11.1 M", "2.567 G"]


def test_a_share_is_generated_on_the_whole_axis() -> None:
    scale = bars.axis(plain_check())
    assert (scale.start, scale.end) == (0, 1)
    assert [label for _, label in scale.ticks()] == ["0%", "25%", "50%", "75%", "100%"]
    hard, soft = bars.gate_bounds(plain_check(), scale)
    assert (hard.at, hard.hard, hard.forbidden) == (10.0, True, (10.0, 90.0))
    assert (soft.at, soft.hard) == (5.0, False)


def test_other_units_get_an_axis_that_holds_all_numbers_and_zero() -> None:
    wide = bars.concept_axis(kept_check())
    assert wide.start <= -0.07
    assert wide.end >= 0.07
    scale = bars.axis(kept_check())
    assert scale.start > wide.start
    assert scale.at(0.0) == 50.0
    (bound,) = bars.gate_bounds(kept_check(), scale)
    assert bound.forbidden == (0.0, scale.at(-0.03))


@pytest.mark.parametrize("values", [(3.0, 3.0, 3.0), (-1e-9, 0.0, 1e-9), (0.0, 0.0, 1e12), (-7.3, -7.1, -7.0)])
def test_any_interval_lies_inside_its_axis(values: tuple[float, float, float]) -> None:
    low, value, high = values
    found = Measurement(hardened=interval(value, low, high))
    check: CheckRecord = plain_check().model_copy(update={"unit": "rms", "measurement": found})
    scale = bars.axis(check)
    assert scale.start <= min(low, 0.0)
    assert scale.end >= max(high, 0.1)


def test_what_lies_outside_the_axis_is_put_at_its_end() -> None:
    scale = bars.Axis(0.0, 1.0, "share")
    assert [scale.at(value) for value in (-5.0, 0.25, 7.0)] == [0.0, 25.0, 100.0]
