"""What very small models of many families have in common: an autoencoder, and how they are saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def autoencoder(blocks: int = 3, **config: Any) -> Any:
    """Return an ``AutoencoderKL`` of 4 channels without the convolutions for its moments.

    Args:
        blocks: one pixel of the latents stands for 2 ** (blocks - 1) of the image.
        config: more of its configuration, such as ``scaling_factor``.
    """
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        **{
            "block_out_channels": (8,) * blocks,
            "norm_num_groups": 4,
            "layers_per_block": 1,
            "down_block_types": ("DownEncoderBlock2D",) * blocks,
            "up_block_types": ("UpDecoderBlock2D",) * blocks,
            "use_quant_conv": False,
            "use_post_quant_conv": False,
            **config,
        }
    )


def save(pipeline: Any, target: Path, *, sample_size: int | None = None) -> Path:
    """Save a pipeline in the ordinary layout to a folder that is not there yet, and return the folder.

    Args:
        pipeline: of diffusers.
        target: the folder.
        sample_size: height and width of the latents, for a transformer whose class has no such argument.
    """
    pipeline.save_pretrained(target)
    if sample_size is not None:
        path = target / "transformer" / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"sample_size": sample_size}))
    return target
