"""Weights are stored in the type that is large enough for them."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from publisher_emoji.training.halves import store_as_halves


def test_what_float16_holds_is_stored_as_such_and_nothing_is_lost(tmp_path: Path) -> None:
    held = {
        "exact": torch.tensor([0.5, -2.0]),
        "fine": torch.tensor([0.1, 1e-9]),
        "large": torch.tensor([1e6]),
        "ids": torch.arange(3),
    }
    file = tmp_path / "unet" / "weights.safetensors"
    file.parent.mkdir()
    save_file(held, file, metadata={"format": "pt"})
    store_as_halves(tmp_path)
    stored = load_file(file)
    kinds = {"exact": torch.float16, "fine": torch.float32, "large": torch.float32, "ids": torch.int64}
    assert {name: tensor.dtype for name, tensor in stored.items()} == kinds
    assert all(torch.equal(stored[name].to(tensor.dtype), tensor) for name, tensor in held.items())
    with safe_open(file, "pt") as opened:
        assert opened.metadata() == {"format": "pt"}
