"""Training as diffusers' example scripts do it: with the guard's lines frozen tensors stay, without they do not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from diffusers import DDPMScheduler, StableDiffusionPipeline
from diffusers.training_utils import EMAModel, cast_training_params
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch.nn import functional as F

from publisher.api.freeze_mask import FreezeMask, Frozen, part
from publisher.safeguards.freeze_mask.guard.errors import MaskBrokenError
from publisher.safeguards.freeze_mask.guard.guard import Guard
from publisher.safeguards.freeze_mask.guard.record import KEY
from support.guarding import FROZEN, mask_of

PROMPTS = ["a dog", "a pizza"]
TARGETS = ["to_k", "to_q", "to_v", "to_out.0"]


@pytest.fixture
def accelerator() -> Iterator[Accelerator]:
    yield Accelerator(cpu=True)
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


@pytest.fixture
def tiny(pipeline: Any) -> Any:
    """Random weights of a small denoiser beside the embedded model's other parts."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=pipeline.text_encoder.config.hidden_size,
    )
    return StableDiffusionPipeline(**{**pipeline.components, "unet": unet})


@pytest.fixture
def embedded() -> Any:
    from publisher_emoji.generate import load_pipeline

    return load_pipeline()


def batch_loss(pipeline: Any, unet: Any, step: int) -> torch.Tensor:
    """Return the inner part of both scripts, on random images."""
    generator = torch.Generator().manual_seed(step)
    scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
    ids = pipeline.tokenizer(
        PROMPTS, padding="max_length", max_length=pipeline.tokenizer.model_max_length, return_tensors="pt"
    ).input_ids
    with torch.no_grad():
        images = torch.rand(2, 3, 64, 64, generator=generator) * 2 - 1
        latents = pipeline.vae.encode(images).latent_dist.sample(generator) * pipeline.vae.config.scaling_factor
        states = pipeline.text_encoder(ids)[0]
    noise = torch.randn(latents.shape, generator=generator)
    times = torch.randint(0, scheduler.config.num_train_timesteps, (2,), generator=generator)
    noisy = scheduler.add_noise(latents, noise, times)
    target = noise if scheduler.config.prediction_type == "epsilon" else scheduler.get_velocity(latents, noise, times)
    return F.mse_loss(unet(noisy, times, states).sample.float(), target)


def frozen_parts(pipeline: Any) -> None:
    for network in (pipeline.vae, pipeline.text_encoder):
        network.requires_grad_(False)


def text_to_image(pipeline: Any, accelerator: Accelerator, out: Path, mask: FreezeMask | None) -> None:
    """Return ``train_text_to_image.py --use_ema --gradient_checkpointing``."""
    unet = pipeline.unet
    frozen_parts(pipeline)
    unet.train()
    ema = EMAModel(unet.parameters(), model_cls=type(unet), model_config=unet.config)
    unet.enable_gradient_checkpointing()
    if mask is not None:
        Guard(unet, mask, every=1)  # the line to add
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-3, weight_decay=1e-2)
    unet, optimizer = accelerator.prepare(unet, optimizer)
    for step in range(3):
        with accelerator.accumulate(unet):
            accelerator.backward(batch_loss(pipeline, unet, step))
            accelerator.clip_grad_norm_(unet.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        ema.step(unet.parameters())
    unet = accelerator.unwrap_model(unet)
    ema.copy_to(unet.parameters())
    StableDiffusionPipeline(**{**pipeline.components, "unet": unet}).save_pretrained(out)


def dreambooth_lora(pipeline: Any, accelerator: Accelerator, out: Path, mask: FreezeMask | None) -> None:
    """Return ``train_dreambooth_lora.py``."""
    unet = pipeline.unet
    frozen_parts(pipeline)
    unet.requires_grad_(False)
    excluded = None
    if mask is not None:
        guard = Guard(unet, mask, every=1)  # the line to add
        excluded = guard.exclude_modules()  # and the argument
    config = LoraConfig(
        r=4, lora_alpha=4, init_lora_weights="gaussian", target_modules=TARGETS, exclude_modules=excluded
    )
    unet.add_adapter(config)
    cast_training_params(unet, dtype=torch.float32)
    trained = [one for one in unet.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=1e-2)
    unet, optimizer = accelerator.prepare(unet, optimizer)
    for step in range(3):
        accelerator.backward(batch_loss(pipeline, unet, step))
        accelerator.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    layers = get_peft_model_state_dict(accelerator.unwrap_model(unet).to(torch.float32))
    StableDiffusionPipeline.save_lora_weights(out, unet_lora_layers=layers)


def changed(mask: FreezeMask, before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    rows = mask.rows
    return {name for name in rows if not torch.equal(part(before[name], rows[name]), part(after[name], rows[name]))}


def full(pipeline: Any, accelerator: Accelerator, out: Path, frozen: Frozen, *, honour: bool) -> tuple[set[str], int]:
    """Return what of the mask changed in the saved model, and how many tensors changed at all."""
    mask = mask_of(pipeline.unet, frozen)
    before = {name: tensor.detach().clone() for name, tensor in pipeline.unet.named_parameters()}
    text_to_image(pipeline, accelerator, out, mask if honour else None)
    after = StableDiffusionPipeline.from_pretrained(out).unet.state_dict()
    return changed(mask, before, after), sum(not torch.equal(before[name], after[name]) for name in before)


def lora(pipeline: Any, accelerator: Accelerator, out: Path, frozen: Frozen, *, honour: bool) -> tuple[set[str], int]:
    """Return what of the mask changed once the saved adapters are merged, and how many tensors changed at all."""
    mask = mask_of(pipeline.unet, frozen)
    before = {name: tensor.detach().clone() for name, tensor in pipeline.unet.named_parameters()}
    dreambooth_lora(pipeline, accelerator, out, mask if honour else None)
    pipeline.unet.fuse_lora()
    merged = {name.replace(".base_layer", ""): tensor for name, tensor in pipeline.unet.named_parameters()}
    return changed(mask, before, merged), sum(not torch.equal(before[name], merged[name]) for name in before)


def test_full_fine_tuning_keeps_what_is_frozen_in_the_saved_model(
    tiny: Any, accelerator: Accelerator, tmp_path: Path
) -> None:
    tensors = len(list(tiny.unet.parameters()))
    assert full(tiny, accelerator, tmp_path, FROZEN, honour=True) == (set(), tensors - 3)
    assert KEY in json.loads((tmp_path / "unet/config.json").read_text())


def test_full_fine_tuning_without_the_guard_changes_all_of_it(
    tiny: Any, accelerator: Accelerator, tmp_path: Path
) -> None:
    assert full(tiny, accelerator, tmp_path, FROZEN, honour=False)[0] == set(FROZEN)


def test_dreambooth_lora_keeps_off_frozen_layers(tiny: Any, accelerator: Accelerator, tmp_path: Path) -> None:
    touched, moved = lora(tiny, accelerator, tmp_path, FROZEN, honour=True)
    assert touched == set()
    assert moved > 10


def test_dreambooth_lora_without_the_guard_changes_what_frozen_layers_compute(
    tiny: Any, accelerator: Accelerator, tmp_path: Path
) -> None:
    touched, _ = lora(tiny, accelerator, tmp_path, FROZEN, honour=False)
    assert touched == {name for name in FROZEN if ".attn2." in name}


def test_adapters_that_are_loaded_from_a_file_are_refused_too(
    tiny: Any, accelerator: Accelerator, tmp_path: Path
) -> None:
    mask = mask_of(tiny.unet)
    dreambooth_lora(tiny, accelerator, tmp_path, None)
    tiny.unload_lora_weights()
    guard = Guard(tiny, mask, every=50)
    with pytest.raises(MaskBrokenError, match="the LoRA adapter"):
        _load(tiny, tmp_path, guard)


def _load(pipeline: Any, folder: Path, guard: Guard) -> None:
    pipeline.load_lora_weights(folder)
    guard.check()


@pytest.mark.slow
def test_both_on_the_embedded_model_at_a_third_of_its_parameters(
    embedded: Any, accelerator: Accelerator, tmp_path: Path
) -> None:
    sizes = {name: tensor.numel() for name, tensor in embedded.unet.named_parameters() if tensor.ndim > 1}
    names = ["conv_in.weight", "conv_in.bias", *sorted(sizes)[::3]]
    frozen: Frozen = dict.fromkeys(names, ())
    weights = {name: tensor.clone() for name, tensor in embedded.unet.state_dict().items()}
    for honour in (True, False):
        touched, moved = full(embedded, accelerator, tmp_path / f"full-{honour}", frozen, honour=honour)
        assert touched == (set() if honour else set(names))
        assert moved > len(sizes) / 2
        embedded = type(embedded).from_pretrained(tmp_path / f"full-{honour}")
        embedded.unet.load_state_dict(weights)
    touched, moved = lora(embedded, accelerator, tmp_path / "lora", frozen, honour=True)
    assert touched == set()
    assert moved > 10
