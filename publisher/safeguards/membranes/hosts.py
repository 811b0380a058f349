"""The layers of a live denoiser that carry membranes, plain or with LoRA loaded, found by class and counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from diffusers.models import Transformer2DModel, UNet2DConditionModel
from torch import nn

from publisher.api.membranes import Host, Membrane, MembraneEntry, require_fit
from publisher.errors import ModelError, UsageError
from publisher.safeguards.membranes.branches import PromptGate

_PER_BLOCK, _PER_TRANSFORMER = 10, 2


def denoiser_with_hosts(pipeline: Any) -> Any:
    """Return the part of a pipeline that carries membranes, whatever its name.

    Raises:
        ModelError: it has none.
    """
    for part in pipeline.components.values():
        plain = getattr(part, "_orig_mod", part)
        if isinstance(plain, UNet2DConditionModel):
            return part
    raise ModelError("membranes go on a UNet2DConditionModel, and the pipeline has none")


def require_hosts(denoiser: Any, members: Sequence[tuple[MembraneEntry, Membrane]]) -> dict[str, nn.Module]:
    """Return stem -> module that will carry branches; touch nothing.

    Raises:
        ModelError: a membrane does not fit, or the denoiser is of an unknown kind.
        UsageError: it was compiled, or has membranes already.
    """
    if compiled(denoiser):
        raise UsageError(
            "the denoiser is compiled: what is attached now would be ignored",
            hint="Attach the membranes first, then call torch.compile.",
        )
    if any(isinstance(hook, PromptGate) for hook in denoiser._forward_pre_hooks.values()):  # noqa: SLF001 - no other way to ask
        raise UsageError("the denoiser has membranes already", hint="Detach those first, or attach all together.")
    hosts = live_hosts(denoiser)
    for entry, membrane in members:
        require_fit(membrane, {stem: host for stem, (host, _) in hosts.items()}, entry.file)
    return {stem: layer for stem, (_, layer) in hosts.items()}


def live_hosts(denoiser: nn.Module) -> dict[str, tuple[Host, nn.Module]]:
    """Return stem -> host and its module: every Linear and 1x1 convolution below each transformer.

    Where LoRA is loaded, the host is the layer that it wraps.

    Raises:
        ModelError: not a U-Net, or another number of layers than its transformers should have.
    """
    if not isinstance(denoiser, UNet2DConditionModel):
        raise ModelError(f"membranes go on a UNet2DConditionModel, this is a {type(denoiser).__name__}")
    found, expected = {}, 0
    for path, module in denoiser.named_modules():
        if isinstance(module, Transformer2DModel):
            expected += _PER_TRANSFORMER + _PER_BLOCK * len(module.transformer_blocks)
            for name, layer in _layers(module, path):
                host = Host(name, _shape(layer))
                found[host.stem] = (host, layer)
    if len(found) != expected or not found:
        raise ModelError(
            f"the denoiser has {len(found)} layers that can carry a membrane, its architecture says {expected}",
            hint="Undo what replaces or fuses its layers (such as fuse_qkv_projections) first.",
        )
    return found


def _layers(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        inner: Any = getattr(child, "base_layer", child)  # what a LoRA layer wraps
        if isinstance(inner, nn.Linear) or (isinstance(inner, nn.Conv2d) and inner.kernel_size == (1, 1)):
            yield f"{path}.{name}", inner
        elif name != "processor":  # of IP-Adapter: layers that the model did not come with
            yield from _layers(child, f"{path}.{name}")


def _shape(layer: nn.Module) -> tuple[int, ...]:
    """Return the shape of its weight; not read from the weight itself, which quantisation may have packed."""
    if isinstance(layer, nn.Linear):
        return layer.out_features, layer.in_features
    conv: Any = layer
    return conv.out_channels, conv.in_channels, 1, 1


def compiled(denoiser: Any) -> bool:
    """Return whether the denoiser or a part of it went through ``torch.compile``."""
    if hasattr(denoiser, "_orig_mod"):
        return True
    return any(
        hasattr(part, "_orig_mod") or getattr(part, "_compiled_call_impl", None) is not None
        for part in denoiser.modules()
    )
