"""Facilitated transport: from words to permeabilities, against the formula written out plainly."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from publisher.api.membranes import STOP_WORDS, Transport
from publisher.safeguards.membranes.attached import attach
from publisher.safeguards.membranes.scoring import prompt_tokens
from publisher.safeguards.membranes.transport import cosine, flatten, overlap, permeability, token_sets, word_sets
from support.attaching import members_for

PROMPTS = ["a pizza emoji", "a dog emoji in noto style", "the cat and the pizza", ""]
EVERY = Transport(stop_words=())


def plainly(pipeline: Any, prompt: str, concept: str) -> float:
    """Return the paper's permeability of one prompt and one concept."""

    def states(text: str) -> torch.Tensor:
        read = pipeline.tokenizer(
            text, padding="max_length", max_length=pipeline.tokenizer.model_max_length, truncation=True
        ).input_ids
        with torch.no_grad():
            found: torch.Tensor = pipeline.text_encoder(torch.tensor([read]))[0].double().flatten()
        return found

    p, c = states(prompt), states(concept)
    cos = float(p @ c / (p.norm() * c.norm()))
    tokens = [set(pipeline.tokenizer.tokenize(text)) for text in (prompt, concept)]
    return max(cos, len(tokens[0] & tokens[1]) / len(tokens[1]))


def test_permeabilities_are_the_papers(loaded: Any) -> None:
    concepts = ("pizza", "a cat", "noto style")
    with attach(loaded, members_for(loaded.unet, concepts, file="m.safetensors"), EVERY) as attached:
        found = attached.permeabilities(PROMPTS)
    assert (found.shape, found.dtype) == ((4, 3), torch.float32)
    wanted = [[plainly(loaded, prompt, concept) for concept in concepts] for prompt in PROMPTS]
    torch.testing.assert_close(found, torch.tensor(wanted), atol=1e-5, rtol=0)


def test_a_call_opens_what_can_be_asked_for_without_drawing(loaded: Any) -> None:
    with attach(loaded, members_for(loaded.unet)) as attached:
        loaded(PROMPTS, num_inference_steps=1, output_type="latent")
        assert attached.last is not None
        torch.testing.assert_close(attached.last.matrix, attached.permeabilities(PROMPTS))


def test_many_prompts_are_scored_in_batches_and_none_at_all_too(loaded: Any) -> None:
    with attach(loaded, members_for(loaded.unet)) as attached:
        many = attached.permeabilities(PROMPTS * 20)
        torch.testing.assert_close(many[76:], attached.permeabilities(PROMPTS))
        assert attached.permeabilities([]).shape == (0, 2)


def test_aliases_and_further_texts_open_a_membrane_as_far_as_the_best_of_them(loaded: Any) -> None:
    members = members_for(loaded.unet, ("pizza",), words=("pizza", "hot dog"), texts=("pizza", "a dog emoji"))
    with attach(loaded, members) as attached:
        assert attached.permeabilities(["hot dog"]).item() == 1.0
        assert attached.permeabilities(["a dog emoji"]).item() == pytest.approx(1.0, abs=1e-6)
    with attach(loaded, members, Transport(score="overlap")) as attached:
        (of_alias,) = token_sets(loaded.tokenizer, ["hot dog"])
        assert attached.permeabilities(["a dog emoji"]).item() == pytest.approx(1 / len(of_alias))


def test_a_membranes_own_strength_multiplies_its_column_alone(loaded: Any) -> None:
    plain, doubled = (members_for(loaded.unet), members_for(loaded.unet))
    doubled[1] = (doubled[1][0].model_copy(update={"strength": 2.0}), doubled[1][1])
    with attach(loaded, plain) as attached:
        base = attached.permeabilities(PROMPTS)
    with attach(loaded, doubled) as attached:
        torch.testing.assert_close(attached.permeabilities(PROMPTS), base * torch.tensor([1.0, 2.0]))


def test_scores_in_half_precision_do_not_overflow(loaded: Any) -> None:
    """The squared norm of real text states is 6e4, the largest number of float16."""
    states = torch.full((1, 77, 768), 30.0, dtype=torch.float16)
    assert cosine(flatten(states), flatten(states)).item() == pytest.approx(1.0)


def test_prompts_are_scored_as_far_as_the_model_reads_them(loaded: Any) -> None:
    late = "dog " * loaded.tokenizer.model_max_length + "pizza"
    assert prompt_tokens(loaded, [(late,)]) == token_sets(loaded.tokenizer, ["dog"])


def test_special_tokens_in_a_prompt_or_concept_count_nothing(loaded: Any) -> None:
    end = loaded.tokenizer.eos_token
    assert token_sets(loaded.tokenizer, [f"{end} pizza", end]) == [
        *token_sets(loaded.tokenizer, ["pizza"]),
        frozenset(),
    ]
    with attach(loaded, members_for(loaded.unet, ("pizza",), words=(end,)), Transport(score="overlap")) as attached:
        assert attached.permeabilities([end, "pizza"]).tolist() == [[0.0], [0.0]]


def test_stop_words_count_only_in_a_concept_that_has_no_others(loaded: Any) -> None:
    the_cat, the, cat = token_sets(loaded.tokenizer, ["the cat", "the", "cat"])
    assert the_cat == the | cat
    assert word_sets(loaded.tokenizer, ["the cat", "the"], STOP_WORDS) == [cat, the]
    assert word_sets(loaded.tokenizer, ["the cat"], ()) == [the_cat]


def test_the_overlap_is_the_largest_share_of_a_words_tokens() -> None:
    read = [{1, 2, 3}, {4}, set[int]()]
    assert overlap(read, [{1, 9}, {1, 2, 8}, set()]).tolist() == pytest.approx([2 / 3, 0, 0])
    assert overlap(read, [set()]).tolist() == [0, 0, 0]


def test_a_cosine_below_zero_is_zero() -> None:
    assert cosine(torch.tensor([[1.0, 0.0]]), torch.tensor([[-1.0, 0.0], [-0.6, -0.8]])).item() == 0


SCORES = torch.tensor([[0.0, 0.3, 0.5, 0.8, 1.0]])


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ({}, [0, 0.3, 0.5, 0.8, 1]),
        ({"power": 2}, [0, 0.09, 0.25, 0.64, 1]),
        ({"strength": 2.0}, [0, 0.6, 1, 1.6, 2]),
        ({"threshold": 0.5}, [0, 0, 0.5, 0.8, 1]),
        ({"threshold": 0.8}, [0, 0, 0, 0.8, 1]),
        ({"threshold": 0.3, "softness": 0.5}, [0, 0, 0.2, 0.8, 1]),
        ({"threshold": 0.3, "softness": 0.5, "power": 2}, [0, 0, 0.1, 0.64, 1]),
        ({"cap": 1.3}, [0, 0.15, 0.25, 0.4, 0.5]),
        ({"cap": 3.0}, [0, 0.3, 0.5, 0.8, 1]),
    ],
)
def test_from_score_to_permeability(rule: dict[str, Any], wanted: list[float]) -> None:
    found = permeability(SCORES, Transport(**rule), torch.ones(5))
    torch.testing.assert_close(found, torch.tensor([wanted]))


def test_a_cap_on_nothing_is_nothing() -> None:
    assert permeability(torch.zeros(2, 3), Transport(cap=1.0), torch.ones(3)).tolist() == [[0] * 3] * 2


def test_the_cap_is_of_each_prompt() -> None:
    found = permeability(torch.tensor([[1.0, 1.0], [0.5, 0.25]]), Transport(cap=1.0), torch.ones(2))
    assert found.tolist() == [[0.5, 0.5], [0.5, 0.25]]
