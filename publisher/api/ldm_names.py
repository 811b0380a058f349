"""Names that one-file checkpoints give tensors. Torch-free.

Those of transformers are in :mod:`publisher.api.bfl_names`. Those of Stable Diffusion 1.x, 2.x and XL are of the
latent-diffusion code, of OpenAI's CLIP and of OpenCLIP, which ComfyUI, A1111 and Forge read:

    U-Net            model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight
    autoencoder      first_stage_model.encoder.down.0.block.0.norm1.weight
    text, 1.x        cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight
    text, 2.x        cond_stage_model.model.transformer.resblocks.0.mlp.c_fc.weight
    text, XL         conditioner.embedders.0.transformer.text_model. and conditioner.embedders.1.model.

Blocks of the U-Net are counted through. OpenCLIP keeps queries, keys and values in one tensor, and its projection
transposed; the autoencoder's attention has 1x1 convolutions where diffusers has matrices.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from publisher.api.bfl_names import transformer_places
from publisher.api.file_places import Places, SingleFilePlace
from publisher.api.models import TensorInfo
from publisher.api.weight_names import modern

LDM_TEXT = "cond_stage_model.transformer."
"""What one-file checkpoints of Stable Diffusion 1 put before the names of the text encoder."""
EMA = "model_ema."
"""What training puts before the names of a second, averaged U-Net in the same file."""
EMA_STATE = (f"{EMA}decay", f"{EMA}num_updates")
"""What is kept beside it, and is no weight."""
_UNET, _VAE = "model.diffusion_model.", "first_stage_model."
_ENCODERS = {"StableDiffusion": "cond_stage_model.", "StableDiffusionXL": "conditioner.embedders.{}."}
_PIPELINE = re.compile(r"(StableDiffusion(?:XL)?)(?:Img2Img|Inpaint)?Pipeline")
_LDM_WHOLE = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_LDM_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_BLOCK = re.compile(
    r"(?P<side>down|up|mid)_blocks?\.(?:(?P<block>\d+)\.)?(?P<kind>resnets|attentions|downsamplers|upsamplers)"
    r"\.(?P<index>\d+)\.(?P<rest>.+)"
)

_VAE_WHOLE = {"conv_norm_out": "norm_out"}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_VAE_LAYER = re.compile(
    r"(?P<half>encoder|decoder)\.(?P<side>down|up|mid)_blocks?\.(?:(?P<block>\d+)\.)?"
    r"(?P<kind>resnets|attentions|downsamplers|upsamplers)\.(?P<index>\d+)\.(?P<rest>.+)"
)
_OPEN_CLIP_WHOLE = {
    "embeddings.position_embedding.weight": "positional_embedding",
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
_OPEN_CLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_FUSED = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_ENCODER_LAYER = re.compile(r"encoder\.layers\.(?P<number>\d+)\.(?P<layer>.+)\.(?P<leaf>weight|bias)")


def single_file_places(
    configs: Mapping[str, Mapping[str, Any]], tensors: Mapping[str, Mapping[str, TensorInfo]]
) -> dict[str, Places]:
    """Return component -> where a one-file checkpoint keeps its tensors; a tensor without a place there is left out.

    Args:
        configs: ``"model_index"`` and each component's name -> its configuration.
        tensors: component -> its tensors by name.

    Returns:
        Of Stable Diffusion 1.x, 2.x and XL all parts, of 3, FLUX.1 and Chroma the transformer; empty for others.
    """
    pipeline = _PIPELINE.fullmatch(str(configs.get("model_index", {}).get("_class_name")))
    if pipeline is None:
        entry = configs.get("model_index", {}).get("transformer")
        kind = str(entry[1]) if isinstance(entry, (list, tuple)) and len(entry) == 2 else ""
        places = transformer_places(kind, tensors.get("transformer", {}))
        return {"transformer": places} if places else {}
    found = {
        "unet": _unet_places(configs.get("unet", {}), tensors.get("unet", {})),
        "vae": _vae_places(tensors.get("vae", {})),
    }
    for number, component in enumerate(("text_encoder", "text_encoder_2")):
        if component in tensors:
            prefix = _ENCODERS[pipeline[1]].format(number)
            openai = configs.get(component, {}).get("hidden_act", "quick_gelu") == "quick_gelu"
            found[component] = (_clip_places if openai else _open_clip_places)(tensors[component], prefix)
    return {component: places for component, places in found.items() if places}


def _unet_places(config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> Places:
    named = {layer: ldm for ldm, layer in ldm_layers(config, tensors).items()}
    split = {name: name.rpartition(".") for name in tensors}
    return {
        name: SingleFilePlace(f"{_UNET}{named[layer]}.{leaf}")
        for name, (layer, _, leaf) in split.items()
        if layer in named
    }


def _vae_places(tensors: Mapping[str, TensorInfo]) -> Places:
    ups = {match["block"] for name in tensors if (match := re.match(r"decoder\.up_blocks\.(?P<block>\d+)\.", name))}
    found = {}
    for name, info in tensors.items():
        layer, _, leaf = modern(name).rpartition(".")
        if ldm := _vae_layer(layer, len(ups)):
            matrix = ".mid.attn_1." in f".{ldm}." and len(info.shape) == 2
            found[name] = SingleFilePlace(f"{_VAE}{ldm}.{leaf}", form="convolution" if matrix else "same")
    return found


def _vae_layer(layer: str, ups: int) -> str:
    """Return the LDM name of an autoencoder's layer; empty where it has none. The decoder's blocks are counted down."""
    match = _VAE_LAYER.fullmatch(layer)
    if match is None:
        half, _, own = layer.rpartition(".")
        whole = own in ("conv_in", "conv_out", "conv_norm_out") if half else own in ("quant_conv", "post_quant_conv")
        return f"{half}.{_VAE_WHOLE.get(own, own)}" if half and whole else own if whole else ""
    half, index, rest = match["half"], int(match["index"]), match["rest"]
    resnet = rest.replace("conv_shortcut", "nin_shortcut")
    if match["side"] == "mid":
        attention = _VAE_ATTENTION.get(rest, "") if index == 0 else ""
        inner = f"block_{index + 1}.{resnet}" if match["kind"] == "resnets" else attention and f"attn_1.{attention}"
        return f"{half}.mid.{inner}" if inner else ""
    block = int(match["block"])
    place = f"{half}.down.{block}" if match["side"] == "down" else f"{half}.up.{ups - 1 - block}"
    kinds = {
        "resnets": f"block.{index}.{resnet}",
        "downsamplers": "downsample.conv",
        "upsamplers": "upsample.conv",
        "attentions": "",
    }
    inner = kinds[match["kind"]]
    return f"{place}.{inner}" if inner else ""


def _clip_places(tensors: Iterable[str], prefix: str) -> Places:
    own = {name: modern(name) for name in tensors}
    return {
        name: SingleFilePlace(f"{prefix}transformer.text_model.{new}")
        for name, new in own.items()
        if not new.startswith("text_projection.")
    }


def _open_clip_places(tensors: Mapping[str, TensorInfo], prefix: str) -> Places:
    found = {name: _open_clip_place(modern(name), info, f"{prefix}model.") for name, info in tensors.items()}
    return {name: place for name, place in found.items() if place}


def _open_clip_place(name: str, info: TensorInfo, prefix: str) -> SingleFilePlace | None:
    if name in _OPEN_CLIP_WHOLE:
        return SingleFilePlace(prefix + _OPEN_CLIP_WHOLE[name])
    if name == "text_projection.weight":
        return SingleFilePlace(f"{prefix}text_projection", form="transposed")
    match = _ENCODER_LAYER.fullmatch(name)
    if match is None:
        return None
    block = f"{prefix}transformer.resblocks.{match['number']}"
    if match["layer"] in _FUSED:
        rows, piece = info.shape[0], _FUSED.index(match["layer"])
        return SingleFilePlace(f"{block}.attn.in_proj_{match['leaf']}", piece * rows, len(_FUSED) * rows)
    layer = _OPEN_CLIP_LAYER.get(match["layer"], "")
    return SingleFilePlace(f"{block}.{layer}.{match['leaf']}") if layer else None


def ldm_layers(config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> dict[str, str]:
    """Return the LDM name of each layer of a U-Net, as one-file checkpoints have it, and the name in diffusers.

    Args:
        config: of the denoiser. What is no U-Net with the same number of layers in each block has no such names.
        tensors: of the denoiser.
    """
    depth = config.get("layers_per_block")
    if config.get("_class_name") != "UNet2DConditionModel" or type(depth) is not int:
        return {}
    layers = dict.fromkeys(name.rpartition(".")[0] for name in tensors)
    crossed = {
        match["block"] for name in layers if (match := re.match(r"up_blocks\.(?P<block>\d+)\.attentions\.", name))
    }
    named = {layer: _ldm_layer(layer, depth, crossed) for layer in layers}
    return {ldm: layer for layer, ldm in named.items() if ldm}


def _ldm_layer(layer: str, depth: int, crossed: set[str]) -> str:
    """Return the LDM name of a layer; empty where it has none. Blocks are counted through, ``depth`` + 1 for each."""
    match = _BLOCK.fullmatch(layer)
    if match is None:
        return _LDM_WHOLE.get(layer, "")
    block, index = int(match["block"] or 0), int(match["index"])
    first = block * (depth + 1)
    slot, inner = (1, match["rest"]) if match["kind"] == "attentions" else (0, _LDM_RESNET.get(match["rest"], ""))
    if match["kind"] == "downsamplers":
        return f"input_blocks.{first + depth + 1}.0.op"
    if match["kind"] == "upsamplers":
        return f"output_blocks.{first + depth}.{2 if match['block'] in crossed else 1}.conv"
    places = {
        "mid": f"middle_block.{slot or 2 * index}",
        "down": f"input_blocks.{first + 1 + index}.{slot}",
        "up": f"output_blocks.{first + index}.{slot}",
    }
    return f"{places[match['side']]}.{inner}" if inner else ""
