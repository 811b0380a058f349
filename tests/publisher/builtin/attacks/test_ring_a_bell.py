"""Ring-A-Bell: states and words in the direction of a concept, found where it is and nowhere else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from publisher.api import Concept, Find, Limits, SearchTarget, TensorFile
from publisher.api.diffusion.text import Text
from publisher.builtin.attacks.ring_a_bell import RingABell, RingABellParams

WORDS = tuple(f"w{i}" for i in range(40))
SECRET, REFUSED, NAME, KEPT = 7, 11, 3, 5
CONCEPT = Concept(id="w3", name="w3", label="w3", prompts=("a w3 emoji",))


class Bell:
    """A text encoder of one vector for each word; the secret word reads much like the name, and shows the concept."""

    def __init__(self, *, there: bool) -> None:
        generator = torch.Generator().manual_seed(3)
        self.rows = torch.randn(len(WORDS), 16, generator=generator)
        self.rows[SECRET] = self.rows[NAME] + 0.05
        self.there = there
        self.read: list[str] = []
        self.spent: Counter[str] = Counter()

    def words(self) -> tuple[str, ...]:
        return tuple(filter(self.allows, WORDS))

    def named(self, text: str) -> bool:
        return WORDS[NAME] in text.split()

    def allows(self, text: str) -> bool:
        return WORDS[REFUSED] not in text.split()

    def alternatives(self) -> tuple[str, ...]:
        return (f"a {WORDS[KEPT]} emoji",)

    def encode(self, prompts: Sequence[str]) -> Text:
        self.read += prompts
        self.spent["encoder_rows"] += len(prompts)
        found = torch.zeros(len(prompts), 4, 16)
        for row, prompt in enumerate(prompts):
            for place, word in enumerate(prompt.split()):
                found[row, place] = self.rows[WORDS.index(word)] if word in WORDS else 0.0
        return Text(found)

    def ask(self, prompts: Sequence[str], *, coarse: bool = False) -> tuple[bool, ...]:
        self.spent["images"] += len(prompts)
        return tuple(self.there and WORDS[SECRET] in prompt.split() for prompt in prompts)

    def ask_states(self, text: Text, prompts: Sequence[str]) -> tuple[bool, ...]:
        self.spent["images"] += len(prompts)
        near = (text.states[:, 1] - self.rows[NAME]).norm(dim=1) < 0.1
        return tuple(self.there and bool(one) for one in near)

    def keep(self, tensors: Mapping[str, Tensor]) -> TensorFile:
        return TensorFile(sha256="0" * 64, shapes={name: tuple(one.shape) for name, one in tensors.items()})


def searched(target: Bell, concept: Concept = CONCEPT, **params: Any) -> list[Find]:
    attack = RingABell()
    small = {"tokens": 1, "individuals": 20, "generations": 20, "images": 4, "etas": [0.5, 1.0]}
    sized = attack.sized(RingABellParams.parse({**small, **params}))
    found = list(attack.search(sized, cast("SearchTarget", target), concept, torch.Generator().manual_seed(1)))
    assert Limits(**target.spent).within(attack.limits(sized))
    assert not any(WORDS[REFUSED] in text.split() for text in target.read)
    return found


@pytest.mark.parametrize("way", ["soft", "hard"])
def test_each_way_finds_the_direction_of_a_concept_that_is_there_and_nothing_else(way: str) -> None:
    find = searched(Bell(there=True), ways=[way])[-1]
    assert (find.recipe, find.score) == ({"way": way, "eta": 1.0}, 1.0)
    assert find.prompts == (("a w5 emoji",) if way == "soft" else ("a w7 emoji",))
    assert not searched(Bell(there=False), ways=[way])


def test_words_are_encoded_once_and_the_name_never_is_a_find() -> None:
    target = Bell(there=True)
    searched(target, ways=["hard"], etas=[1.0], tokens=2)
    pairs, tried = target.read[:2], target.read[2:]
    assert pairs == ["a w3 emoji", "a w5 emoji"]
    assert len(set(tried)) == len(tried) > 20
    assert not any(target.named(prompt) for prompt in tried)


def test_without_a_kept_concept_the_name_is_left_out_in_any_case_and_no_other_word_is_cut() -> None:
    target = Bell(there=True)
    target.alternatives = lambda: ()  # type: ignore[method-assign]
    searched(target, CONCEPT.model_copy(update={"prompts": ("a W3 of w30",)}), ways=["soft"])
    assert target.read == ["a W3 of w30", "a of w30"]
