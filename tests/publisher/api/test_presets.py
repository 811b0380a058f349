"""Presets: which one a model gets, and that what is given by name wins over it."""

from __future__ import annotations

import pytest
from pydantic import ConfigDict, Field, ValidationError

from publisher.api import Params
from publisher.api.presets import preset_of
from support.anatomies import model_of_size


class Inner(Params):
    rate: float | None = None
    seeds: int = Field(default=3, ge=1)


class Outer(Params):
    model_config = ConfigDict(serialize_by_alias=True)

    steps: int = 500
    bound: float | None = 1.0
    rates: dict[str, float] = Field(default_factory=dict)
    reuse: str = Field(default="", alias="from")
    check: Inner = Inner()


PRESET = {"steps": 20, "bound": None, "rates": {"lora": 1.0}, "reuse": "x", "check": {"rate": 0.5, "seeds": 7}}


def test_auto_is_the_preset_of_the_models_size() -> None:
    assert [preset_of("auto", model_of_size(size)) for size in (8, 32, 64)] == ["small", "small", "large"]
    assert preset_of("paper", model_of_size(8)) == "paper"


def test_what_is_not_given_is_filled_in() -> None:
    found = Outer().filled(PRESET)
    assert found.as_json() == {
        "steps": 20,
        "bound": None,
        "rates": {"lora": 1.0},
        "from": "x",
        "check": PRESET["check"],
    }


def test_what_is_given_by_name_wins_also_inside_and_where_it_is_the_default() -> None:
    given = Outer.parse({"steps": 500, "bound": 1.0, "rates": {}, "from": "", "check": {"seeds": 3}})
    found = given.filled(PRESET)
    assert found.model_copy(update={"check": given.check}) == given
    assert found.check == Inner(rate=0.5, seeds=3)


def test_none_counts_as_not_given_where_it_is_the_default_and_nowhere_else() -> None:
    assert Outer.parse({"check": {"rate": None}}).filled(PRESET).check.rate == 0.5
    assert Outer.parse({"bound": None}).filled({"bound": 2.0}).bound is None


def test_what_is_filled_in_stays_when_it_is_filled_in_again() -> None:
    once = Outer.parse({"check": {"seeds": 4}}).filled(PRESET)
    assert once.filled({"steps": 1, "check": {"rate": 0.1}}) == once


def test_a_value_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValidationError, match="seeds"):
        Outer().filled({"check": {"seeds": 0}})
