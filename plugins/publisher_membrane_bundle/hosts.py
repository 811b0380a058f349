"""Which layers carry a branch: every Linear and 1x1 convolution below each transformer of the denoiser.

Found by type, not by class name (other versions of diffusers wrap these layers in classes of other names, and a search
by name then trains nothing), and compared with what the weights' headers say.
"""

from __future__ import annotations

from collections.abc import Mapping

from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import nn

from publisher.api import ModelError
from publisher.api.membranes import Host

Layer = nn.Linear | nn.Conv2d


def find_layers(denoiser: nn.Module) -> dict[str, Layer]:
    """Path -> layer, in the order of the paths."""
    found: dict[str, Layer] = {}
    for path, module in denoiser.named_modules():
        if isinstance(module, Transformer2DModel):
            found |= {f"{path}.{name}": layer for name, layer in module.named_modules() if _carries(layer)}
    return dict(sorted(found.items()))


def match_hosts(denoiser: nn.Module, hosts: Mapping[str, Host]) -> dict[str, Layer]:
    """Stem -> layer, for exactly the hosts that the headers name, in their order.

    Raises:
        ModelError: the network has others, or others shapes.
    """
    layers = find_layers(denoiser)
    expected = {host.module: host.shape for host in hosts.values()}
    found = {path: tuple(layer.weight.shape) for path, layer in layers.items()}
    if found != expected:
        odd = min(set(found.items()) ^ set(expected.items()))[0]
        raise ModelError(
            f"the loaded denoiser has {len(found)} layers that can carry a membrane, its files {len(expected)}",
            where=odd,
            hint="The layers may be wrapped by an adapter; save the plain model.",
        )
    return {stem: layers[host.module] for stem, host in hosts.items()}


def _carries(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1))
