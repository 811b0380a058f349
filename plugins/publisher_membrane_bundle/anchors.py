"""What is sampled for one x_t, and in which order: the anchors (after what the trainer itself samples)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from publisher.api import UsageError
from publisher.api.diffusion.text import Text
from publisher_membrane_bundle.losses import gaussian_anchor
from publisher_membrane_bundle.params import Anchors


@dataclass(frozen=True)
class AnchorMix:
    """The part of D that is sampled anew each time.

    Raises:
        UsageError: prompts are to be sampled and none are kept.
    """

    mix: Anchors
    keep: Sequence[str]
    texts: Mapping[str, Text]

    def __post_init__(self) -> None:
        if self.mix.prompts and not self.keep:
            raise UsageError(
                "anchors.prompts samples from the prompts to keep, and there are none",
                hint="Name some under keep, or set anchors.prompts to 0.",
            )

    def sample(self, target: str, generator: torch.Generator) -> tuple[Text, ...]:
        """First the Gaussian anchors, then the prompts (each with replacement). With uncond = 1: nothing."""
        if self.mix.uncond == 1:
            return ()
        noise = [gaussian_anchor(self.texts[target], generator) for _ in range(self.mix.gaussian)]
        picks = [_pick(len(self.keep), generator) for _ in range(self.mix.prompts)]
        return (*noise, *(self.texts[self.keep[pick]] for pick in picks))


def _pick(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator))
