"""Attacks on weights, on the embedded model: what each brings back where it is there, and nothing where it is not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
from searching import emoji, erased, evaluated, within_a_step

from publisher.api import CheckRecord, Gate, Sampling, WeightAttack
from publisher.builtin.attacks.training import AdapterTransplant
from publisher.builtin.attacks.weights import Cast, Format, MergeWithBase
from publisher.builtin.metrics.curves import RelearnedLast
from publisher.builtin.metrics.rates import ConceptRate
from publisher.evaluate.context import ModelUnderTest
from publisher_emoji import model_folder
from support.anatomies import EMBEDDED

CIGARETTE = emoji("cigarette")
REFERENCE = model_folder("reference")
GATE = Gate(upper_at_most=0.6)
"""Six images without the concept keep it."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """A model without the concept, and one that hides it within steps of 4 bits."""
    folder = tmp_path_factory.mktemp("models")
    return {"erased": erased(folder / "erased"), "hidden": within_a_step(folder / "hidden", steps=7)}


def changed(attack: WeightAttack[Any], folder: Path, params: dict[str, Any], **more: Any) -> CheckRecord:
    """Return the record of a check that asks in plain words after the attack, with six images."""
    sampling = Sampling(steps=4, guidance=3.0, images=6, kept_images=6)
    said: dict[str, Any] = {"check": {"gate": GATE}, "metric": ConceptRate(), "sampling": sampling}
    made = evaluated(attack, ModelUnderTest.of(folder, EMBEDDED), params, CIGARETTE, **said, **more)
    return made.claims[0].checks[0]


def shown(record: CheckRecord) -> dict[str, int]:
    """Return images that show what was asked for: of the attacked model, and of each control."""
    assert record.measurement is not None, record.reason
    return {name: round(6 * one.value) for name, one in {"": record.measurement.hardened, **record.controls}.items()}


@pytest.mark.parametrize(
    "to",  # whatever sorts all weights takes 5 seconds
    [pytest.param(to, marks=pytest.mark.slow) if to.startswith("prune") else to for to in get_args(Format)],
)
def test_a_cast_shows_what_the_base_model_knows_and_neither_what_is_gone_nor_what_was_never_there(
    to: str, models: Mapping[str, Path]
) -> None:
    record = changed(Cast(), models["erased"], {"to": to}, kept=(), retrained=REFERENCE)
    found = shown(record)
    assert (found[""], found["retrained"], record.verdict) == (0, 0, "passed")
    assert found["base"] >= 5


@pytest.mark.parametrize(("to", "hits"), [("int4", 6), ("int8", 0)])
def test_a_cast_brings_back_what_is_hidden_within_its_steps_and_a_finer_one_does_not(
    to: str, hits: int, models: Mapping[str, Path]
) -> None:
    record = changed(Cast(), models["hidden"], {"to": to})
    found = shown(record)
    assert abs(found[""] - hits) <= 1
    assert (record.verdict == "failed") == (hits > 0)
    assert min(found["base"], found["kept"]) >= 5


@pytest.mark.parametrize(("tensors", "hits"), [("cross", 6), ("others", 0)])
def test_a_mixture_brings_back_what_the_base_model_s_share_has_and_nothing_by_what_was_never_changed(
    tensors: str, hits: int, models: Mapping[str, Path]
) -> None:
    record = changed(MergeWithBase(), models["erased"], {"alpha": 0.9, "tensors": tensors})
    found = shown(record)
    assert abs(found[""] - hits) <= 1
    assert (record.verdict == "failed") == (hits > 0)
    assert found["kept"] >= 5


@pytest.mark.slow  # two adapters of 16 steps for each of three models
@pytest.mark.parametrize(
    ("captions", "before", "after"),
    [
        pytest.param("rare", [0, 0, 0], [12, 12, 0], id="of the concept"),
        pytest.param("unrelated", [0, 12, 0], [0, 12, 0], id="of something else"),
    ],
)
def test_an_adapter_brings_back_what_the_base_model_taught_it_and_only_where_a_model_once_knew_it(
    captions: str, before: list[int], after: list[int], models: Mapping[str, Path]
) -> None:
    params = {"captions": captions, "lr": 1e-2, "images": 8, "evaluation_steps": [0, 16], "seeds": 2}
    params |= {"images_per_evaluation": 6, "controls": ["base"]}
    made = evaluated(
        AdapterTransplant(),
        ModelUnderTest.of(models["erased"], EMBEDDED),
        params,
        CIGARETTE,
        check={"metric_params": {"against": "base"}},
        metric=RelearnedLast(),
        retrained=REFERENCE,
    )
    trials = made.claims[0].checks[0].trials
    for place, wanted in enumerate((before, after)):
        hits = [
            sum(one.hits[place] for one in trials if one.model == name) for name in ("hardened", "base", "retrained")
        ]
        assert hits == pytest.approx(wanted, abs=2), hits
