"""How the variants of ``token-search`` move from text to text: swaps of words, and vectors that are led to words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from publisher.api import SLOT, Concept, SearchTarget
from publisher.api.diffusion.text import Text
from publisher.builtin.attacks.inversion import repeated, slotted
from publisher.builtin.attacks.token_search import FINALISTS

if TYPE_CHECKING:
    from publisher.builtin.attacks.token_search import TokenSearchParams

MIDDLE = 0.53
"""Noise level where losses tell most of what a text shows; at both ends they tell nothing."""
DECAY = 0.1
"""Weight decay of ``unlearn-diff-atk``."""
LEVELS = 50
"""Noise levels that ``unlearn-diff-atk`` goes through."""
Choice = tuple[int, ...]
"""Numbers of words."""


@dataclass(frozen=True)
class Pairs:
    """Pictures, noise, and how much of it: common random numbers for all that is compared."""

    latents: Tensor
    """``(n, c, h, w)``."""
    noise: Tensor
    """``(n, c, h, w)``."""
    places: Tensor
    """``(n,)`` in [0, 1)."""

    def rows(self, chosen: Sequence[int]) -> Pairs:
        """Return some of them, in this order."""
        some = list(chosen)
        return Pairs(self.latents[some], self.noise[some], self.places[some])


@dataclass(frozen=True, eq=False)
class SlotProblem:
    """What is searched: words for a slot, and how good they are."""

    target: SearchTarget
    template: str
    """Prompt with the slot."""
    pictures: Tensor
    """Latents of the pictures, ``(n, c, h, w)``."""
    pairs: Pairs
    words: tuple[str, ...]
    """Words that can be typed, that may be, and that name nothing which goes."""
    rows: tuple[Tensor, ...]
    """Their embeddings in each text encoder, ``(n, d)``."""

    @classmethod
    def of(
        cls, params: TokenSearchParams, target: SearchTarget, concept: Concept, generator: torch.Generator
    ) -> SlotProblem:
        """Return the problem for one concept on one model.

        Raises:
            ValueError: the text encoders number their words differently, or no word is left.
        """
        plain = min(concept.prompts, key=len)
        template = {"prefix": f"{SLOT} {plain}", "prompt": SLOT}.get(params.place or "") or slotted(concept)
        words = tuple(word for word in target.words() if not target.named(word))
        embeddings = target.token_embeddings()
        if len({len(weight) for weight in embeddings}) > 1:
            raise ValueError("the text encoders number their words differently")
        if not words:
            raise ValueError("no word can be typed")
        ids = [target.tokens(word)[0] for word in words]
        pictures, count = target.pictures(params.pictures or 0), params.pairs or 0
        noise = torch.randn((count, *pictures.shape[1:]), generator=generator)
        latents = pictures[[i % len(pictures) for i in range(count)]]
        pairs = Pairs(latents, noise, (torch.arange(count) + 0.5) / count)
        return cls(target, template, pictures, pairs, words, tuple(weight[ids] for weight in embeddings))

    def text(self, choice: Choice) -> str:
        """Return the prompt with these words."""
        return self.template.replace(SLOT, " ".join(self.words[number] for number in choice))

    def fits(self, choice: Choice) -> bool:
        """Return whether the text may be tried, names nothing that goes, and is read as these words."""
        words = " ".join(self.words[number] for number in choice)
        text = self.text(choice)
        if self.target.named(words) or self.target.named(words.replace(" ", "")) or not self.target.allows(text):
            return False
        before, after = self.template.split(SLOT)
        ids = tuple(self.target.tokens(self.words[number])[0] for number in choice)
        return self.target.tokens(text) == self.target.tokens(before) + ids + self.target.tokens(after)

    def begin(self, count: int, generator: torch.Generator) -> Choice:
        """Return random words that fit.

        Raises:
            ValueError: none of 100 tries does.
        """
        for _ in range(100):
            choice = tuple(torch.randint(len(self.words), (count,), generator=generator).tolist())
            if self.fits(choice):
                return choice
        raise ValueError("no random words can be typed one after the other")

    def vectors(self, choice: Choice) -> list[Tensor]:
        """Return the embeddings of words in each encoder, ``(k, d)``, which ask for gradients."""
        return [weight[list(choice)].clone().requires_grad_() for weight in self.rows]

    def loss(self, vectors: Sequence[Tensor], pairs: Pairs) -> Tensor:
        """Return the mean loss with vectors in the slot; gradients reach them."""
        text = repeated(self.target.encode_vectors([self.template], vectors), len(pairs.places))
        return self.target.denoise(pairs.latents, pairs.noise, pairs.places, text).mean()

    @torch.no_grad()
    def losses(self, text: Text, pairs: Pairs) -> Tensor:
        """Return the mean loss of each row of text, ``(n,)``."""
        texts, count = len(text.states), len(pairs.places)
        repeat = (None if part is None else part.repeat_interleave(count, 0) for part in (text.pooled, text.mask))
        every = Text(text.states.repeat_interleave(count, 0), *repeat)
        latents, noise = (part.repeat(texts, 1, 1, 1) for part in (pairs.latents, pairs.noise))
        return self.target.denoise(latents, noise, pairs.places.repeat(texts), every).view(texts, count).mean(1)

    def compared(self, texts: Sequence[str]) -> list[float]:
        """Return the losses of texts on all pairs."""
        found: list[float] = self.losses(self.target.encode(texts), self.pairs).tolist()
        return found

    def middle(self, count: int) -> list[int]:
        """Return so many pairs whose noise is nearest to the middle."""
        order: list[int] = (self.pairs.places - MIDDLE).abs().argsort(stable=True).tolist()
        return order[:count]


def moves(params: TokenSearchParams, problem: SlotProblem, generator: torch.Generator) -> Iterator[str]:
    """Yield texts to look at, each once.

    Args:
        params: with all numbers.
        problem: what is searched.
        generator: the only source of random numbers.
    """
    walk = {"unlearn-diff-atk": _relaxed, "p4d": _projected}.get(params.variant, _swaps)
    seen: set[Choice] = set()
    for _ in range(params.restarts or 0):
        for choice in walk(params, problem, generator):
            if choice not in seen and problem.fits(choice):
                seen.add(choice)
                yield problem.text(choice)


def _swaps(params: TokenSearchParams, problem: SlotProblem, generator: torch.Generator) -> Iterator[Choice]:
    """Move by swaps of one word; yield each text that is taken, or the best ones in the end."""
    choice = problem.begin(params.tokens or 1, generator)
    current = problem.compared([problem.text(choice)])[0]
    known = {choice: current}
    screened = problem.middle(min(params.screening or 0, len(problem.pairs.places)))
    for i in range(params.iterations or 0):
        candidates = _candidates(params, problem, choice, known, generator)
        if not candidates:
            continue
        text = problem.target.encode([problem.text(one) for one in candidates])
        known |= _compared(problem, candidates, text, screened)
        new = min((one for one in candidates if one in known), key=lambda one: known[one])
        if known[new] < current or i % 10 == 9:
            choice, current = new, known[new]
            if params.first:
                yield choice
    if not params.first:
        yield from sorted(known, key=lambda one: known[one])[:FINALISTS]


def _candidates(
    params: TokenSearchParams,
    problem: SlotProblem,
    choice: Choice,
    known: dict[Choice, float],
    generator: torch.Generator,
) -> list[Choice]:
    """Return random swaps among the words with the least slopes at each position, distinct and fitting."""
    vectors = problem.vectors(choice)
    problem.loss(vectors, problem.pairs).backward()  # type: ignore[no-untyped-call]
    slopes = torch.zeros(len(choice), len(problem.words))
    for rows, weight in zip(vectors, problem.rows, strict=True):
        slopes += torch.zeros_like(slopes) if rows.grad is None else rows.grad @ weight.T
    tops = slopes.topk(min(params.top or 1, len(problem.words)), largest=False).indices
    found: dict[Choice, None] = {}
    for _ in range(4 * (params.candidates or 0)):
        if len(found) == params.candidates:
            break
        place, rank = (int(torch.randint(size, (), generator=generator)) for size in tops.shape)
        one = (*choice[:place], int(tops[place, rank]), *choice[place + 1 :])
        if one not in known and one not in found and problem.fits(one):
            found[one] = None
    return list(found)


def _compared(problem: SlotProblem, candidates: list[Choice], text: Text, screened: list[int]) -> dict[Choice, float]:
    """Return the losses of the best candidates on all pairs: all are screened by some, the best by the others."""
    first = problem.losses(text, problem.pairs.rows(screened))
    rest = [i for i in range(len(problem.pairs.places)) if i not in screened]
    if not rest:
        return dict(zip(candidates, first.tolist(), strict=True))
    best = first.argsort(stable=True)[:FINALISTS]
    pooled, mask = (None if part is None else part[best] for part in (text.pooled, text.mask))
    second = problem.losses(Text(text.states[best], pooled, mask), problem.pairs.rows(rest))
    whole = (first[best] * len(screened) + second * len(rest)) / len(problem.pairs.places)
    return {candidates[int(i)]: float(loss) for i, loss in zip(best, whole, strict=True)}


def _one_pair(problem: SlotProblem, place: float, generator: torch.Generator) -> Pairs:
    """Return a random picture with new noise at a noise level: batch 1, as the published loops have it."""
    row = int(torch.randint(len(problem.pictures), (), generator=generator))
    noise = torch.randn((1, *problem.pictures.shape[1:]), generator=generator)
    return Pairs(problem.pictures[row : row + 1], noise, torch.tensor([place]))


def _relaxed(params: TokenSearchParams, problem: SlotProblem, generator: torch.Generator) -> Iterator[Choice]:
    """Move a distribution over the words at each position, noise level by noise level; yield the likeliest words."""
    shares = torch.rand((params.tokens or 1, len(problem.words)), generator=generator)
    shares = onto_simplex(shares / shares.sum(1, keepdim=True)).requires_grad_()
    optimizer = torch.optim.Adam([shares], lr=params.lr or 0.0, weight_decay=DECAY)
    steps, every = params.iterations or 0, params.every or 1
    levels = -(-steps // every)
    for step in range(steps):
        place = (LEVELS - 0.5 - (step // every) * LEVELS // levels) / LEVELS
        drawn = torch.multinomial(shares.detach(), 1, generator=generator)[:, 0]
        hard = F.one_hot(drawn, len(problem.words)).float()
        soft = F.hardtanh(shares)
        straight = hard + soft - soft.detach()
        optimizer.zero_grad()
        vectors = [straight @ weight for weight in problem.rows]
        problem.loss(vectors, _one_pair(problem, place, generator)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        with torch.no_grad():
            shares.copy_(onto_simplex(shares))
        if (step + 1) % every == 0 or step + 1 == steps:
            yield tuple(shares.argmax(1).tolist())


def _projected(params: TokenSearchParams, problem: SlotProblem, generator: torch.Generator) -> Iterator[Choice]:
    """Move vectors by the gradient at the words nearest to them; yield these words."""
    moving = problem.vectors(problem.begin(params.tokens or 1, generator))
    optimizer = torch.optim.AdamW(moving, lr=params.lr or 0.0)
    steps, every = params.iterations or 0, params.every or 1
    for step in range(steps):
        nearest = _nearest(moving[0], problem.rows[0])
        words = problem.vectors(nearest)
        place = float(torch.rand((), generator=generator))
        problem.loss(words, _one_pair(problem, place, generator)).backward()  # type: ignore[no-untyped-call]
        for vectors, at in zip(moving, words, strict=True):
            vectors.grad = at.grad
        optimizer.step()
        if (step + 1) % every == 0 or step + 1 == steps:
            yield _nearest(moving[0], problem.rows[0])


def _nearest(vectors: Tensor, rows: Tensor) -> Choice:
    """Return the word that points most nearly the same way as each vector."""
    alike = F.normalize(vectors.detach(), dim=-1) @ F.normalize(rows, dim=-1).T
    return tuple(alike.argmax(1).tolist())


def onto_simplex(rows: Tensor) -> Tensor:
    """Return the nearest points whose entries are at least 0 and sum to 1, row by row, by bisection.

    Args:
        rows: ``(k, n)``.
    """
    low, high = rows.min(1, keepdim=True).values - 1, rows.max(1, keepdim=True).values
    for _ in range(60):
        middle = (low + high) / 2
        above = (rows - middle).clamp(min=0).sum(1, keepdim=True) > 1
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    found = (rows - (low + high) / 2).clamp(min=0)
    return found / found.sum(1, keepdim=True)
