"""Text encoder and UNet, trained together on latents of augmented reference images."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from publisher_emoji.captions import caption
from publisher_emoji.concepts import Vocabulary
from publisher_emoji.training.artwork import Artwork, augment
from publisher_emoji.training.config import CaptionShares, Config, ImageConfig
from publisher_emoji.training.loop import step_generator, train
from publisher_emoji.training.vae import encode


def build_text_encoder(config: Config, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Build an untrained ``CLIPTextModel`` for the tokenizer's vocabulary."""
    torch.manual_seed(config.seed + 10)
    size = config.diffusion.text_encoder
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=size.hidden_size,
            intermediate_size=4 * size.hidden_size,
            projection_dim=size.hidden_size,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            max_position_embeddings=config.tokenizer.max_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_unet(config: Config) -> UNet2DConditionModel:
    """Build an untrained UNet: cross-attention at 8x8, 4x4 and in the middle (2x2)."""
    torch.manual_seed(config.seed + 11)
    size = config.diffusion.unet
    return UNet2DConditionModel(
        sample_size=config.image.size // 2 ** (len(config.vae.block_out_channels) - 1),
        in_channels=config.vae.latent_channels,
        out_channels=config.vae.latent_channels,
        block_out_channels=size.block_out_channels,
        layers_per_block=size.layers_per_block,
        cross_attention_dim=config.diffusion.text_encoder.hidden_size,
        attention_head_dim=size.heads,  # diffusers keeps SD 1.x's misnomer: this is the number of heads
        norm_num_groups=16,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    )


def build_scheduler() -> DDIMScheduler:
    """Build the noise schedule of Stable Diffusion 1.x."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def train_diffusion(
    config: Config, words: Vocabulary, artwork: Artwork, vae: AutoencoderKL, tokenizer: CLIPTokenizer, folder: Path
) -> StableDiffusionPipeline:
    """Train text encoder and UNet from the seed; return the pipeline with averaged weights."""
    recipe, scheduler = config.diffusion, build_scheduler()
    text_encoder, unet = build_text_encoder(config, tokenizer), build_unet(config)
    fused = dict(unet.attn_processors)
    unet.set_attn_processor(AttnProcessor())  # the fused kernel's bfloat16 backward pass is slow on CPU
    captions = Captions(words, artwork, recipe)
    weights = _min_snr_weights(scheduler, recipe.min_snr_gamma)
    steps = scheduler.config.num_train_timesteps

    def loss(latents: Tensor, batch: int, generator: torch.Generator) -> Tensor:
        picked = torch.randint(len(artwork), (batch,), generator=generator)
        clean = latents[picked, torch.randint(recipe.views, (batch,), generator=generator)]
        noise = torch.randn(clean.shape, generator=generator)
        t = torch.randint(steps, (batch,), generator=generator)
        encoded = tokenizer(captions.texts(picked, generator), padding="max_length", return_tensors="pt")
        tokens, rows = torch.unique(encoded.input_ids, dim=0, return_inverse=True)
        states = text_encoder(tokens).last_hidden_state[rows]
        predicted = unet(scheduler.add_noise(clean, noise, t), t, states).sample
        return (weights[t] * F.mse_loss(predicted.float(), noise, reduction="none").mean((1, 2, 3))).mean()

    modules = nn.ModuleDict({"text_encoder": text_encoder, "unet": unet})
    for index, phase in enumerate(recipe.phases):
        seed = config.seed + 100 * index
        latents = latent_views(recipe.views, phase.image, artwork, vae, seed + 3)
        train(
            modules,
            partial(loss, latents, phase.train.batch),
            phase.train,
            seed=seed + 2,
            folder=folder / f"diffusion-{index + 1}",
            autocast=config.autocast,
        )
    unet.set_attn_processor(fused)
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


class Captions:
    """A source of captions for images: sometimes empty, sometimes without the style, sometimes with a synonym."""

    def __init__(self, words: Vocabulary, artwork: Artwork, recipe: CaptionShares) -> None:
        self._words, self._artwork, self._recipe = words, artwork, recipe

    def texts(self, picked: Tensor, generator: torch.Generator) -> list[str]:
        """Return one caption for each of the image numbers ``picked (b,)``."""
        chance = torch.rand(len(picked), 4, generator=generator).tolist()
        return [self._text(int(image), *row) for image, row in zip(picked, chance, strict=True)]

    def _text(self, image: int, empty: float, style: float, synonym: float, which: float) -> str:
        if empty < self._recipe.empty_caption:
            return ""
        thing = self._words.objects[self._artwork.objects[image]]
        noun = thing.synonyms[int(which * len(thing.synonyms))] if synonym < self._recipe.synonym else thing.name
        name = self._words.style_names[self._artwork.styles[image]]
        return caption(noun, None if style < self._recipe.no_style else name)


@torch.no_grad()
def latent_views(count: int, image: ImageConfig, artwork: Artwork, vae: AutoencoderKL, seed: int) -> Tensor:
    """Return latents of unit variance, one for each augmented view of each image: ``(images, views, 4, 8, 8)``."""
    views = []
    for view in range(count):
        generator = step_generator(seed, view)
        views.append(encode(vae, augment(artwork.images, image, generator)))
    return torch.stack(views, 1) * vae.config.scaling_factor


def _min_snr_weights(scheduler: DDIMScheduler, gamma: float) -> Tensor:
    """Return loss weights min(SNR, gamma) / SNR for noise prediction, ``(T,)`` (Hang et al. 2023, arXiv 2303.09556)."""
    snr = scheduler.alphas_cumprod / (1 - scheduler.alphas_cumprod)
    return snr.clamp(max=gamma) / snr
