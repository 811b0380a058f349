"""Text states derived from the base model: what the changed projections need, to give what the base model's gave.

Source: RECE (arXiv 2407.12383), equation 8, and its code. No search: a closed form.

    c' = (rho I + sum_l W_l' W_l)^-1 (sum_l W_l' W0_l) c

| here | paper | what | shape |
|---|---|---|---|
| ``weights[l]`` | W_l | keys and values of the hardened model | (out_l, d) |
| ``base[l]`` | W0_l | the same of the base model | (out_l, d) |
| ``rho`` | lambda | how far the states are kept small | |
| ``derived`` | | T, which maps the states of a prompt | (d, d) |

Where every W_l is W0_l S with one invertible S, as closed-form erasers edit them, T at rho = 0 is the inverse of S, and
every layer receives what it received in the base model.

Deviations: all rows of the text are mapped, in float64. Pooled vectors stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from publisher.api import Access, Concept, Find, Limits, SearchAttack, SearchParams, SearchTarget
from publisher.builtin.attacks.narrowing import own_prompts

if TYPE_CHECKING:
    import torch


class DerivedParams(SearchParams):
    """Parameters of ``derived-embedding``."""

    rho: tuple[Annotated[float, Field(ge=0, le=1e6)], ...] | None = Field(default=None, min_length=1, max_length=16)
    """Values of rho to try, each on its own; larger ones keep the states nearer to nothing. Default: by the budget."""
    images: int | None = Field(default=None, ge=1, le=1000)
    """Images by which the search compares the values of rho. Default: by the budget."""


class DerivedEmbedding(SearchAttack[DerivedParams]):
    """Undo a change of the text projections in the text: derived from both models, without search or training."""

    name = "derived-embedding"
    version = "1"
    summary = "text states that make the projections give what the base model's gave (RECE)"
    access = Access.BASE
    grants = frozenset({Access.EMBEDDING, Access.BASE})
    floors = ("retrained", "shuffled")
    shuffles = "base"
    budgets = MappingProxyType(
        {
            "quick": {"rho": [0.1], "images": 12},
            "standard": {"rho": [0.001, 0.1, 10.0], "images": 24},
            "thorough": {"rho": [0.001, 0.1, 1.0, 10.0, 100.0], "images": 60},
        }
    )

    def limits(self, params: DerivedParams) -> Limits:
        """Return the images of all values of rho, and the texts that are encoded once each."""
        images = params.images or 0
        return Limits(images=images * len(params.rho or ()), encoder_rows=images)

    def search(
        self,
        params: DerivedParams,
        target: SearchTarget,
        concept: Concept,
        generator: torch.Generator,  # noqa: ARG002 - it is a closed form
    ) -> Iterator[Find]:
        """Yield the states of each value of rho that brought the concept back; of equal ones the smaller rho counts."""
        from publisher.api.diffusion.text import Text

        images = params.images or 0
        prompts = own_prompts(target, concept)[:images]
        text, weights, base = target.encode(prompts), target.text_weights(), target.base_text_weights()
        turn = [i % len(prompts) for i in range(images)]
        asked = [prompts[i] for i in turn]
        for rho in sorted(params.rho or (), reverse=True):
            states = text.states @ derived(weights, base, rho).to(text.states).T
            pooled = text.pooled
            rows = Text(states[turn], None if pooled is None else pooled[turn], text.mask)
            shown = sum(target.ask_states(rows, asked))
            tensors = {"states": states} | ({} if pooled is None else {"pooled": pooled})
            if shown:
                recipe: dict[str, str | float] = {"rho": rho}
                yield Find(
                    kind="states", prompts=prompts, tensors=target.keep(tensors), recipe=recipe, score=shown / images
                )


def derived(weights: Sequence[torch.Tensor], base: Sequence[torch.Tensor], rho: float) -> torch.Tensor:
    """Return T, ``(d, d)`` float64: ``c' = T c`` for a column of text states.

    Where rho is 0 and the weights together have less than full rank, T is the least one that fits best.

    Args:
        weights: ``(out_l, d)`` of the hardened model.
        base: the same of the base model, in the same order.
        rho: at least 0.
    """
    import torch

    width = weights[0].shape[1]
    gram = torch.zeros(width, width, dtype=torch.float64)
    cross = torch.zeros(width, width, dtype=torch.float64)
    for ours, theirs in zip(weights, base, strict=True):
        gram += ours.double().T @ ours.double()
        cross += ours.double().T @ theirs.double()
    if rho:
        gram += rho * torch.eye(width, dtype=torch.float64)
        solved: torch.Tensor = torch.linalg.solve(gram, cross)
        return solved
    found: torch.Tensor = torch.linalg.lstsq(gram, cross, driver="gelsd").solution
    return found
