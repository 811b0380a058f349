"""What the attackers found, put on pictures of the concept."""

from __future__ import annotations

import torch

from publisher.api.diffusion.text import Text
from publisher_erase.erasure import FoundStates

PROMPTS = torch.arange(40) % 8
"""Number of the prompt of each picture."""


def sampled(*, own: bool, searched: bool = False) -> torch.Tensor:
    """Return the number of the prompt whose derived state comes on each picture; -1: a find of a search."""
    found = FoundStates(derived=Text(torch.arange(8.0)[:, None, None].expand(8, 3, 2)))
    if searched:
        found.keep(Text(torch.full((1, 3, 2), -1.0)), 1)
    return found.sample(PROMPTS, torch.Generator().manual_seed(0), own=own).states[:, 0, 0].long()


def test_of_prompts_that_show_different_things_each_derived_state_comes_on_its_own_pictures() -> None:
    assert torch.equal(sampled(own=True), PROMPTS)
    mixed = sampled(own=True, searched=True)
    assert torch.equal(mixed[::2], PROMPTS[::2])
    assert set(mixed[1::2].tolist()) == {-1}


def test_of_prompts_that_show_the_same_thing_any_derived_state_comes_on_any_picture() -> None:
    here = sampled(own=False) == PROMPTS
    assert 0 < here.sum() < 20
