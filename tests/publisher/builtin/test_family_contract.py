"""All families keep one contract, each on a very small model; the page of families says what they can do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from publisher.api import ImageRequest, denoiser_of
from publisher.api.ldm_names import single_file_places
from publisher.api.membranes import Transport
from publisher.errors import ModelError
from publisher.model.folder import read_configs
from publisher.registry import load_registry
from publisher.runtime.generate import generate
from publisher.runtime.pipelines import load
from publisher.safeguards.membranes.attached import attach
from publisher.testing.of_families import BY_WEIGHTS, BY_WORDS
from publisher.testing.plugin import SCOPE, PluginUnderTest
from support.attaching import members_for, merged
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


MEMBRANES = [name for name, cls in FAMILIES.items() if "membranes" not in cls.lacks]


@pytest.mark.parametrize("family", MEMBRANES)
def test_membranes_follow_the_positive_prompt_alone_and_shut_ones_change_no_byte(
    family: str, tested: dict[str, PluginUnderTest], tiny_family: Callable[[str], Path]
) -> None:
    anatomy = tested[family].model.base.anatomy
    pipeline = load(tiny_family(family), anatomy, torch.device("cpu"), torch.float32)
    hosts = None if anatomy.denoiser == "unet" else anatomy
    members = members_for(denoiser_of(pipeline), ("pizza",), hosts)
    texts = [("a dog", ""), ("a dog", "a pizza"), ("a pizza", ""), ("a pizza", "a dog")]
    requests = [
        ImageRequest(concept="dog", prompt=prompt, negative_prompt=negative, seed=0, steps=2, guidance=3.0)
        for prompt, negative in texts
    ]
    base = [generate(pipeline, [one]) for one in requests]
    with attach(pipeline, members, Transport(score="overlap", threshold=0.9)):
        found = [generate(pipeline, [one]) for one in requests]
    assert [torch.equal(one, plain) for one, plain in zip(found, base, strict=True)] == [True, True, False, False]
    setattr(pipeline, anatomy.denoiser, merged(denoiser_of(pipeline), members, [1.0], hosts))
    for one, request in zip(found[2:], requests[2:], strict=True):
        wanted = generate(pipeline, [request])
        assert (one.int() - wanted.int()).abs().max() <= 1


@pytest.mark.parametrize("family", FAMILIES)
def test_a_single_file_has_a_place_for_what_the_page_of_families_says(
    family: str, tested: dict[str, PluginUnderTest]
) -> None:
    """The places themselves are held against diffusers' converters in ``test_ldm_names.py``."""
    model = tested[family].model.base
    tensors = {name: dict(model.tensors(name)) for name in model.components if model.tensors(name)}
    places = single_file_places(read_configs(tested[family].place), tensors)
    said = FAMILIES[family].single_file
    held = {"": set(), "denoiser": {model.anatomy.denoiser}, "all": set(tensors)}[said]
    assert {name: set(found) for name, found in places.items()} == {name: set(tensors[name]) for name in held}


STEPS = {
    entry.name: entry.cls
    for entry in load_registry().all("step")
    if entry.origin.distribution == "model-publisher" and entry.name not in ("apply", "slices")
}
"""Steps that read a model's anatomy: all but ``apply`` and ``slices``, which read files of tensors."""
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
