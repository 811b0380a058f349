# ruff: noqa: RUF001  # the true minus sign
from __future__ import annotations

import math
from itertools import pairwise

import pytest

from publisher.api import Curve, PermeabilityRow, PermeabilityTable
from publisher.builtin.reports import charts, heat, scales
from publisher.builtin.reports.html_page import tabular


def curve(*values: float, x: tuple[float, ...] | None = None) -> Curve:
    return Curve(name="loss", x=x or tuple(map(float, range(len(values)))), y=values)


def generated(*values: float) -> charts.Chart:
    found = charts.chart(curve(*values))
    assert found is not None
    return found


def points(line: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in line.split())]


def test_a_curve_goes_from_corner_to_corner_and_higher_is_up() -> None:
    found = points(generated(0.0, 1.0, 4.0).line)
    assert (found[0], found[-1]) == ((charts.LEFT, charts.BOTTOM), (charts.RIGHT, charts.TOP))
    assert found[1][1] == charts.BOTTOM - (charts.BOTTOM - charts.TOP) / 4


def test_positive_values_of_several_magnitudes_get_a_logarithmic_axis() -> None:
    found = generated(1.0, 0.1, 0.01, 0.001)
    heights = [y for _, y in points(found.line)]
    assert found.log
    assert [mark.label for mark in found.up] == ["0.001", "0.01", "0.1", "1"]
    assert [round(b - a, 1) for a, b in pairwise(heights)] == pytest.approx([38.7] * 3, abs=0.2)


@pytest.mark.parametrize("values", [(0.0, 1.0, 100.0), (-1.0, 5.0), (1.0, 9.0)])
def test_other_values_get_a_linear_axis(values: tuple[float, ...]) -> None:
    assert not generated(*values).log


def test_marks_are_round_and_inside() -> None:
    found = generated(-0.3, 2.2)
    assert [mark.label for mark in found.up] == ["0", "1", "2"]
    assert all(charts.TOP <= mark.at <= charts.BOTTOM for mark in found.up)


def test_a_logarithmic_axis_of_little_more_than_one_magnitude_has_marks_between() -> None:
    assert [mark.label for mark in generated(1.5, 20.0).up] == ["2", "5", "10", "20"]


def test_a_constant_lies_in_the_middle() -> None:
    assert {y for _, y in points(generated(2.0, 2.0, 2.0).line)} == {(charts.TOP + charts.BOTTOM) / 2}
    assert generated(2.0).line.count(",") == 1


def test_the_running_mean_of_a_long_curve_is_smooth_and_a_short_one_has_none() -> None:
    jumping = generated(*(1.0 + (i % 2) for i in range(200)))
    heights = [y for _, y in points(jumping.mean)]
    assert max(heights) - min(heights) < (charts.BOTTOM - charts.TOP) / 4
    assert generated(*(1.0 + (i % 2) for i in range(20))).mean == ""


def test_endless_curves_are_thinned_and_keep_their_end() -> None:
    found = points(generated(*map(float, range(10_000))).line)
    assert len(found) <= charts.MOST + 1
    assert found[-1] == (charts.RIGHT, charts.TOP)


def test_what_cannot_be_generated_is_left_out() -> None:
    assert charts.charts((curve(), curve(1e308, -1e308), curve(1.0, x=(1e305,)))) == []


def test_words_say_first_last_lowest_and_highest() -> None:
    assert generated(3.0, 1.0, 7.0, 2.0).says == "3 at 0, 2 at 3; lowest 1, highest 7"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.000061, "6.1e−5"), (-0.5, "−0.5"), (1234.0, "1234"), (2e7, "2e7"), (0.12345, "0.123")],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert scales.number(value) == text


@pytest.mark.parametrize(
    ("value", "text", "level"),
    [
        (0.0, "0", 0),
        (1e-9, "<0.01", 1),
        (0.004999, "<0.01", 1),
        (0.005, "0.01", 1),
        (0.34, "0.34", 3),
        (0.94, "0.94", 9),
        (1.0, "1.00", 10),
        (6.0, "6.00", 10),
        (math.inf, "inf", 10),
    ],
)
def test_only_a_shut_membrane_looks_shut(value: float, text: str, level: int) -> None:
    assert heat.cell(value) == heat.Cell(text, level)


def test_one_membrane_needs_no_sum() -> None:
    row = PermeabilityRow(concept="cat", prompt="a cat", kept=True, permeability=(0.5,))
    table = PermeabilityTable(membranes=("gun",), rows=(row,), prompts=1)
    assert heat.columns(table) == ["gun"]
    assert heat._row(row, table).cells == (heat.Cell("0.50", 5),)


@pytest.mark.parametrize("value", [[], {}, "a", [1], [{}], [{"a": 1}, {"b": 1}], [{"a": [1]}], [{"a": 1}] * 101])
def test_details_that_are_no_table_are_none(value: object) -> None:
    assert tabular(value) is None


def test_details_that_are_a_table_have_headings_and_cells() -> None:
    assert tabular([{"a": 1, "b": 0.123456}, {"b": "x", "a": None}]) == (["a", "b"], [["1", "0.1235"], ["None", "x"]])
