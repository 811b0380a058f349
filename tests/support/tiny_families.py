"""Family -> how its very small model is built. The contract of families runs over all of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from publisher.testing.tiny import save_tiny_model
from support.tiny_flux import save_tiny_chroma, save_tiny_flux
from support.tiny_lumina_2 import save_tiny_lumina_2
from support.tiny_pixart import save_tiny_pixart
from support.tiny_qwen_image import save_tiny_qwen_image
from support.tiny_sana import save_tiny_sana
from support.tiny_sd3 import save_tiny_sd3
from support.tiny_sdxl import save_tiny_sdxl
from support.tiny_z_image import save_tiny_z_image


def save_tiny_sd2(target: Path) -> Path:
    """Write a very small Stable Diffusion 2: the text encoder of 2 has another activation."""
    config = save_tiny_model(target) / "text_encoder" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"hidden_act": "gelu"}))
    return target


TINY: Mapping[str, Callable[[Path], Path]] = {
    "chroma": save_tiny_chroma,
    "flux-1": save_tiny_flux,
    "lumina-2": save_tiny_lumina_2,
    "pixart": save_tiny_pixart,
    "qwen-image": save_tiny_qwen_image,
    "sana": save_tiny_sana,
    "stable-diffusion-1": save_tiny_model,
    "stable-diffusion-2": save_tiny_sd2,
    "stable-diffusion-3": save_tiny_sd3,
    "stable-diffusion-xl": save_tiny_sdxl,
    "z-image": save_tiny_z_image,
}
"""Family -> function that writes a very small model of it into a new folder, which it returns."""
