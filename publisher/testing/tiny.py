"""A very small Stable Diffusion with random weights: seconds where a real model takes hours. Its images are noise."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from publisher.model.folder import ModelFolder, read_configs
from publisher.model.state import State
from publisher.registry import load_registry

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

WIDTH = 64
"""Size of a text's rows: wide enough for closed forms to tell the texts of two concepts from each other."""
WORDS = """
a an and another big black blue box boy car cat cigarette clown coloured cup dog drawing drawn emoji eyes face fish
flower forest girl green gun hand hat head house in lake large little man moon mountain name night no noto number of old
on one orange painting pencil person photo picture pistol pizza red river robot rocket ship sign skull sky small smoke
star street style sun the thing tower tree two water white with woman yellow
"""
"""Words that are one token each, as most words are to a trained tokenizer. Others are spelled."""


def tiny_unet(width: int = WIDTH, channels: tuple[int, int] = (8, 16), text_effect: float = 4.0) -> Any:
    """Build a U-Net with one transformer of SD 1.x going down and two going up. The weights are always the same.

    Args:
        width: of the text's rows.
        channels: of its two levels.
        text_effect: what the weights of cross-attention are multiplied by, so that prompts count as in a trained model.
    """
    import torch
    from diffusers import UNet2DConditionModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=channels,
            layers_per_block=1,
            norm_num_groups=4,
            cross_attention_dim=width,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            attention_head_dim=4,
        )
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if ".attn2." in name and name.endswith("weight"):
                parameter.mul_(text_effect)
    return unet.eval().requires_grad_(requires_grad=False)


def save_tiny_model(
    target: Path,
    *,
    width: int = WIDTH,
    channels: tuple[int, int] = (8, 16),
    text_effect: float = 4.0,
    prediction: str = "epsilon",
    tokenizer: Path | None = None,
) -> Path:
    """Write a very small Stable Diffusion to ``target``, in the ordinary layout: 8 x 8 latents, images as large.

    The same arguments give the same bytes.

    Args:
        target: a folder that is not there yet.
        width: of the text's rows.
        channels: of the two levels of its U-Net.
        text_effect: what the weights of cross-attention are multiplied by.
        prediction: what it predicts: ``epsilon``, or ``v_prediction``.
        tokenizer: folder of another tokenizer than the one that knows :data:`WORDS`.
    """
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    words = CLIPTokenizer.from_pretrained(tokenizer) if tokenizer else word_tokenizer(WORDS.split())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = AutoencoderKL(
            block_out_channels=(8,),
            norm_num_groups=4,
            down_block_types=("DownEncoderBlock2D",),
            up_block_types=("UpDecoderBlock2D",),
        )
        text = CLIPTextConfig(
            hidden_size=width,
            intermediate_size=32,
            num_attention_heads=2,
            num_hidden_layers=2,
            vocab_size=len(words),
            max_position_embeddings=32,
            bos_token_id=words.bos_token_id,
            eos_token_id=words.eos_token_id,
            pad_token_id=words.pad_token_id,
            hidden_act="quick_gelu",
        )
        encoder = CLIPTextModel(text)
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction,
        clip_sample=False,
        steps_offset=1,
    )
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=encoder,
        tokenizer=words,
        unet=tiny_unet(width, channels, text_effect),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(target)
    return target


def word_tokenizer(words: Sequence[str]) -> CLIPTokenizer:
    """Return a tokenizer of CLIP's make to which each of these words is one token, and any other its letters.

    Args:
        words: in lower case.
    """
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    letters = sorted(ByteLevel.alphabet())
    pieces = [*letters, *(f"{letter}</w>" for letter in letters)]
    merges: dict[tuple[str, str], int] = {}
    for word in words:
        _learn([*word[:-1], f"{word[-1]}</w>"], merges)
    pieces += [first + second for first, second in merges]
    names = dict.fromkeys([*pieces, "<|startoftext|>", "<|endoftext|>"])
    vocabulary = {piece: number for number, piece in enumerate(names)}
    return CLIPTokenizer(vocab=vocabulary, merges=list(merges), model_max_length=32)


def _learn(parts: list[str], merges: dict[tuple[str, str], int]) -> None:
    """Add the merges that make one token of a word, after those that earlier words have added.

    Args:
        parts: of the word: its letters, the last one marked.
        merges: pair -> its place in the order in which byte-pair encoding applies them.
    """
    while len(parts) > 1:
        known = [pair for pair in pairwise(parts) if pair in merges]
        pair = min(known, key=merges.__getitem__) if known else (parts[0], parts[1])
        merges.setdefault(pair, len(merges))
        at = list(pairwise(parts)).index(pair)
        parts = [*parts[:at], "".join(pair), *parts[at + 2 :]]


def open_model(folder: Path) -> State:
    """Return a model as the engine hands it to a step: a state without changes.

    Complete models of later states go beside the folder, into ``states``.

    Raises:
        ModelError: the folder is no model, or of no family that is installed.
    """
    configs = read_configs(folder)
    _, anatomy = load_registry().recognise(configs, str(folder))
    return State(ModelFolder(folder, anatomy, configs), (), folder.parent / "states")
