"""The layers of a live denoiser that carry membranes, plain or with LoRA loaded, found by class and counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from diffusers.models import Transformer2DModel, UNet2DConditionModel
from torch import nn

from publisher.api import Anatomy
from publisher.api.membranes import Host, Membrane, MembraneEntry, hosts_among, require_fit
from publisher.errors import ModelError, UsageError
from publisher.safeguards.membranes.branches import PromptGate, is_fused

_PER_BLOCK, _PER_TRANSFORMER = 10, 2


def transformer_anatomy(pipeline: Any) -> Anatomy | None:
    """Return the anatomy of a pipeline whose denoiser is a diffusion transformer; None: it is a U-Net.

    Raises:
        ModelError: nothing says which family the pipeline is of, or the family has no hosts.
    """
    if any(isinstance(getattr(one, "_orig_mod", one), UNet2DConditionModel) for one in pipeline.components.values()):
        return None
    anatomy: Anatomy | None = getattr(pipeline, "anatomy", None)
    if anatomy is None:
        raise ModelError(
            f"membranes go on a UNet2DConditionModel or on a model that this program has loaded, not on any"
            f" {type(pipeline).__name__}",
            hint="Load the package with publisher.load: it knows the family's layers.",
        )
    anatomy.require(("membranes",), "a membrane")
    return anatomy


def denoiser_with_hosts(pipeline: Any, anatomy: Anatomy | None = None) -> Any:
    """Return the part of a pipeline that carries membranes.

    Args:
        pipeline: of diffusers.
        anatomy: of a transformer; None: it is the U-Net, whatever its name.

    Raises:
        ModelError: it has none.
    """
    if anatomy is not None:
        return getattr(pipeline, anatomy.denoiser)
    for part in pipeline.components.values():
        plain = getattr(part, "_orig_mod", part)
        if isinstance(plain, UNet2DConditionModel):
            return part
    raise ModelError("membranes go on a UNet2DConditionModel, and the pipeline has none")


def require_hosts(
    denoiser: Any, members: Sequence[tuple[MembraneEntry, Membrane]], anatomy: Anatomy | None = None
) -> dict[str, nn.Module]:
    """Return stem -> module that will carry branches; touch nothing.

    Args:
        denoiser: of the pipeline.
        members: membranes with their entries.
        anatomy: of a transformer; None: the denoiser is a U-Net.

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
    if anatomy is not None:
        require_unfused(denoiser)
    hosts = live_hosts(denoiser, anatomy)
    for entry, membrane in members:
        require_fit(membrane, {stem: host for stem, (host, _) in hosts.items()}, entry.file)
    return {stem: layer for stem, (_, layer) in hosts.items()}


def require_unfused(denoiser: nn.Module) -> None:
    """Refuse a transformer whose queries, keys and values are one layer: their own layers then do nothing.

    Raises:
        ModelError: it is one.
    """
    if is_fused(denoiser):
        raise ModelError("layers that carry membranes were fused", hint="Call unfuse_qkv_projections() first.")


def live_hosts(denoiser: nn.Module, anatomy: Anatomy | None = None) -> dict[str, tuple[Host, nn.Module]]:
    """Return stem -> host and its module.

    Of a U-Net they are every Linear and 1x1 convolution below each transformer, of a transformer those that its family
    names. Where LoRA is loaded, the host is the layer that it wraps.

    Args:
        denoiser: the network.
        anatomy: of a transformer; None: a U-Net.

    Raises:
        ModelError: not a U-Net, or other layers than its architecture should have.
    """
    if anatomy is not None:
        layers = {name.removeprefix("."): layer for name, layer in _layers(denoiser, "")}
        hosts = hosts_among({name: _shape(layer) for name, layer in layers.items()}, anatomy)
        return {stem: (host, layers[host.module]) for stem, host in hosts.items()}
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
