"""What the step decides where a manifest names nothing but concepts."""

from __future__ import annotations

import pytest

from publisher_freeze_mask.params import FreezeMaskParams
from publisher_freeze_mask.presets import resolve
from support.anatomies import model_of_size

TINY, BIG = model_of_size(8), model_of_size(64)


@pytest.mark.parametrize("preset", ["small", "large", "paper"])
def test_a_preset_leaves_nothing_open_and_is_decided_once(preset: str) -> None:
    found = resolve(FreezeMaskParams.parse({"preset": preset}), BIG)
    assert None not in (found.adapt.lr, found.adapt.steps)
    assert resolve(FreezeMaskParams.parse(found.as_json()), TINY) == found


def test_the_papers_values_are_the_published_ones() -> None:
    found = resolve(FreezeMaskParams.parse({"preset": "paper"}), TINY)
    assert (found.recipe, found.count, found.granularity, found.one_d) == ("released", "tensors", "tensor", "include")
    assert (found.adapt.lr, found.adapt.steps, found.adapt.batch, found.adapt.weight_decay) == (1e-5, 2000, 4, 0.01)
    settings = found.released
    assert (settings.steps, settings.batch, settings.interval, settings.temperature) == (2000, 16, 5, 0.2)
    assert (settings.c_sparsity, settings.mask_lr, settings.user_lr) == (5e3, 10.0, 1e-5)


def test_masks_are_learned_by_scores_unless_the_papers_way_is_asked_for() -> None:
    assert [resolve(FreezeMaskParams(), model).recipe for model in (TINY, BIG)] == ["path", "path"]


def test_what_is_given_by_name_wins() -> None:
    found = resolve(FreezeMaskParams.parse({"lam": 0.5, "adapt": {"steps": 7}}), TINY)
    assert (found.preset, found.lam, found.adapt.steps, found.adapt.lr) == ("small", 0.5, 7, 1e-4)
