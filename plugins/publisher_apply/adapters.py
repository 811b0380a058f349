"""LoRA files in the spellings of peft, diffusers and kohya: which layers they change, and by how much.

    W' = W + scale * (alpha / r) * up down            linear layers: up (m, r), down (r, n)
                                                      convolutions:  up (m, r, 1, 1), down (r, n, k, k)

Everything else that such files can hold (DoRA, LoHa, LoKr, cores, norms, biases) is refused by its name.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from publisher.api import ModelError, TensorInfo
from publisher_apply.names import ComponentNames

if TYPE_CHECKING:
    from torch import Tensor

METADATA = "lora_adapter_metadata"
"""Key under which diffusers keeps peft's configuration in a file."""
CONFIG = "adapter_config.json"
"""File beside a LoRA in which peft keeps its configuration."""
OTHERS = {
    r"\.(dora_scale|lora_magnitude_vector)": "DoRA",
    r"\.lora_mid": "LoCon with a core (Tucker decomposition)",
    r"\.hada_": "LoHa",
    r"\.lokr_": "LoKr",
    r"\.oft_": "OFT",
    r"\.boft_": "BOFT",
    r"\.vera_": "VeRA",
    r"\.ia3_l": "IA3",
    r"\.lora_embedding_": "LoRA of an embedding",
    r"\.[wb]_norm$": "a change of norms",
    r"\.diff$": "a difference of weights (LyCORIS full)",
    r"\.diff_b$": "a difference of biases (LyCORIS full)",
    r"\.(lora_B\.bias|lora_bias)$": "LoRA with a bias",
}
"""Pattern of a tensor's name -> what it belongs to."""
_FACTOR = re.compile(
    r"(?P<layer>.+?)\.(?:lora_(?P<peft>[AB])(?:\.(?!weight$)[^.]+)?|lora_(?P<kohya>down|up)"
    r"|lora(?:_linear_layer)?\.(?P<old>down|up))\.weight"
)
_PROCESSOR = re.compile(r"(?P<block>.+)\.processor\.(?P<layer>to_q|to_k|to_v|to_out)_lora\.(?P<old>down|up)\.weight")
_DOWN = ("A", "down")


@dataclass(frozen=True)
class Factor:
    """A tensor of a LoRA file."""

    key: str
    """Its name in the file."""
    shape: tuple[int, ...]


@dataclass(frozen=True)
class LoraChange:
    """The change of one weight: two factors and their strength."""

    component: str
    name: str
    """Name of the weight in the model."""
    path: Path
    """File that holds the factors."""
    down: Factor
    up: Factor
    alpha_key: str
    """Name of the tensor that holds alpha; empty: ``alpha`` says it."""
    alpha: float
    """0: the rank, so that the product counts once."""
    rooted: bool
    """Whether the strength is alpha by the root of the rank (rsLoRA), not by the rank."""
    scale: float
    """The manifest's strength."""

    def change(self) -> Tensor:
        """Return what is added to the weight, in float64, of the product's shape ``(m, n)`` or ``(m, n, k, k)``."""
        from safetensors import safe_open

        with safe_open(self.path, framework="pt") as file:
            down, up = file.get_tensor(self.down.key).double(), file.get_tensor(self.up.key).double()
            alpha = float(file.get_tensor(self.alpha_key)) if self.alpha_key else self.alpha
        rank = down.shape[0]
        product = up.reshape(up.shape[0], rank) @ down.reshape(rank, -1)
        strength = self.scale * (alpha or rank) / (math.sqrt(rank) if self.rooted else rank)
        return (strength * product).reshape(up.shape[0], *down.shape[1:])


def is_adapter(names: Iterable[str]) -> bool:
    """Return whether these are a LoRA's tensors, or of another kind of adapter."""
    return any(_split(name) is not None or _other(name) for name in names)


def read_adapter(
    path: Path,
    header: Mapping[str, TensorInfo],
    components: Sequence[ComponentNames],
    scale: float,
    config: Path | None,
) -> list[LoraChange]:
    """Return the changes that a LoRA makes, sorted by what they change. Reads no weights.

    Args:
        path: the file.
        header: of the file.
        components: of the model, the denoiser first; more than one: the file's names say which is meant.
        scale: the manifest's strength.
        config: peft's configuration beside the file; None: there is none.

    Raises:
        ModelError: another kind of adapter, a layer that the model lacks, or factors that do not fit it.
    """
    where = str(path)
    for name in header:
        if kind := _other(name):
            hint = "Merge it into the weights with the tool that made it, and apply the merged weights."
            raise ModelError(f"is no plain LoRA but {kind}: it holds {name!r}", where=where, hint=hint)
    pairs: dict[str, dict[str, Factor]] = {}
    alphas: dict[str, str] = {}
    for name, info in header.items():
        if name.endswith(".alpha"):
            alphas[name.removesuffix(".alpha")] = name
            continue
        split = _split(name)
        if split is None:
            raise ModelError(f"is a LoRA with a tensor that belongs to none: {name!r}", where=where)
        pairs.setdefault(split[0], {})[split[1]] = Factor(name, info.shape)
    stray = sorted(set(alphas) - set(pairs))
    if stray:
        raise ModelError(f"has an alpha without factors: {alphas[stray[0]]!r}", where=where)
    alpha, rooted = _strength(path, config, pairs, alphas)
    found = []
    for layer, pair in pairs.items():
        if set(pair) != {"down", "up"}:
            raise ModelError(f"has one factor of {layer!r} alone", where=where, hint="The file is damaged.")
        component, name = _weight(layer, components, where)
        own = LoraChange(
            component=component.component,
            name=name,
            path=path,
            down=pair["down"],
            up=pair["up"],
            alpha_key=alphas.get(layer, ""),
            alpha=alpha,
            rooted=rooted,
            scale=scale,
        )
        _require_fit(own, component.tensors[name], where)
        found.append(own)
    return sorted(found, key=lambda one: (one.component, one.name))


def _other(name: str) -> str:
    """Return the kind of adapter that a tensor belongs to; empty where it may be of a plain LoRA, or of none."""
    return next((kind for pattern, kind in OTHERS.items() if re.search(pattern, name)), "")


def _split(name: str) -> tuple[str, str] | None:
    """Return layer and ``down`` or ``up``; None for what is no factor."""
    if old := _PROCESSOR.fullmatch(name):
        layer = "to_out.0" if old["layer"] == "to_out" else old["layer"]
        return f"{old['block']}.{layer}", old["old"]
    match = _FACTOR.fullmatch(name)
    if match is None:
        return None
    part = match["peft"] or match["kohya"] or match["old"]
    return match["layer"], "down" if part in _DOWN else "up"


def _strength(
    path: Path, config: Path | None, pairs: Mapping[str, Any], alphas: Mapping[str, str]
) -> tuple[float, bool]:
    """Return alpha for factors that have none of their own (0: their rank), and whether it goes by the rank's root."""
    from safetensors import safe_open

    where = str(config or path)
    with safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get(METADATA, "")
    if config is not None:
        text = config.read_text("utf-8")
    if not text:
        if not alphas and any(layer.startswith("base_model.model.") for layer in pairs):
            hint = f"Put {CONFIG} beside the file, and name the folder."
            raise ModelError(
                "peft keeps the strength of its LoRA beside the file, and it is not there", where=where, hint=hint
            )
        return 0.0, False
    try:
        data = json.loads(text)
    except ValueError as error:
        raise ModelError(f"peft's configuration cannot be read: {error}", where=where) from error
    if not isinstance(data, dict):
        raise ModelError("peft's configuration is no JSON object", where=where)
    own = {str(key).rpartition(".")[2]: value for key, value in data.items()}
    for key in ("alpha_pattern", "use_dora", "lora_bias", "fan_in_fan_out"):
        if own.get(key):
            hint = "Merge it into the weights with peft (merge_and_unload), and apply the merged weights."
            raise ModelError(f"its LoRA has {key}, which is not read here", where=where, hint=hint)
    alpha = own.get("lora_alpha", 0.0)
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise ModelError(f"its lora_alpha is no number: {alpha!r}", where=where)
    return float(alpha), bool(own.get("use_rslora"))


def _weight(layer: str, components: Sequence[ComponentNames], where: str) -> tuple[ComponentNames, str]:
    claimed = [one for one in components if one.claims(layer)] or list(components)
    found = [(one, f"{path}.weight") for one in claimed if (path := one.layer(layer))]
    found = [(one, name) for one, name in found if name in one.tensors]
    if not found:
        names = ", ".join(one.component for one in claimed)
        raise ModelError(
            f"changes the layer {layer!r}, which the model does not have",
            where=where,
            hint=f"Looked for in: {names}. Was it made for another model?",
        )
    if len(found) > 1:
        names = ", ".join(one.component for one, _ in found)
        raise ModelError(
            f"changes the layer {layer!r}, which several components have: {names}",
            where=where,
            hint="Name one with component:",
        )
    return found[0]


def _require_fit(own: LoraChange, weight: TensorInfo, where: str) -> None:
    down, up = own.down.shape, own.up.shape
    rank = down[0] if down else 0
    fits = len(down) == len(up) == len(weight.shape) and rank > 0 and up[1:] == (rank, *(1,) * (len(up) - 2))
    if not fits or (up[0], *down[1:]) != weight.shape:
        what = f"factors {up} and {down} do not fit {own.component}/{own.name} {weight.shape}"
        raise ModelError(what, where=where, hint="Was it made for another model?")
