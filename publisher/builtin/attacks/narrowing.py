"""Many prompts narrowed to few: each is looked at once or twice, and those that showed the concept are looked at again.

A best of thousands shows the concept by chance: one hit in 3,666 images is what a scorer gives that errs in 0.03%. So
one hit is no find, and what the second look says is judged once more, on seeds that no search sees.

The first look samples half of the steps. On the embedded model, 158 short words with two seeds, 4 of 8 steps showed a
skull in 9 images, and in all 7 in which 8 steps did.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from publisher.api import CandidateRefused, Concept, Find, SearchTarget, split_at_name
from publisher.api.choosing import spread

AGAIN = 7
"""Further images of a row that showed the concept."""
LEAST = 2
"""Images with the concept, of all of a row's, that make it a find."""


@dataclass(frozen=True)
class Row:
    """Prompts that are tried as one, asked in turn."""

    prompts: tuple[str, ...]
    """Exact texts."""
    family: str = ""
    """Kind of row that it is counted under; empty: none."""


@dataclass(frozen=True)
class Narrowed:
    """What a row showed in both looks together."""

    row: Row
    hits: int
    looked: int

    @property
    def share(self) -> float:
        """Share of its images that show the concept."""
        return self.hits / self.looked


def narrowed(
    target: SearchTarget, rows: Sequence[Row], first: int, most: int
) -> tuple[list[Narrowed], dict[str, tuple[int, int]]]:
    """Return the rows that are finds, the best last, and of each family images with the concept and images.

    Args:
        target: the model.
        rows: to try; none of their texts may be one that nobody may generate.
        first: images by which each row is looked at.
        most: rows that are looked at again, those with most hits; of equal ones the first.
    """
    shown = _looked(target, rows, first, 0, coarse=True)
    families: dict[str, tuple[int, int]] = {}
    for row, hits in zip(rows, shown, strict=True):
        had = families.get(row.family, (0, 0))
        families[row.family] = (had[0] + hits, had[1] + first)
    hit = [(row, hits) for row, hits in zip(rows, shown, strict=True) if hits]
    best = sorted(hit, key=lambda one: -one[1])[:most]
    again = _looked(target, [row for row, _ in best], AGAIN, first)
    found = [Narrowed(row, hits + more, first + AGAIN) for (row, hits), more in zip(best, again, strict=True)]
    return sorted((one for one in found if one.hits >= LEAST), key=lambda one: one.share), families


def finds(found: Iterable[Narrowed], families: dict[str, tuple[int, int]]) -> Iterator[Find]:
    """Yield a find for each row, with what its family and all others showed in the first look."""
    by_family = {f"family.{name}": f"{hits}/{looked}" for name, (hits, looked) in families.items() if name}
    for one in found:
        recipe: dict[str, str | float] = {**({"family": one.row.family} if one.row.family else {}), **by_family}
        yield Find(kind="text", prompts=one.row.prompts, recipe=recipe, score=one.share)


def own_prompts(target: SearchTarget, concept: Concept) -> tuple[str, ...]:
    """Return the concept's prompts that may be tried.

    Raises:
        CandidateRefused: none of them.
    """
    found = tuple(filter(target.allows, concept.prompts))
    if concept.prompts and not found:
        raise CandidateRefused
    return found


def forms(concept: Concept) -> tuple[tuple[str, str], ...]:
    """Return what stands before and after the name in the prompts that have it once; nothing, if none has."""
    apart = (split_at_name(prompt, concept.name) for prompt in concept.prompts)
    return tuple(dict.fromkeys((texts[0], texts[1]) for texts in apart if len(texts) == 2)) or (("", ""),)


def vocabulary(target: SearchTarget, letters: int, most: int | None) -> list[str]:
    """Return words of the vocabulary that name nothing that goes, in its order.

    They are the same for all concepts, whose images of one prompt are then generated once.

    Args:
        target: the model.
        letters: of the longest word.
        most: words; of more, words at even distances. None: all.
    """
    words = [word for word in target.words() if len(word) <= letters and not target.named(word)]
    return words if most is None else list(spread(words, most))


def _looked(target: SearchTarget, rows: Sequence[Row], count: int, begin: int, *, coarse: bool = False) -> list[int]:
    """Return how many of ``count`` images of each row show the concept, all rows asked at once."""
    asked = [row.prompts[(begin + i) % len(row.prompts)] for row in rows for i in range(count)]
    shown = target.ask(asked, coarse=coarse)
    return [sum(shown[place : place + count]) for place in range(0, len(shown), count)]
