"""Names of tensors as training tools write them, brought back to the names of the published network. Torch-free.

    peft        base_model.model.<layer>.lora_A.weight, <layer>.base_layer.weight, lora_magnitude_vector, ia3_l, ...
    diffusers   unet.<layer>.lora_A.weight, <layer>.lora.down.weight, <block>.processor.to_q_lora.down.weight
    others      diffusion_model.<layer>.lora_A.weight, lora_unet.<layer>.lora_down.weight
    kohya       lora_unet_<layer, _ for .>.lora_down.weight, .alpha, .dora_scale, .hada_w1_a, .lokr_w1, .diff, ...
    OneTrainer  lora_transformer_<layer, _ for .>.lora_down.weight
    LDM         model.diffusion_model.<layer as one-file checkpoints call it>, in kohya's names too
    BFL         double_blocks.0.img_attn.qkv.weight: three tensors in one, in ComfyUI's and kohya's names too

A layer is one only if the published network has it: names are looked up, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from publisher.api.file_places import SingleFilePlace

WRAPPERS = ("base_model.model.", "_orig_mod.", "module.", "model.diffusion_model.", "diffusion_model.", "lora_unet.")
"""What peft, ``torch.compile``, data-parallel training and other programs put before a name."""
TEXT = ("text_encoder", "text_model.", "lora_te_", "lora_te1_", "lora_te2_", "lora_te3_")
KOHYA = ("lora_unet_", "lora_transformer_", "lycoris_unet_", "lycoris_transformer_", "lycoris_")
OLDER = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}
"""Layers of an autoencoder's attention as they were called until 2023 -> as they are called."""
COUNTING = ".position_ids"
"""End of the name of a tensor that counts from 0: older text encoders save it, newer ones make it."""
_PROCESSOR = re.compile(r"(?P<block>.+)\.processor\.(?P<layer>to_q|to_k|to_v|to_out|add_k_proj|add_v_proj)_lora\..+")
_SAVED = re.compile(r"\.(?:base_layer|modules_to_save\.[^.]+)(?=\.[^.]+$)")
_ON_WEIGHT = re.compile(
    r"\.(?:lora_(?:A|B|down|up|mid|magnitude_vector)|lora\.(?:down|up)|lora_linear_layer|hada_|lokr_|oft_|boft_|vera_)"
    r"(?!.*\bbias$)|\.(?:alpha|dora_scale|diff|w_norm)$|_lora\."
)

_PACKED = re.compile(
    r"\.(?:(?:nested_)?(?:absmax|quant_map)|SCB|weight_format|qweight|qzeros|scales|g_idx|comfy_quant"
    r"|scale_(?:weight|input)|(?:weight|input)_scale(?:_2)?)$|\.quant_state\.|(?:^|\.)scaled_fp8$"
)


@dataclass
class Names:
    """The tensors of one set of files, sorted by what they are."""

    tensors: dict[str, str] = field(default_factory=dict)
    """Name in the published network -> name in the file."""
    placed: set[str] = field(default_factory=set)
    """Those of the published names whose tensors have another form or are rows of another in the file."""
    twice: list[str] = field(default_factory=list)
    """Published names that two tensors of the file stand for."""
    adapters: dict[str, set[str]] = field(default_factory=dict)
    """Layer of the published network -> published tensors of it that adapters in the file act on."""
    text: list[str] = field(default_factory=list)
    """Adapters of a text encoder."""
    other: list[str] = field(default_factory=list)
    """Everything else."""


class Layers:
    """The published network's names.

    Args:
        component: its folder, which diffusers writes before the names in adapters.
        tensors: names of its tensors.
        others: another name of a layer -> its name here, such as
            :func:`publisher.api.ldm_names.ldm_layers` returns them.
        places: where a one-file checkpoint keeps its tensors, without a prefix, several of them in one.
    """

    def __init__(
        self,
        component: str,
        tensors: Iterable[str],
        others: Mapping[str, str] = MappingProxyType({}),
        places: Mapping[str, SingleFilePlace] = MappingProxyType({}),
    ) -> None:
        self._wrappers = (*WRAPPERS, f"{component}.")
        self.tensors = set(tensors)
        self._parts: dict[str, set[str]] = {}
        for name in self.tensors:
            self._parts.setdefault(name.rpartition(".")[0], set()).add(name)
        self._held: dict[str, list[str]] = {}
        held: dict[str, dict[str, None]] = {}
        for name, place in places.items():
            self._held.setdefault(place.name, []).append(name)
            held.setdefault(place.name.rpartition(".")[0], {})[name.rpartition(".")[0]] = None
        self._others: dict[str, tuple[str, ...]] = {name: (layer,) for name, layer in others.items()}
        self._others |= {name: tuple(layers) for name, layers in held.items() if name}
        own: dict[str, tuple[str, ...]] = {layer: (layer,) for layer in self._parts}
        self._stems = {name.replace(".", "_"): layers for name, layers in {**self._others, **own}.items()}

    def sort(self, names: Iterable[str]) -> Names:
        """Say of every tensor in a file what it is."""
        found = Names()
        for name in sorted(names):
            bare = self._bare(name)
            saved = _SAVED.sub("", bare)
            published = self._published(saved)
            for one in published:
                if one in found.tensors:
                    found.twice.append(one)
                found.tensors[one] = name
            if published:
                found.placed |= set(published) if saved in self._held and saved not in self.tensors else set()
            elif name.startswith(TEXT) or bare.startswith(TEXT):
                found.text.append(name)
            elif layers := self._layer(bare):
                for layer in layers:
                    found.adapters.setdefault(layer, set()).update(self._touched(layer, name))
            else:
                found.other.append(name)
        return found

    def _bare(self, name: str) -> str:
        while name not in self.tensors and name.startswith(self._wrappers):
            name = name.removeprefix(next(one for one in self._wrappers if name.startswith(one)))
        return name

    def _published(self, name: str) -> tuple[str, ...]:
        """Return the published tensors that a tensor holds; none: it is none of them."""
        if name in self.tensors:
            return (name,)
        if name in self._held:
            return tuple(self._held[name])
        layer, _, leaf = name.rpartition(".")
        names = [f"{one}.{leaf}" for one in self._others.get(layer, ())]
        return tuple(names) if len(names) == 1 and names[0] in self.tensors else ()

    def _layer(self, name: str) -> tuple[str, ...]:
        if prefixes := [prefix for prefix in KOHYA if name.startswith(prefix)]:
            stems = [name.removeprefix(prefix).partition(".")[0] for prefix in prefixes]
            return next((self._stems[stem] for stem in stems if stem in self._stems), ())
        if old := _PROCESSOR.fullmatch(name):
            layer = f"{old['block']}.{old['layer']}"
            return next(((one,) for one in (layer, f"{layer}.0") if one in self._parts), ())
        while "." in name:
            name = name.rpartition(".")[0]
            if name in self._parts:
                return (name,)
            if name in self._others:
                return self._others[name]
        return ()

    def _touched(self, layer: str, name: str) -> set[str]:
        """Return what an adapter acts on: a LoRA on the layer's weight, an unknown kind on all of the layer."""
        weight = f"{layer}.weight"
        return {weight} if weight in self.tensors and _ON_WEIGHT.search(name) else self._parts[layer]


def packed(names: Iterable[str]) -> str:
    """Return a tensor that tells how others in the file are to be unpacked (bitsandbytes, GPTQ, scaled fp8).

    Returns:
        Its name; empty: there is none, and numbers mean what they are.
    """
    return min((name for name in names if _PACKED.search(name)), default="")


def modern(name: str) -> str:
    """Return the name that current libraries give a tensor of a text encoder or an autoencoder."""
    for old, new in OLDER.items():
        name = name.replace(old, new)
    return name.removeprefix("text_model.")


def pair(published: Iterable[str], found: Iterable[str]) -> dict[str, str]:
    """Return published names and those in a file that stand for them, older names of the same tensors included."""
    own = sorted(found)
    older = {modern(name): name for name in own}
    exact = dict.fromkeys(own)
    pairs = {name: name if name in exact else older.get(modern(name), "") for name in published}
    return {name: there for name, there in pairs.items() if there}


def frozen_layers(adapters: Mapping[str, set[str]], frozen: Iterable[str]) -> tuple[str, ...]:
    """Return the layers on which an adapter acts on something frozen, in part or in full; sorted."""
    held = set(frozen)
    return tuple(sorted(layer for layer, touched in adapters.items() if touched & held))
