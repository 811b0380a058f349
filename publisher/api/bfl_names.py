"""Names that one-file checkpoints of FLUX.1, Chroma and Stable Diffusion 3 give a transformer's tensors. Torch-free.

FLUX.1's are those of Black Forest Labs' code, which Chroma shares; Stable Diffusion 3's are those of Stability's:

    FLUX.1   double_blocks.0.img_attn.qkv.weight         single_blocks.0.linear1.weight
    SD3      joint_blocks.0.x_block.attn.qkv.weight      joint_blocks.0.context_block.mlp.fc1.weight

ComfyUI puts ``model.diffusion_model.`` before them. Queries, keys and values are one tensor there, and FLUX.1's single
blocks have the first layer of their MLP in it too. The last modulation has shift and scale in the other order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from publisher.api.file_places import Places, SingleFilePlace
from publisher.api.models import TensorInfo

Layers = Mapping[str, tuple[str, ...]]
"""Layer of the file -> layers of the folder that it holds, in their order."""
_IMAGE = tuple(f"attn.to_{one}" for one in "qkv")
_TEXT = tuple(f"attn.add_{one}_proj" for one in "qkv")
_FLUX_WHOLE: Layers = {
    **{
        f"{there}.{side}_layer": (f"time_text_embed.{here}.linear_{number}",)
        for there, here in (
            ("time_in", "timestep_embedder"),
            ("vector_in", "text_embedder"),
            ("guidance_in", "guidance_embedder"),
        )
        for number, side in enumerate(("in", "out"), 1)
    },
    "txt_in": ("context_embedder",),
    "img_in": ("x_embedder",),
    "final_layer.linear": ("proj_out",),
    "final_layer.adaLN_modulation.1": ("norm_out.linear",),
    "distilled_guidance_layer.in_proj": ("distilled_guidance_layer.in_proj",),
    "distilled_guidance_layer.out_proj": ("distilled_guidance_layer.out_proj",),
}
_FLUX_BLOCKS: Mapping[str, tuple[str, Layers]] = {
    "transformer_blocks": (
        "double_blocks",
        {
            "img_mod.lin": ("norm1.linear",),
            "txt_mod.lin": ("norm1_context.linear",),
            "img_attn.qkv": _IMAGE,
            "txt_attn.qkv": _TEXT,
            "img_attn.proj": ("attn.to_out.0",),
            "txt_attn.proj": ("attn.to_add_out",),
            "img_attn.norm.query_norm": ("attn.norm_q",),
            "img_attn.norm.key_norm": ("attn.norm_k",),
            "txt_attn.norm.query_norm": ("attn.norm_added_q",),
            "txt_attn.norm.key_norm": ("attn.norm_added_k",),
            "img_mlp.0": ("ff.net.0.proj",),
            "img_mlp.2": ("ff.net.2",),
            "txt_mlp.0": ("ff_context.net.0.proj",),
            "txt_mlp.2": ("ff_context.net.2",),
        },
    ),
    "single_transformer_blocks": (
        "single_blocks",
        {
            "modulation.lin": ("norm.linear",),
            "linear1": (*_IMAGE, "proj_mlp"),
            "linear2": ("proj_out",),
            "norm.query_norm": ("attn.norm_q",),
            "norm.key_norm": ("attn.norm_k",),
        },
    ),
    "distilled_guidance_layer.layers": (
        "distilled_guidance_layer.layers",
        {"in_layer": ("linear_1",), "out_layer": ("linear_2",)},
    ),
    "distilled_guidance_layer.norms": ("distilled_guidance_layer.norms", {"": ("",)}),
}
_SD3_WHOLE: Layers = {
    "pos_embed": ("pos_embed.pos_embed",),
    "x_embedder.proj": ("pos_embed.proj",),
    **{
        f"{there}.mlp.{2 * number}": (f"time_text_embed.{here}.linear_{number + 1}",)
        for there, here in (("t_embedder", "timestep_embedder"), ("y_embedder", "text_embedder"))
        for number in range(2)
    },
    "context_embedder": ("context_embedder",),
    "final_layer.linear": ("proj_out",),
    "final_layer.adaLN_modulation.1": ("norm_out.linear",),
}
_SD3_BLOCKS: Mapping[str, tuple[str, Layers]] = {
    "transformer_blocks": (
        "joint_blocks",
        {
            "x_block.attn.qkv": _IMAGE,
            "x_block.attn.proj": ("attn.to_out.0",),
            "x_block.attn.ln_q": ("attn.norm_q",),
            "x_block.attn.ln_k": ("attn.norm_k",),
            "x_block.attn2.qkv": tuple(f"attn2.to_{one}" for one in "qkv"),
            "x_block.attn2.proj": ("attn2.to_out.0",),
            "x_block.attn2.ln_q": ("attn2.norm_q",),
            "x_block.attn2.ln_k": ("attn2.norm_k",),
            "x_block.adaLN_modulation.1": ("norm1.linear",),
            "x_block.mlp.fc1": ("ff.net.0.proj",),
            "x_block.mlp.fc2": ("ff.net.2",),
            "context_block.attn.qkv": _TEXT,
            "context_block.attn.proj": ("attn.to_add_out",),
            "context_block.attn.ln_q": ("attn.norm_added_q",),
            "context_block.attn.ln_k": ("attn.norm_added_k",),
            "context_block.adaLN_modulation.1": ("norm1_context.linear",),
            "context_block.mlp.fc1": ("ff_context.net.0.proj",),
            "context_block.mlp.fc2": ("ff_context.net.2",),
        },
    )
}
_KINDS: Mapping[str, tuple[Layers, Mapping[str, tuple[str, Layers]]]] = {
    "FluxTransformer2DModel": (_FLUX_WHOLE, _FLUX_BLOCKS),
    "ChromaTransformer2DModel": (_FLUX_WHOLE, _FLUX_BLOCKS),
    "SD3Transformer2DModel": (_SD3_WHOLE, _SD3_BLOCKS),
}
"""Class of a transformer -> layers outside of its blocks, and its blocks -> their name in the file and their layers."""
_BLOCK = re.compile(r"(?P<blocks>[a-z_.]+)\.(?P<number>\d+)(?:\.(?P<layer>.+))?")


def transformer_places(kind: str, tensors: Mapping[str, TensorInfo]) -> Places:
    """Return where a one-file checkpoint keeps a transformer's tensors, without a prefix.

    A tensor is left out that has no place there, or whose neighbours in a tensor of the file are not all there.

    Args:
        kind: class of the transformer in diffusers; another than FLUX.1's, Chroma's and Stable Diffusion 3's has none.
        tensors: of the transformer.
    """
    if kind not in _KINDS:
        return {}
    held: dict[str, dict[int, str]] = {}
    sizes: dict[str, int] = {}
    for name in tensors:
        layer, leaf = (name, "") if name == "pos_embed.pos_embed" else tuple(name.rsplit(".", 1))
        if found := _layer_of(kind, layer):
            there, number, count = found
            leaf = "scale" if leaf == "weight" and re.search(r"query_norm$|key_norm$|\.norms\.\d+$", there) else leaf
            file = f"{there}.{leaf}" if leaf else there
            held.setdefault(file, {})[number] = name
            sizes[file] = count
    return {
        name: place
        for file, names in held.items()
        if len(names) == sizes[file]
        for name, place in _pieces(kind, file, [names[number] for number in sorted(names)], tensors).items()
    }


def _layer_of(kind: str, layer: str) -> tuple[str, int, int] | None:
    """Return the file's layer, which of its parts this is, and how many it has; None: the file has no such layer."""
    whole, blocks = _KINDS[kind]
    match = _BLOCK.fullmatch(layer)
    there, layers = blocks.get(match["blocks"], ("", {})) if match else ("", whole)
    own, prefix = (match["layer"] or "", f"{there}.{match['number']}") if match else (layer, "")
    for file, parts in layers.items():
        if own in parts:
            return ".".join(one for one in (prefix, file) if one), parts.index(own), len(parts)
    return None


def _pieces(kind: str, file: str, names: list[str], tensors: Mapping[str, TensorInfo]) -> Places:
    if len(names) == 1:
        return {names[0]: SingleFilePlace(file, form="swapped" if _swapped(kind, names[0], tensors) else "same")}
    heights = [tensors[name].shape[0] for name in names]
    return {name: SingleFilePlace(file, sum(heights[:number]), sum(heights)) for number, name in enumerate(names)}


def _swapped(kind: str, name: str, tensors: Mapping[str, TensorInfo]) -> bool:
    """Tell if a modulation has scale before shift here, and behind it there: the last, and SD3's last of the text."""
    layer = name.rpartition(".")[0]
    if layer == "norm_out.linear":
        return True
    numbers = (re.match(r"transformer_blocks\.(\d+)\.", one) for one in tensors)
    last = max((int(match[1]) for match in numbers if match), default=0)
    return kind == "SD3Transformer2DModel" and layer == f"transformer_blocks.{last}.norm1_context.linear"
