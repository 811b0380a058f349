"""Small random transformers go through a whole release: erased at the text entry, attacked, and judged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from support.releasing import publisher
from support.tiny_pixart import save_tiny_pixart
from support.tiny_qwen_image import save_tiny_qwen_image

Manifest = Callable[..., Path]
ENTRIES = {
    "pixart": {"caption_projection.linear_2.weight", "caption_projection.linear_2.bias"},
    "qwen-image": {"txt_in.weight"},
}
"""Family -> tensors by which its text enters, and that erasing rewrites."""
WRITERS: dict[str, Callable[[Path], Path]] = {"pixart": save_tiny_pixart, "qwen-image": save_tiny_qwen_image}
GATES = {
    **{f"erase.cigarette.{name}": {"upper_at_most": 0.6} for name in ("plain", "paraphrase")},
    "erase.kept": {"lower_at_least": -0.9},
}


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(ENTRIES))
def test_a_small_transformer_is_hardened_at_its_text_entry_and_attacked(
    family: str, manifest: Manifest, tmp_path: Path
) -> None:
    model = WRITERS[family](tmp_path / "model")
    sampling = {"steps": 2, "guidance": 3.0, "images": 9, "kept_images": 3}
    path = manifest(model="./model", evaluate={"scorer": "emoji", "sampling": sampling, "gates": GATES})
    done = publisher("release", path, "--out", tmp_path / "out", "--throwaway-key")
    assert done.exit_code == 4, done.output  # a random model generates no cigarette, so nothing can be decided
    report = json.loads((tmp_path / "out" / "small-1.0.0.report" / "report.json").read_text())
    assert report["model"]["family"] == family
    said = report["steps"][0]["warnings"]
    assert len(set(said)) == len(said)
    (delta,) = (tmp_path / "out" / ".work" / "steps").glob("*/delta/transformer.safetensors")
    (weights,) = (model / "transformer").glob("*.safetensors")
    before, changed = load_file(weights), load_file(delta)
    assert set(changed) == ENTRIES[family]
    assert all(not torch.equal(before[name], tensor) for name, tensor in changed.items())
