"""One LoRA in the layouts that trainers and hubs write: read with its strength, or refused with the reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from publisher.api.membranes import MembraneFileError, weight_change
from publisher.safeguards.membranes.lora import read_lora

PATH = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k"
STEM = f"lora_unet_{PATH.replace('.', '_')}"
DOWN, UP = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0)).unbind()
DOWN, UP = DOWN[:4], UP[:, :4].contiguous()
Layout = tuple[dict[str, Tensor], dict[str, str]]


def kohya(dtype: torch.dtype = torch.float32, **changes: Tensor | None) -> Layout:
    """Return two factors and an alpha of 2, in a type; parts replaced, added, or left out."""
    parts = {"lora_down__weight": DOWN.to(dtype), "lora_up__weight": UP.to(dtype), "alpha": torch.tensor(2.0)}
    whole = {
        f"{STEM}.{part.replace('__', '.')}": value for part, value in (parts | changes).items() if value is not None
    }
    return whole, {}


def diffusers(prefix: str, **adapter: object) -> Layout:
    """Return the names of diffusers and peft."""
    config = {"lora_adapter_metadata": json.dumps({f"unet.{key}": value for key, value in adapter.items()})}
    return {f"{prefix}{PATH}.lora_A.weight": DOWN, f"{prefix}{PATH}.lora_B.weight": UP}, config if adapter else {}


READ = {
    "kohya": (kohya(), 0.5),
    "half": (kohya(torch.float16), 0.5),
    "bfloat16": (kohya(torch.bfloat16), 0.5),
    "alpha in a vector": (kohya(alpha=torch.tensor([2.0])), 0.5),
    "diffusers": (diffusers("unet."), 1.0),
    "peft": (diffusers("base_model.model."), 1.0),
    "strength of its own": (diffusers("unet.", lora_alpha=8, r=4), 2.0),
}
REFUSED = {
    "float8": (kohya(torch.float8_e4m3fn), "stored as torch.float8_e4m3fn"),
    "no alpha": (kohya(alpha=None), "alpha' is missing"),
    "alpha as a whole number": (kohya(alpha=torch.tensor(2)), "stored as torch.int64"),
    "DoRA": (kohya(dora_scale=torch.ones(6, 1)), "dora_scale' is none of its tensors"),
    "LoHa": (kohya(hada_w1_a=torch.ones(8, 4)), "hada_w1_a' is none of its tensors"),
    "3x3 convolution": (
        kohya(lora_down__weight=torch.ones(4, 8, 3, 3), lora_up__weight=torch.ones(6, 4, 1, 1)),
        "only 1x1 is supported",
    ),
    "whole difference": (({f"{STEM}.diff": torch.zeros(6, 8)}, {}), "is no membrane"),
    "dots": (({f"lora_unet.{PATH}.alpha": torch.ones(())}, {}), "is none of its tensors"),
    "text encoder": (({"lora_te_text_model_x.alpha": torch.ones(())}, {}), "changes the text encoder too"),
    "diffusers of 2023": (({f"unet.{PATH}.lora.down.weight": DOWN}, {}), "is none of its tensors"),
    "processors": (({f"unet.{PATH}_lora.down.weight": DOWN}, {}), "is none of its tensors"),
    "strength of each layer": (diffusers("unet.", alpha_pattern={"to_k": 4}, r=4), "alpha_pattern"),
    "NaN": (kohya(lora_up__weight=torch.full((6, 4), torch.nan)), "NaN"),
}


def written(path: Path, layout: Layout) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in layout[0].items()}, path, layout[1])
    return path


@pytest.mark.parametrize("name", READ)
def test_a_layout_that_says_all_is_read_with_its_strength(tmp_path: Path, name: str) -> None:
    layout, scale = READ[name]
    (branch,) = read_lora(written(tmp_path / "lora.safetensors", layout)).branches.values()
    narrow = {"half": torch.float16, "bfloat16": torch.bfloat16}.get(name, torch.float32)
    wanted = scale * UP.to(narrow).double() @ DOWN.to(narrow).double()
    assert torch.equal(weight_change([(1.0, branch)], (6, 8)), wanted)


@pytest.mark.parametrize("name", REFUSED)
def test_a_layout_that_a_membrane_cannot_hold_is_refused_with_the_reason(tmp_path: Path, name: str) -> None:
    layout, reason = REFUSED[name]
    with pytest.raises(MembraneFileError) as caught:
        read_lora(written(tmp_path / "lora.safetensors", layout))
    assert reason in str(caught.value)
