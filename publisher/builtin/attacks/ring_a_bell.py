"""A concept as a direction of the text encoder, added to what is asked for (Ring-A-Bell, arXiv 2310.10012).

    v = mean over i of (enc(with_i) - enc(without_i))        c* = enc(p) + eta v

``with_i`` are the concept's prompts, ``without_i`` those of the kept concept that reads most like it, and p too. The
soft form generates with c* itself, as the evaluation code of RECE does; it needs the weights. The hard form looks for
words whose text states are nearest to c*, by a genetic search, and asks with these words. It needs the text encoder
alone, which most erasers leave as it is.

| here | paper | what |
|---|---|---|
| ``etas`` | eta | strength of the direction |
| ``tokens`` | K | words that stand in place of the name |
| ``individuals`` | population | rows of words in each generation |

Deviations: words stand in the form of a prompt and can be typed; survivors are not encoded again; what the search
found is judged once more, on fresh seeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from publisher.api import Access, Concept, Find, Limits, SearchAttack, SearchParams, SearchTarget, split_at_name
from publisher.builtin.attacks.narrowing import AGAIN, LEAST, Row, finds, forms, narrowed, own_prompts, vocabulary

if TYPE_CHECKING:
    import torch

    from publisher.api.diffusion.text import Text

PAIRS = 24
"""Most pairs of prompts with and without the concept."""
MUTATED = 0.25
"""Share of children in which one word is replaced by a random one. The paper's."""
SHOWN = 2
"""Images of each row of words that the search looks at first."""
Words = tuple[str, ...]


class RingABellParams(SearchParams):
    """Parameters of ``ring-a-bell``."""

    ways: tuple[Literal["soft", "hard"], ...] | None = Field(default=None, min_length=1)
    """``soft``: text states themselves. ``hard``: words whose text states are near them. Default: by the budget."""
    etas: tuple[Annotated[float, Field(gt=0, le=100)], ...] | None = Field(default=None, min_length=1)
    """Strengths of the direction, each on its own. Default: by the budget."""
    images: int | None = Field(default=None, ge=1, le=1000)
    """Images by which the soft form compares them. Default: by the budget."""
    tokens: int = Field(default=3, ge=1, le=75)
    """Words of the hard form. Published: 16, or 75 for the longest, in place of the whole prompt."""
    individuals: int = Field(default=200, ge=4, le=10_000)
    """Rows of words in each generation; the better half stays. Paper: 200."""
    generations: int | None = Field(default=None, ge=1, le=100_000)
    """Generations for each strength. Paper: 3,000. Default: by the budget."""
    patience: int = Field(default=200, ge=1, le=100_000)
    """Generations without a better row after which the search for words ends."""
    best: int = Field(default=4, ge=1, le=1000)
    """Rows of words for each strength that are asked."""


class RingABell(SearchAttack[RingABellParams]):
    """Add the direction in which the text encoder tells the concept from others to a prompt that does not name it."""

    name = "ring-a-bell"
    version = "3"
    summary = "the concept's direction in the text encoder added to other prompts, as states or as words (Ring-A-Bell)"
    access = Access.EMBEDDING
    grants = frozenset({Access.SEARCH, Access.EMBEDDING})
    floors = ("retrained", "shuffled")
    suites = frozenset({"standard", "thorough"})
    budgets = MappingProxyType(
        {
            "quick": {"ways": ["soft"], "etas": [2.0], "images": 12, "generations": 1},
            "standard": {
                "ways": ["soft", "hard"],
                "etas": [0.5, 1.0, 2.0, 3.0, 4.0],
                "images": 24,
                "generations": 40,
            },
            "thorough": {
                "ways": ["soft", "hard"],
                "etas": [0.5, 1.0, 2.0, 3.0, 4.0],
                "images": 60,
                "generations": 400,
            },
        }
    )

    def limits(self, params: RingABellParams) -> Limits:
        """Return the images and texts of both forms, for each strength."""
        etas, ways = len(params.etas or ()), params.ways or ()
        soft = etas * (params.images or 0) if "soft" in ways else 0
        hard = etas * params.best * (SHOWN + AGAIN) if "hard" in ways else 0
        born = params.individuals - params.individuals // 2
        rows = etas * (params.individuals + (params.generations or 0) * born) if "hard" in ways else 0
        return Limits(images=soft + hard, encoder_rows=rows + 2 * PAIRS)

    def search(
        self, params: RingABellParams, target: SearchTarget, concept: Concept, generator: torch.Generator
    ) -> Iterator[Find]:
        """Yield the states and the words that showed the concept at least twice."""
        shown, others = _pairs(target, concept)
        if not shown:
            return
        text = target.encode([*shown, *others])
        for eta in params.etas or ():
            moved = _moved(text, len(shown), eta)
            if "soft" in (params.ways or ()):
                yield from _soft(params, target, others, moved, eta)
            if "hard" in (params.ways or ()):
                breeding = _Breeding(params, target, concept, moved.states[_plainest(others)], generator)
                rows = [Row((prompt,)) for prompt in breeding.best()]
                best, _ = narrowed(target, rows, SHOWN, params.best)
                for find in finds(best, {}):
                    yield find.model_copy(update={"recipe": {"way": "hard", "eta": eta}})


def _pairs(target: SearchTarget, concept: Concept) -> tuple[list[str], list[str]]:
    """Return prompts with the concept and as many without it.

    Where no other concept is kept, the name is left out of them.
    """
    shown = list(own_prompts(target, concept))[:PAIRS]
    other = [one for one in target.alternatives() if one not in shown]
    nameless = (" ".join("".join(split_at_name(prompt, concept.name)).split()) for prompt in shown)
    without = other or list(filter(target.allows, nameless))
    count = min(len(shown), len(without))
    return shown[:count], without[:count]


def _plainest(prompts: Sequence[str]) -> int:
    """Return the place of the shortest prompt."""
    return min(range(len(prompts)), key=lambda place: len(prompts[place]))


def _moved(text: Text, count: int, eta: float) -> Text:
    """Return the states without the concept, moved in its direction.

    Args:
        text: ``count`` rows with the concept, then as many without it.
        count: of pairs.
        eta: strength.
    """
    from publisher.api.diffusion.text import Text as States

    states = text.states[count:] + eta * (text.states[:count] - text.states[count:]).mean(0)
    pooled = text.pooled
    if pooled is not None:
        pooled = pooled[count:] + eta * (pooled[:count] - pooled[count:]).mean(0)
    return States(states, pooled, None if text.mask is None else text.mask[count:])


def _soft(
    params: RingABellParams, target: SearchTarget, prompts: Sequence[str], moved: Text, eta: float
) -> Iterator[Find]:
    from publisher.api.diffusion.text import Text as States

    images = params.images or 0
    rows = [i % len(prompts) for i in range(images)]
    pooled, mask = (None if part is None else part[rows] for part in (moved.pooled, moved.mask))
    hits = sum(target.ask_states(States(moved.states[rows], pooled, mask), [prompts[i] for i in rows]))
    if hits >= LEAST:
        tensors = {"states": moved.states} | ({} if moved.pooled is None else {"pooled": moved.pooled})
        recipe: dict[str, str | float] = {"way": "soft", "eta": eta}
        kept = target.keep(tensors)
        yield Find(kind="states", prompts=tuple(prompts), tensors=kept, recipe=recipe, score=hits / images)


class _Breeding:
    """A genetic search for words whose text states are near a goal."""

    def __init__(
        self,
        params: RingABellParams,
        target: SearchTarget,
        concept: Concept,
        goal: torch.Tensor,
        generator: torch.Generator,
    ) -> None:
        self._params, self._target, self._goal, self._generator = params, target, goal, generator
        self._form = min(forms(concept), key=lambda form: len("".join(form)))
        self._words = vocabulary(target, 1000, None)
        self._known: dict[Words, float] = {}

    def best(self) -> list[str]:
        """Return the prompts of the rows that came nearest, the nearest first."""
        size, since, least = self._params.individuals, 0, float("inf")
        living = self._measured(self._drawn() for _ in range(size))
        for _ in range(self._params.generations or 0):
            stay = living[: size // 2]
            living = self._measured([*stay, *(self._child(stay) for _ in range(size - len(stay)))])
            nearest = self._known[living[0]]
            since = 0 if nearest < least else since + 1
            least = min(least, nearest)
            if since >= self._params.patience:
                break
        return [self._prompt(one) for one in dict.fromkeys(living)][: self._params.best]

    def _prompt(self, words: Words) -> str:
        return f"{self._form[0]}{' '.join(words)}{self._form[1]}"

    def _measured(self, rows: Iterator[Words] | list[Words]) -> list[Words]:
        """Return the rows that may be tried, the nearest first; only new ones are encoded."""
        fine = [one for one in rows if self._target.allows(self._prompt(one)) and not self._target.named(" ".join(one))]
        new = [one for one in dict.fromkeys(fine) if one not in self._known]
        if new:
            states = self._target.encode([self._prompt(one) for one in new]).states
            count = min(states.shape[1], self._goal.shape[0])
            far = (states[:, :count] - self._goal[:count]).square().sum((1, 2))
            self._known |= dict(zip(new, far.tolist(), strict=True))
        return sorted(fine, key=self._known.__getitem__)

    def _child(self, parents: Sequence[Words]) -> Words:
        """Return a child of two parents: the first words of one, the last of the other; one may be replaced."""
        first, second = parents[self._below(len(parents))], parents[self._below(len(parents))]
        cut = self._below(len(first) + 1)
        child = [*first[:cut], *second[cut:]]
        if self._below(1000) < MUTATED * 1000:
            child[self._below(len(child))] = self._words[self._below(len(self._words))]
        return tuple(child)

    def _drawn(self) -> Words:
        return tuple(self._words[self._below(len(self._words))] for _ in range(self._params.tokens))

    def _below(self, count: int) -> int:
        """Return a random number from 0 to one less than ``count``."""
        import torch

        return int(torch.randint(count, (), generator=self._generator))
