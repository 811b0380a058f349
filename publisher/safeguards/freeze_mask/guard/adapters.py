"""Adapters on frozen layers: the tensors stay as they are, and what the layers compute does not."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import nn

from publisher.safeguards.freeze_mask.guard.errors import MaskBrokenError
from publisher.safeguards.freeze_mask.guard.foreign import hosts_of, require_no_parts, require_own_forward
from publisher.safeguards.freeze_mask.guard.names import canonical

HINT = "Leave frozen layers out: LoraConfig(..., exclude_modules=guard.exclude_modules()), or unload the adapter."


def layers_of(names: Iterable[str]) -> tuple[str, ...]:
    """Return layers that no adapter may sit on: those with a frozen weight; it leaves a bias as it is."""
    stems = {name.rpartition(".")[0] for name in names if not name.endswith(".bias")}
    return tuple(sorted(stems - {""}))


def require_no_adapter(denoiser: nn.Module, layers: Iterable[str], kinds: Mapping[str, type] | None = None) -> None:
    """Refuse adapters of every kind on frozen layers, and layers that diffusers fused.

    Args:
        denoiser: that is trained.
        layers: from :func:`layers_of`.
        kinds: layer -> its class when it was frozen; default: the one that it has.

    Raises:
        MaskBrokenError: there is one; the message says of which kind, and where.
    """
    frozen = frozenset(layers)
    for name, kind in _adapters(denoiser):
        hit = next((layer for layer in sorted(frozen) if layer == name or layer.startswith(f"{name}.")), None)
        if hit is not None:
            raise MaskBrokenError(f"{kind} sits on a layer that the mask freezes", where=hit, hint=HINT)
    hosts = hosts_of(denoiser, frozen)
    require_own_forward(hosts, kinds or {})
    require_no_parts(denoiser, hosts)
    if any(type(one).__name__.startswith("Fused") for one in getattr(denoiser, "attn_processors", {}).values()):
        hint = "Call its unfuse_qkv_projections()."
        raise MaskBrokenError("the projections of the denoiser are fused", hint=hint)


def _adapters(denoiser: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield layer and kind of each adapter; nothing where peft was never imported."""
    tuners, other = (sys.modules.get(name) for name in ("peft.tuners.tuners_utils", "peft.utils.other"))
    if tuners is None or other is None:
        return
    for name, module in denoiser.named_modules():
        if isinstance(module, tuners.BaseTunerLayer):
            for adapter in _names(module):
                yield canonical(name), f"the {_kind(module, adapter)} adapter {adapter!r}"
        elif isinstance(module, other.AuxiliaryTrainingWrapper):
            yield canonical(name), f"a trainable copy ({type(module).__name__})"


def _names(layer: Any) -> list[str]:
    held = (getattr(layer, part, None) for part in layer.adapter_layer_names)
    return sorted({adapter for part in held if part is not None for adapter in part.keys()})  # noqa: SIM118 - of modules


def _kind(layer: Any, adapter: str) -> str:
    if getattr(layer, "use_dora", {}).get(adapter):
        return "DoRA"
    kind = next(base.__module__ for base in type(layer).__mro__ if base.__module__.startswith("peft.tuners."))
    name = kind.split(".")[2]
    return {"lora": "LoRA", "loha": "LoHa", "lokr": "LoKr", "oft": "OFT", "ia3": "IA3"}.get(name, name)
