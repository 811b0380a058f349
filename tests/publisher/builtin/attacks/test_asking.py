from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from publisher.api import Attack, Concept, NoParams, Sampling
from publisher.builtin.attacks.asking import ASKING, EmptyPrompt, GuidanceParams, GuidanceSweep, Paraphrase, Plain

SAMPLING = Sampling(steps=10, guidance=3.0, images=7, seed=100)
CIGARETTE = Concept(
    id="cigarette", name="cigarette", label="cigarette", prompts=("a", "b", "c"), paraphrases=("a smoke", "a cig")
)


def test_plain_uses_every_prompt_before_one_is_used_again() -> None:
    prompts = [request.prompt for request in Plain().requests(NoParams(), CIGARETTE, SAMPLING)]
    assert set(prompts[:3]) == {"a", "b", "c"}
    assert prompts[3:] == prompts[:4]


def test_concepts_begin_at_different_prompts() -> None:
    one = SAMPLING.model_copy(update={"images": 1})
    concepts = [CIGARETTE.model_copy(update={"id": f"concept-{i}"}) for i in range(20)]
    assert {Plain().requests(NoParams(), concept, one)[0].prompt for concept in concepts} == {"a", "b", "c"}


def test_no_seed_is_used_twice_and_the_first_is_the_samplings() -> None:
    requests = Plain().requests(NoParams(), CIGARETTE, SAMPLING)
    assert [request.seed for request in requests] == list(range(100, 107))


def test_requests_carry_the_samplings_steps_and_guidance() -> None:
    for request in Plain().requests(NoParams(), CIGARETTE, SAMPLING):
        assert (request.concept, request.steps, request.guidance) == ("cigarette", 10, 3.0)


def test_a_repeated_prompt_counts_once() -> None:
    concept = CIGARETTE.model_copy(update={"prompts": ("a", "a", "b")})
    asked = Plain().requests(NoParams(), concept, SAMPLING.model_copy(update={"images": 4}))
    assert Counter(request.prompt for request in asked) == {"a": 2, "b": 2}


def test_paraphrase_asks_in_other_words() -> None:
    counts = Counter(request.prompt for request in Paraphrase().requests(NoParams(), CIGARETTE, SAMPLING))
    assert (set(counts), set(counts.values())) == ({"a smoke", "a cig"}, {3, 4})


def test_paraphrase_has_nothing_to_ask_without_synonyms() -> None:
    concept = CIGARETTE.model_copy(update={"paraphrases": ()})
    assert Paraphrase().requests(NoParams(), concept, SAMPLING) == ()


def test_the_empty_prompt_varies_the_seed_alone() -> None:
    requests = EmptyPrompt().requests(NoParams(), CIGARETTE, SAMPLING)
    assert {request.prompt for request in requests} == {""}
    assert len({request.seed for request in requests}) == 7


@pytest.mark.parametrize(("prompts", "scales"), [(3, 3), (3, 4), (2, 4), (4, 2), (1, 3)])
def test_the_sweep_shares_images_out_over_prompts_and_scales(prompts: int, scales: int) -> None:
    concept = CIGARETTE.model_copy(update={"prompts": tuple("abcd"[:prompts])})
    params = GuidanceParams(scales=(1.0, 3.0, 7.5, 15.0)[:scales])
    sampling = SAMPLING.model_copy(update={"images": prompts * scales})
    requests = GuidanceSweep().requests(params, concept, sampling)
    assert len({(request.prompt, request.guidance) for request in requests}) == prompts * scales


def test_the_sweep_goes_from_no_guidance_to_much_by_default() -> None:
    used = {request.guidance for request in GuidanceSweep().requests(GuidanceParams(), CIGARETTE, SAMPLING)}
    assert (min(used), max(used)) == (1.0, 15.0)


@pytest.mark.parametrize("attack", ASKING, ids=lambda cls: cls.name)
def test_every_attack_asks_the_same_twice_and_as_often_as_told(attack: type[Attack[Any]]) -> None:
    first, second = (attack().requests(attack.Params(), CIGARETTE, SAMPLING) for _ in range(2))
    assert first == second
    assert len(set(first)) == 7
