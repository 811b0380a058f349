"""Names in one-file checkpoints, against diffusers' own converter at the true structure of the published models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from publisher.api import TensorInfo
from publisher.api.file_places import Places
from publisher.api.ldm_names import single_file_places
from publisher.api.weight_names import modern
from support.membrane_files import SD1, SD2, SDXL

VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12}
CLIP_H = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 23}
CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_attention_heads": 20, "num_hidden_layers": 32}


def encoder(config: Mapping[str, Any], act: str, *, projects: bool = False) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    cls = CLIPTextModelWithProjection if projects else CLIPTextModel
    return cls(CLIPTextConfig(**config, hidden_act=act, projection_dim=config["hidden_size"]))


def build(name: str) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Return configurations and networks without numbers."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(**{"sd1": SD1, "sd2": SD2, "sdxl": SDXL}[name])
        networks: dict[str, Any] = {"unet": unet, "vae": AutoencoderKL(**VAE)}
        if name == "sd2":
            networks["text_encoder"] = encoder(CLIP_H, "gelu")
        else:
            networks["text_encoder"] = encoder(CLIP_L, "quick_gelu")
        if name == "sdxl":
            networks["text_encoder_2"] = encoder(CLIP_G, "gelu", projects=True)
    pipeline = "StableDiffusionXLPipeline" if name == "sdxl" else "StableDiffusionPipeline"
    configs: dict[str, dict[str, Any]] = {"model_index": {"_class_name": pipeline}}
    for part, network in networks.items():
        configs[part] = network.config.to_dict() if part.startswith("text") else dict(network.config)
    configs["unet"]["_class_name"] = "UNet2DConditionModel"
    return configs, networks


def shaped(own: Tensor, form: str) -> Tensor:
    if form == "swapped":
        return torch.cat(own.chunk(2)[::-1])
    return own if form == "same" else own.T if form == "transposed" else own[..., None, None]


def checkpoint(weights: Mapping[str, Tensor], places: Places) -> dict[str, Tensor]:
    """Return the tensors as a one-file checkpoint has them."""
    pieces: dict[str, list[tuple[int, Tensor]]] = {}
    for name, place in places.items():
        own = weights[name]
        pieces.setdefault(place.name, []).append((place.start, shaped(own, place.form)))
    found = {}
    for name, held in pieces.items():
        parts = [one for _, one in sorted(held, key=lambda one: one[0])]
        found[name] = parts[0] if len(parts) == 1 else torch.cat(parts)
    return found


@pytest.mark.parametrize("name", ["sd1", "sd2", "sdxl"])
def test_diffusers_finds_every_tensor_under_its_place(name: str) -> None:
    from diffusers.loaders import single_file_utils as theirs

    configs, networks = build(name)
    weights = {part: network.state_dict() for part, network in networks.items()}
    infos = {
        part: {key: TensorInfo(key, tuple(one.shape), "F32", "") for key, one in found.items()}
        for part, found in weights.items()
    }
    places = single_file_places(configs, infos)
    file = {key: one for part in places for key, one in checkpoint(weights[part], places[part]).items()}
    assert sum(len(found) for found in places.values()) == sum(len(found) for found in weights.values())
    converted = {
        "unet": theirs.convert_ldm_unet_checkpoint(file, configs["unet"]),
        "vae": theirs.convert_ldm_vae_checkpoint(file, configs["vae"]),
    }
    if name == "sd2":
        prefix = "cond_stage_model.model."
        converted["text_encoder"] = theirs.convert_open_clip_checkpoint(networks["text_encoder"], file, prefix)
    else:
        converted["text_encoder"] = theirs.convert_ldm_clip_checkpoint(file)
    if name == "sdxl":
        prefix = "conditioner.embedders.1.model."
        converted["text_encoder_2"] = theirs.convert_open_clip_checkpoint(networks["text_encoder_2"], file, prefix)
    for part, own in weights.items():
        found = {modern(key): one for key, one in converted[part].items()}
        assert {key: one.shape for key, one in found.items()} == {modern(key): one.shape for key, one in own.items()}
        alike = [key for key, place in places[part].items() if place.form == "same" and place.rows is None]
        assert all(found[modern(key)] is own[key] for key in alike)
        assert len(alike) > len(own) / 2
    assert set(theirs.CHECKPOINT_KEY_NAMES[{"sd1": "v1", "sd2": "v2", "sdxl": "xl_base"}[name]].split()) <= set(file)


TRANSFORMERS: dict[str, dict[str, Any]] = {
    "FluxTransformer2DModel": {"num_layers": 2, "num_single_layers": 2, "guidance_embeds": True},
    "ChromaTransformer2DModel": {"num_layers": 2, "num_single_layers": 2, "approximator_layers": 2},
    "SD3Transformer2DModel": {
        "num_layers": 3,
        "num_attention_heads": 24,
        "joint_attention_dim": 4096,
        "caption_projection_dim": 1536,
        "pooled_projection_dim": 2048,
        "dual_attention_layers": (0, 1),
        "qk_norm": "rms_norm",
    },
}
"""Transformers of the published widths, with few blocks."""


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_diffusers_converts_a_transformers_file_to_the_same_numbers(kind: str, prefix: str) -> None:
    """Numbers are random; matrices have two columns, which no converter looks at but for SD3's entry of texts."""
    import diffusers
    from diffusers.loaders import single_file_utils as theirs

    with torch.device("meta"):
        network = getattr(diffusers, kind)(**TRANSFORMERS[kind])
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: torch.randn(*one.shape[:1], *(2 for _ in one.shape[1:2]), generator=generator)
        for name, one in network.state_dict().items()
    }
    infos = {key: TensorInfo(key, tuple(one.shape), "F32", "") for key, one in weights.items()}
    index = {"model_index": {"transformer": ["diffusers", kind]}}
    places = single_file_places(index, {"transformer": infos})["transformer"]
    assert set(places) == set(weights)
    file = {prefix + name: one for name, one in checkpoint(weights, places).items()}
    assert len(file) < len(weights)
    convert = {
        "FluxTransformer2DModel": theirs.convert_flux_transformer_checkpoint_to_diffusers,
        "ChromaTransformer2DModel": theirs.convert_chroma_transformer_checkpoint_to_diffusers,
        "SD3Transformer2DModel": theirs.convert_sd3_transformer_checkpoint_to_diffusers,
    }[kind]
    converted = convert(file)
    assert set(converted) == set(weights)
    assert all(torch.equal(one, converted[name]) for name, one in weights.items())


def test_a_tensor_whose_neighbours_are_missing_has_no_place() -> None:
    names = [f"single_transformer_blocks.0.{one}.weight" for one in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_out")]
    infos = {name: TensorInfo(name, (4, 4), "F32", "") for name in names}
    index = {"model_index": {"transformer": ["diffusers", "FluxTransformer2DModel"]}}
    assert set(single_file_places(index, {"transformer": infos})["transformer"]) == {names[-1]}


def test_other_models_have_no_places() -> None:
    info = {"unet": {"conv_in.weight": TensorInfo("conv_in.weight", (1,), "F32", "")}}
    assert single_file_places({"model_index": {"_class_name": "PixArtSigmaPipeline"}}, info) == {}
