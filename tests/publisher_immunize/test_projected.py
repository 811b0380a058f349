"""Cross-attention on a projection of the text: what immunize moves there, and why nothing is merged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from immunize_cases import SCOPE, run

from publisher.api import ModelError
from publisher.testing.tiny import open_model
from publisher_immunize.params import ImmunizeParams
from publisher_immunize.step import Immunize

FAMILIES = ("pixart", "sana")


@pytest.mark.parametrize("family", FAMILIES)
def test_cross_attention_is_moved_by_imma_and_its_projection_is_not(
    family: str, tiny_family: Callable[[str], Path], tmp_path: Path
) -> None:
    model = open_model(tiny_family(family))
    few = {"images": 2, "keep_images": 1, "steps": 2}
    ctx = run(model, tmp_path, method="imma", inner=["lora", "cross-attention"], restart=0, **few)
    names = {name for _, name in ctx.tensors}
    assert {name.split(".")[2] for name in names} == {"attn2"}
    assert {f"transformer_blocks.{n}.attn2.to_{part}.weight" for n in (0, 1) for part in "qkv"} <= names
    assert not any(torch.equal(value, model.read(*name)) for name, value in ctx.tensors.items())


def test_mima_is_refused_because_the_text_is_projected_by_layers_that_a_training_moves(
    tiny_family: Callable[[str], Path],
) -> None:
    with pytest.raises(ModelError, match="its cross-attention does not read what the text encoders write"):
        Immunize().plan(ImmunizeParams.parse({"method": "mima"}), SCOPE, open_model(tiny_family("pixart")))
