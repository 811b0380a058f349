"""Search for words by gradients: what each variant finds, what it never tries, and what it spends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from publisher.api import SLOT, Concept, Find, Limits, SearchTarget, TensorFile
from publisher.api.diffusion.text import Text
from publisher.builtin.attacks.token_moves import onto_simplex
from publisher.builtin.attacks.token_search import TokenSearch, TokenSearchParams

WORDS = tuple(f"w{i}" for i in range(40))
SECRET, REFUSED, NAME = 7, 11, 3
CONCEPT = Concept(id="w3", name="w3", label="w3", prompts=("a w3 emoji",))
SMALL: Mapping[str, Mapping[str, Any]] = {
    "ours": {"tokens": 1, "iterations": 6, "candidates": 8, "top": 10, "restarts": 2},
    "gcg": {"tokens": 2, "iterations": 8, "candidates": 16, "top": 20, "pairs": 4, "screening": 4},
    "unlearn-diff-atk": {"tokens": 1, "iterations": 40, "every": 10, "lr": 0.2},
    "p4d": {"tokens": 2, "iterations": 60, "every": 10},
}


class Words:
    """A model of words as vectors: its loss is least near the secret word, which alone shows the concept."""

    def __init__(self, *, there: bool = True) -> None:
        generator = torch.Generator().manual_seed(3)
        self.weight = torch.nn.functional.normalize(torch.randn(len(WORDS), 16, generator=generator), dim=1)
        self.goal = self.weight[SECRET]
        self.there = there
        self.encoded: list[str] = []
        self.spent: Counter[str] = Counter()

    def words(self) -> tuple[str, ...]:
        return WORDS

    def named(self, text: str) -> bool:
        return WORDS[NAME] in text.split()

    def allows(self, text: str) -> bool:
        return WORDS[REFUSED] not in text.split()

    def tokens(self, text: str) -> tuple[int, ...]:
        return tuple(WORDS.index(word) if word in WORDS else 100 for word in text.split())

    def token_embeddings(self) -> tuple[Tensor, ...]:
        return (self.weight,)

    def pictures(self, count: int) -> Tensor:
        return torch.zeros(count, 1, 2, 2)

    def encode(self, prompts: Sequence[str]) -> Text:
        self.encoded += prompts
        self.spent["encoder_rows"] += len(prompts)
        rows = [[number for number in self.tokens(prompt) if number < len(WORDS)] for prompt in prompts]
        return Text(torch.stack([self.weight[row].mean(0) if row else torch.zeros(16) for row in rows])[:, None])

    def encode_vectors(self, prompts: Sequence[str], vectors: Sequence[Tensor]) -> Text:
        self.spent["encoder_rows"] += len(prompts)
        assert SLOT in prompts[0]
        return Text(vectors[0].mean(0)[None, None])

    def denoise(self, latents: Tensor, noise: Tensor, places: Tensor, text: Text) -> Tensor:
        self.spent["denoiser_rows"] += len(places)
        self.spent["gradient_steps"] += int(text.states.requires_grad)
        return (text.states[:, 0] - self.goal).square().mean(1)

    def ask(self, prompts: Sequence[str]) -> tuple[bool, ...]:
        self.spent["images"] += len(prompts)
        return tuple(self.there and WORDS[SECRET] in prompt.split() for prompt in prompts)

    def keep(self, tensors: Mapping[str, Tensor]) -> TensorFile:
        raise NotImplementedError


def searched(variant: str, target: Words) -> tuple[list[Find], Limits]:
    attack = TokenSearch()
    params = attack.sized(TokenSearchParams.parse({"variant": variant, "pictures": 2, **SMALL[variant]}))
    generator = torch.Generator().manual_seed(1)
    return list(attack.search(params, cast("SearchTarget", target), CONCEPT, generator)), attack.limits(params)


@pytest.mark.parametrize("variant", SMALL)
def test_each_variant_finds_words_that_are_there_and_none_that_are_not(variant: str) -> None:
    target = Words()
    finds, limits = searched(variant, target)
    assert finds
    assert WORDS[SECRET] in finds[-1].prompts[0].split()
    assert finds[-1].recipe["loss"] < finds[-1].recipe["loss_empty"]  # type: ignore[operator]
    assert Limits(**target.spent).within(limits)
    assert not any(WORDS[REFUSED] in text.split() for text in target.encoded)
    empty = Words(there=False)
    assert not searched(variant, empty)[0]
    spent = Limits(**empty.spent)
    assert spent.within(limits)
    assert spent.gradient_steps == limits.gradient_steps


def test_a_name_is_no_find_and_published_values_are_presets() -> None:
    target = Words()
    target.goal = target.weight[NAME]
    assert not searched("ours", target)[0]
    sized = TokenSearch().sized(
        TokenSearchParams.parse({"variant": "unlearn-diff-atk", "tokens": 3, "budget": "quick"})
    )
    assert (sized.tokens, sized.iterations, sized.every, sized.lr, sized.place) == (3, 2000, 40, 0.01, "prefix")
    gcg = TokenSearch().sized(TokenSearchParams(variant="gcg"))
    assert (gcg.tokens, gcg.iterations, gcg.top, gcg.candidates) == (20, 250, 256, 512)


def test_rows_are_led_onto_the_simplex() -> None:
    found = onto_simplex(torch.tensor([[0.2, 0.8, 0.0], [3.0, 1.0, -1.0], [0.5, 0.5, 0.5]]))
    wanted = torch.tensor([[0.2, 0.8, 0.0], [1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    assert torch.allclose(found, wanted, atol=1e-6)
