"""A denoiser's tensors by the names a mask knows them by, whatever was wrapped around the denoiser since."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

_LEADING = re.compile(r"^(?:module\.|base_model\.model\.)+")
_ANYWHERE = re.compile(
    r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|base_layer|original_module)(?:\.|$)"
)


def canonical(name: str) -> str:
    """Return a tensor's or layer's name without what torch.compile, DDP, FSDP and peft put into it."""
    return _LEADING.sub("", _ANYWHERE.sub("", name)).removesuffix(".")


def unwrapped(model: Any) -> nn.Module:
    """Return the denoiser itself: torch.compile, DDP and ``get_peft_model`` keep it inside of a wrapper."""
    while True:
        if "_orig_mod" in model._modules:  # noqa: SLF001 - torch.compile's own name
            model = model._orig_mod  # noqa: SLF001
        elif isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif hasattr(model, "peft_config") and hasattr(model, "get_base_model"):
            model = model.get_base_model()
        else:
            return model  # type: ignore[no-any-return]  # an nn.Module, as it came


def parameters_of(denoiser: nn.Module) -> dict[str, nn.Parameter]:
    """Return all parameters by canonical name; one that has two names is there twice."""
    found: dict[str, nn.Parameter] = {}
    for name, parameter in denoiser.named_parameters(remove_duplicate=False):
        found.setdefault(canonical(name), parameter)
    return found
