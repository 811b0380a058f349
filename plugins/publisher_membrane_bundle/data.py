"""The texts of a training, encoded once, and what is sampled for one noisy image x_t: the anchors, in which order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from publisher.api import UsageError
from publisher.api.diffusion.text import Text
from publisher_membrane_bundle.params import Anchors
from publisher_membrane_bundle.spm import gaussian_anchor


@dataclass(frozen=True)
class AnchorMix:
    """The part of D that is sampled for every x_t.

    Raises:
        UsageError: prompts are to be sampled and none are kept.
    """

    mix: Anchors
    """Number of anchors of each kind, and the weight of the empty prompt."""
    keep: Sequence[str]
    """Prompts to keep."""
    texts: Mapping[str, Text]
    """Encoded texts, by name."""

    def __post_init__(self) -> None:
        if self.mix.prompts and not self.keep:
            raise UsageError(
                "anchors.prompts samples from the prompts to keep, and there are none",
                hint="Name some under keep, or set anchors.prompts to 0.",
            )

    def sample(self, target: str, generator: torch.Generator) -> tuple[Text, ...]:
        """Sample first the Gaussian anchors, then the prompts (each with replacement). With uncond = 1: nothing."""
        if self.mix.uncond == 1:
            return ()
        noise = [_noise(self.texts[target], generator) for _ in range(self.mix.gaussian)]
        picks = [_pick(len(self.keep), generator) for _ in range(self.mix.prompts)]
        return (*noise, *(self.texts[self.keep[pick]] for pick in picks))


def _noise(target: Text, generator: torch.Generator) -> Text:
    """Sample the states first, then the pooled vector, on its own."""
    states = gaussian_anchor(target.states, generator)
    pooled = None if target.pooled is None else gaussian_anchor(target.pooled, generator)
    return Text(states, pooled, target.mask)


def _pick(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator))
