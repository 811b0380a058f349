"""Names that other tools give the tensors and layers of a model, looked up in the model itself: nothing is guessed.

diffusers       down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight, also behind "unet."
LDM             model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight
kohya           lora_unet_<either of them, _ for .>, lora_te_<...>, lora_te1_<...>, lora_te2_<...>
older versions  text_model.encoder..., or the same without "text_model."
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from publisher.api import ModelInfo, TensorInfo
from publisher.api.weight_names import KOHYA, WRAPPERS, modern

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


class ComponentNames:
    """Names of one component's tensors.

    Args:
        component: folder of the component.
        model: the model.
    """

    def __init__(self, component: str, model: ModelInfo) -> None:
        self.component = component
        self.tensors: Mapping[str, TensorInfo] = model.tensors(component)
        denoises = component == model.anatomy.denoiser
        places = [one.component for one in model.anatomy.text_encoders]
        self._prefixes = (*WRAPPERS, f"{component}.") if denoises else (f"{component}.", *WRAPPERS[:3])
        if component in places[:1]:
            self._prefixes = (*self._prefixes, LDM_TEXT)
        self.kohya: tuple[str, ...] = KOHYA if denoises else ()
        if component in places:
            number = places.index(component) + 1
            self.kohya = (f"lora_te{number}_", *(("lora_te_",) if number == 1 else ()))
        ldm = ldm_layers(model.config(component), self.tensors) if denoises else {}
        self._layers = {alias: layer for layer in self._own() for alias in (modern(f"{layer}.")[:-1], layer)} | ldm
        self._stems = {alias.replace(".", "_"): layer for alias, layer in self._layers.items()}

    def _own(self) -> Iterator[str]:
        yield from dict.fromkeys(name.rpartition(".")[0] for name in self.tensors)

    def claims(self, name: str) -> bool:
        """Return whether the name says by its beginning that it is of this component."""
        return name.startswith((f"{self.component}.", *self.kohya)) or (
            LDM_TEXT in self._prefixes and name.startswith(LDM_TEXT)
        )

    def tensor(self, name: str) -> str:
        """Return the model's name of a tensor; empty where it has none."""
        layer, _, leaf = name.rpartition(".")
        found = self.layer(layer)
        return full if found and (full := f"{found}.{leaf}") in self.tensors else ""

    def layer(self, name: str) -> str:
        """Return the model's name of a layer; empty where it has none."""
        for prefix in self.kohya:
            if name.startswith(prefix):
                return self._stems.get(name.removeprefix(prefix), "")
        while name not in self._layers and name.startswith(self._prefixes):
            name = name.removeprefix(next(one for one in self._prefixes if name.startswith(one)))
        return self._layers.get(name) or self._layers.get(modern(f"{name}.")[:-1], "")


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
