"""Lumina Image 2: recognised by its structure, with the system prompt among the rows that it reads."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from publisher.builtin.lumina_2 import Lumina2
from publisher.model.folder import read_configs
from publisher.runtime.pipelines import load


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_index._class_name": "LuminaPipeline"}, "its pipeline is 'LuminaPipeline'"),
        ({"model_index.text_encoder": ["transformers", "GemmaModel"]}, "its text_encoder is 'GemmaModel'"),
        ({"transformer.in_channels": 9}, "reads 9 channels and writes 9, its autoencoder has 4"),
        ({"transformer.cap_feat_dim": 32}, "reads text 32 wide, its text encoder writes 16"),
        ({"vae.shift_factor": None}, "no shift_factor"),
        ({"vae.block_out_channels": [8]}, "has 1 blocks, and its pipeline counts on 4"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_another_structure_is_refused_with_its_reason(
    change: dict[str, Any], reason: str, tiny_family: Callable[[str], Path]
) -> None:
    configs: dict[str, Any] = copy.deepcopy(dict(read_configs(tiny_family("lumina-2"))))
    for place, value in change.items():
        component, key = place.split(".")
        configs[component] = {**configs[component], key: value}
    assert Lumina2().recognise(configs) is None
    assert reason in Lumina2().why_not(configs)


def test_the_system_prompt_is_read_before_the_text(tiny_family: Callable[[str], Path]) -> None:
    folder = tiny_family("lumina-2")
    found = Lumina2().recognise(read_configs(folder))
    assert found is not None
    assert found.capabilities == {"text-entry", "training", "membranes"}
    pipeline = load(folder, found, torch.device("cpu"), torch.float32)
    (ids,) = found.read_ids(pipeline, "a cat")
    assert pipeline.tokenizer.decode(ids).endswith("user prompts. <Prompt Start> a cat")
    with torch.no_grad():
        text = found.read_text(pipeline, ["a cat"])
    assert text.mask is not None
    assert (text.states.shape, int(text.mask.sum())) == ((1, 256, 16), len(ids))


def test_keys_and_values_have_their_own_number_of_heads(tiny_family: Callable[[str], Path]) -> None:
    found = Lumina2().recognise(read_configs(tiny_family("lumina-2")))
    assert found is not None
    config = {"num_attention_heads": 24, "num_kv_heads": 8}
    names = [f"layers.0.attn.{part}.weight" for part in ("to_q", "to_k", "to_v", "to_out.0")]
    assert [found.heads(name, config) for name in names] == [24, 8, 8, 0]
