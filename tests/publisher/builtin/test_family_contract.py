"""All families keep one contract, each on a very small model; the page of families says what they can do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from publisher.errors import ModelError
from publisher.registry import load_registry
from publisher.testing.of_families import BY_WEIGHTS, BY_WORDS
from publisher.testing.plugin import SCOPE, PluginUnderTest
from support.tiny_families import TINY

FAMILIES = {
    entry.name: entry.cls for entry in load_registry().all("family") if entry.origin.distribution == "model-publisher"
}


@pytest.fixture(scope="module")
def tested(tiny_family: Callable[[str], Path]) -> dict[str, PluginUnderTest]:
    """Each family with a very small model of it."""
    return {name: PluginUnderTest(cls, folder=tiny_family(name)) for name, cls in FAMILIES.items()}


def test_every_family_has_a_very_small_model() -> None:
    assert set(TINY) == set(FAMILIES)


@pytest.mark.parametrize("rule", [*BY_WORDS, *BY_WEIGHTS])
@pytest.mark.parametrize("family", FAMILIES)
def test_it_keeps_the_rule(family: str, rule: str, tested: dict[str, PluginUnderTest]) -> None:
    {**BY_WORDS, **BY_WEIGHTS}[rule](tested[family])


STEPS = {
    entry.name: entry.cls
    for entry in load_registry().all("step")
    if entry.origin.distribution == "model-publisher" and entry.name != "apply"
}
"""Steps that read a model's anatomy: all but ``apply``, which reads files of tensors."""
PARAMS: dict[str, dict[str, Any]] = {
    "freeze-mask": {"concepts": ["cigarette"], "innocents": ["dog"]},
    "membrane-bundle": {"surrogates": {"cigarette": "pizza"}, "preset": "large"},
    "immunize": {"preset": "large"},
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_is_planned_or_refused_as_the_page_of_families_says(
    family: str, step: str, tested: dict[str, PluginUnderTest]
) -> None:
    model, cls = tested[family].model.base, STEPS[step]
    works = not set(cls.requires.needs) & set(FAMILIES[family].lacks)
    try:
        model.anatomy.require(cls.requires.needs, step)
        params = cls().decide(cls.Params.parse(PARAMS.get(step, {})), SCOPE, model)
        changes = cls().plan(params, SCOPE, model)
    except ModelError as error:
        assert not works, str(error)  # noqa: PT017
    else:
        assert works
        assert changes is not None
