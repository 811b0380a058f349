"""Names that one-file checkpoints give the layers of a model (those of the latent-diffusion code). Torch-free.

Blocks are counted through, layers have other names: ``down_blocks.0.attentions.0`` is ``input_blocks.1.1``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from publisher.api.models import TensorInfo

LDM_TEXT = "cond_stage_model.transformer."
"""What one-file checkpoints of Stable Diffusion 1 put before the names of the text encoder."""
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
