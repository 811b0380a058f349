"""Membranes that open by what a prompt is about to generate, whatever its words."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from publisher.api.membranes import MembraneIndex, PredictionGate, Transport
from publisher.errors import ModelError
from publisher.runtime.pipelines import twin
from publisher.safeguards.membranes.attached import attach
from publisher.safeguards.membranes.prediction import directions, likeness
from support.attaching import images, members_for

JUNK, DRAWS = "a ke emoji in firefox style", "a skull emoji in firefox style"
PROMPTS = [JUNK, "a dog emoji", "a pizza emoji in firefox style"]
WORDS = Transport(score="overlap")
BOTH = WORDS.model_copy(update={"prediction": PredictionGate()})


def skull(pipeline: Any) -> Any:
    return [
        (entry.model_copy(update={"words": ("skull",), "texts": ("a skull emoji", DRAWS)}), membrane)
        for entry, membrane in members_for(pipeline.unet, ("skull",))
    ]


def test_words_that_mean_nothing_open_the_membrane_of_what_they_draw(loaded: Any) -> None:
    with attach(loaded, skull(loaded), WORDS) as attached:
        assert attached.permeabilities(PROMPTS)[:, 0].tolist() == [0, 0, 0]
    with attach(loaded, skull(loaded), BOTH) as attached:
        assert attached.permeabilities(PROMPTS)[:, 0].tolist() == [2, 0, 0]
        assert attached.permeabilities(PROMPTS[:1]).tolist() == [[2]]


def test_a_prompt_that_draws_something_else_gives_the_bases_image_bit_for_bit(loaded: Any) -> None:
    base = images(loaded, PROMPTS)
    with attach(loaded, skull(loaded), BOTH) as attached:
        generated = images(loaded, PROMPTS)
        assert attached.last is not None
        assert attached.last.matrix[:, 0].tolist() == [2, 0, 0]
    assert torch.equal(generated[1:], base[1:])
    assert not torch.equal(generated[0], base[0])


def test_likeness_is_that_of_predictions_from_noise_of_the_shut_denoiser(loaded: Any) -> None:
    rule = PredictionGate(points=3, timestep=0.8, seed=5)
    texts = ["", DRAWS, JUNK]
    noise = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        states = loaded.encode_prompt(texts, "cpu", 1, False)[0]
        said = [loaded.unet(noise, 799, row.expand(3, -1, -1)).sample.flatten(1) for row in states]
    plain = [torch.nn.functional.normalize(one - said[0], dim=1) for one in said[1:]]
    expected = float((plain[0] * plain[1]).sum(1).mean())
    with (
        attach(loaded, skull(loaded), WORDS.model_copy(update={"prediction": rule})) as attached,
        attached.at({"skull": 1}),
    ):
        predictor: Any = attached._scorer
        empty, *found = predictor._predictor.predictions(states).split(1)
    concept, junk = (directions(one, empty) for one in found)
    assert float(likeness(junk, concept)) == pytest.approx(expected, abs=1e-5)


def test_a_denoiser_that_reads_more_than_text_is_refused(loaded: Any) -> None:
    own = twin(loaded)
    own.unet = copy.deepcopy(loaded.unet)
    own.unet.register_to_config(addition_embed_type="text_time")
    with pytest.raises(ModelError, match="reads latents and text alone"):
        attach(own, skull(loaded), BOTH)
    assert not own.unet._forward_pre_hooks


def test_a_package_says_by_what_its_membranes_open(loaded: Any) -> None:
    entries = tuple(entry for entry, _ in skull(loaded))
    plain, predicting = (MembraneIndex(mode="bundle", transport=one, entries=entries) for one in (WORDS, BOTH))
    assert b"prediction" not in plain.as_file()
    assert MembraneIndex.parse(predicting.as_json()).transport.prediction == PredictionGate()


@pytest.mark.parametrize("gate", [None, PredictionGate()])
def test_concepts_are_asked_again_once_an_adapter_may_have_changed_the_encoder(
    loaded: Any, gate: PredictionGate | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedding = loaded.text_encoder.get_input_embeddings().weight
    before = embedding.detach().clone()
    rule = Transport(score="cosine", prediction=gate)
    with attach(loaded, skull(loaded), rule) as attached:
        shut = float(attached.permeabilities(["a skull emoji"]))
        try:
            monkeypatch.setattr(loaded.text_encoder, "peft_config", {"an adapter": None}, raising=False)
            with torch.no_grad():
                embedding += 0.3 * torch.randn(embedding.shape, generator=torch.Generator().manual_seed(0))
            assert float(attached.permeabilities(["a skull emoji"])) == pytest.approx(shut, abs=1e-4)
        finally:
            with torch.no_grad():
                embedding.copy_(before)
