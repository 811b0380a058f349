"""Names of the tensors of a membrane file: kohya's for a U-Net, those of diffusers for a transformer. Without torch.

    a U-Net                                       a transformer
    lora_unet_<path, _ for .>.lora_down.weight    transformer.<path>.lora_A.weight
    lora_unet_<path, _ for .>.lora_up.weight      transformer.<path>.lora_B.weight
    lora_unet_<path, _ for .>.alpha               the file's lora_adapter_metadata; without it alpha is the rank

In memory both have the parts of the left column. No loader of diffusers reads kohya's names of Stable Diffusion 3, and
the right ones are read by all that know diffusers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from publisher.api.membranes.parts import PREFIX, TRANSFORMER, MembraneFileError
from publisher.strict_json import JsonError, strict_object

ADAPTER = "lora_adapter_metadata"
"""Key under which diffusers keeps peft's configuration of a LoRA, as JSON."""
PARTS = ("lora_down.weight", "lora_up.weight", "alpha")
FACTORS = {"A": "lora_down.weight", "B": "lora_up.weight"}
"""Factor by the name of peft -> its part."""
_STEM = re.compile(rf"{PREFIX}[A-Za-z0-9_]+|{re.escape(TRANSFORMER)}[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
_UNREADABLE = ("alpha_pattern", "use_rslora", "use_dora", "lora_bias")

Value = TypeVar("Value")


def is_stem(text: str) -> bool:
    """Tell whether a text can be the name of a layer in a membrane file."""
    return bool(_STEM.fullmatch(text))


def stem_in(name: str) -> str:
    """Return the stem of a tensor's name."""
    if not name.startswith(TRANSFORMER):
        return name.split(".", maxsplit=1)[0]
    part = next((part for part in PARTS if name.endswith(f".{part}")), "")
    return name.removesuffix(f".{part}") if part else name


def kohya_parts(tensors: Mapping[str, Value]) -> dict[str, Value]:
    """Return the same under names that end as kohya's do; only names of a transformer change."""
    return {_renamed(name): value for name, value in tensors.items()}


def peft_name(stem: str, factor: str) -> str:
    """Return the name in a file of a transformer's factor, ``"A"`` or ``"B"``."""
    return f"{stem}.lora_{factor}.weight"


def _renamed(name: str) -> str:
    if name.startswith(TRANSFORMER):
        for factor, part in FACTORS.items():
            if name.endswith(f".lora_{factor}.weight"):
                return f"{name.removesuffix(f'lora_{factor}.weight')}{part}"
    return name


def read_adapter(text: str, where: str) -> dict[str, Any]:
    """Return what peft was told of a LoRA; diffusers puts the denoiser's name before each key of a pipeline's.

    Args:
        text: JSON, as the file's metadata has it.
        where: names the file in errors.

    Raises:
        MembraneFileError: malformed, or of a LoRA whose strength peft keeps in ways that a membrane lacks.
    """
    try:
        said = strict_object(text.encode())
    except JsonError as error:
        raise MembraneFileError(f"its {ADAPTER} {error}", where=where) from error
    config = {key.removeprefix("unet.").removeprefix(TRANSFORMER): value for key, value in said.items()}
    used = [key for key in _UNREADABLE if config.get(key)]
    if used:
        raise MembraneFileError(f"its LoRA has {', '.join(used)}, which a membrane file cannot say", where=where)
    if not isinstance(config.get("lora_alpha", 1), int | float):
        raise MembraneFileError(f"its {ADAPTER} has a lora_alpha that is no number", where=where)
    return config
