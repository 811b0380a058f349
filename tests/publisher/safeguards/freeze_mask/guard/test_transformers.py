"""The guard on a transformer with joint attention: frozen heads stay, adapters and fused projections are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig

from publisher.safeguards.freeze_mask.guard.errors import MaskBrokenError
from publisher.safeguards.freeze_mask.guard.guard import Guard
from support.guarding import adamw, mask_of

KEYS = "transformer_blocks.0.attn.add_k_proj.weight"
FROZEN = {"context_embedder.weight": (), KEYS: ((0, 8),)}


@pytest.fixture
def transformer(tiny_family: Callable[[str], Path]) -> Any:
    from diffusers import SD3Transformer2DModel

    return SD3Transformer2DModel.from_pretrained(tiny_family("stable-diffusion-3") / "transformer")


def test_frozen_heads_and_tensors_of_joint_attention_stay_while_others_learn(transformer: Any) -> None:
    before = {name: tensor.detach().clone() for name, tensor in transformer.named_parameters()}
    generator = torch.Generator().manual_seed(0)
    x, states = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 5, 32, generator=generator)
    pooled, noise = torch.randn(2, 32, generator=generator), torch.randn(2, 4, 8, 8, generator=generator)
    guard = Guard(transformer, mask_of(transformer, FROZEN), every=1)
    optimizer = adamw(guard.parameters())
    (velocity,) = transformer(x, states, pooled, torch.tensor([300.0, 700.0]), return_dict=False)
    (velocity - noise).square().mean().backward()
    optimizer.step()
    after = dict(transformer.named_parameters())
    assert torch.equal(after["context_embedder.weight"], before["context_embedder.weight"])
    assert torch.equal(after[KEYS][:8], before[KEYS][:8])
    assert not torch.equal(after[KEYS][8:], before[KEYS][8:])
    guard.check()


def test_an_adapter_of_the_usual_scripts_is_refused_on_a_layer_that_is_frozen_in_part(transformer: Any) -> None:
    guard = Guard(transformer, mask_of(transformer, FROZEN), every=1)
    transformer.add_adapter(LoraConfig(r=2, target_modules=["attn.add_k_proj", "attn.to_q"]))
    with pytest.raises(MaskBrokenError, match="LoRA adapter") as caught:
        guard.check()
    assert KEYS.removesuffix(".weight") in str(caught.value)


def test_fused_projections_of_joint_attention_are_refused(transformer: Any) -> None:
    guard = Guard(transformer, mask_of(transformer, FROZEN), every=1)
    transformer.fuse_qkv_projections()
    with pytest.raises(MaskBrokenError, match="are fused"):
        guard.check()
