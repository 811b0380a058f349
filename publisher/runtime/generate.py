"""Generate a batch of requests: each image from its own noise, which starts the same on every device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from publisher.api import Anatomy, ImageRequest, denoiser_of
from publisher.errors import PublisherError
from publisher.runtime.meter import advance

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

    from publisher.api.diffusion.text import Text

VERSION = "1"
"""Raised when the same request gives other pixels."""
MOST = 32
"""Images of a batch at most; more do not generate faster on a CPU."""
LATENTS = 32_768
"""Latent pixels of a batch: 8 images of 512 pixels, 2 of 1024. Fixed, so that memory does not decide the image."""


class GenerateError(PublisherError):
    """The model generated nothing that could be judged."""


def generate(pipeline: DiffusionPipeline, requests: Sequence[ImageRequest], text: Text | None = None) -> torch.Tensor:
    """Generate each request, in one batch.

    The initial noise is sampled in float32 on the CPU by a generator with the request's seed, which the scheduler goes
    on using where it samples more. Below a guidance scale of 1 there is no unconditional pass, as diffusers has it.

    Args:
        pipeline: from :func:`publisher.runtime.pipelines.load`.
        requests: at least one; all with the same steps and guidance, and all or none with a negative prompt.
        text: a row for each request to generate with in place of its prompt; None: prompts are read.

    Returns:
        ``(n, 3, h, w)`` uint8 on the CPU; the size is the model's own.

    Raises:
        ValueError: the requests do not go together.
        GenerateError: the model generated NaN or infinity.
    """
    import torch

    steps, guidance, negative = _common(requests)
    generators = [torch.Generator().manual_seed(request.seed) for request in requests]
    anatomy = pipeline.anatomy
    height, width = anatomy.latents.image_size
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        pixels = pipeline(
            **(_read(pipeline, text) if text else {"prompt": [request.prompt for request in requests]}),
            negative_prompt=_negatives(anatomy, requests),
            height=height,
            width=width,
            num_inference_steps=steps,
            **anatomy.call(guidance) | (anatomy.call_against(guidance) if negative else {}),
            latents=anatomy.pack(_noise(pipeline, generators)),
            generator=generators,
            output_type="pt",
            callback_on_step_end=_told(len(requests)),
        ).images
    advance(len(requests) / (steps + 1))
    if not torch.isfinite(pixels).all():
        raise GenerateError("the model generated NaN or infinite values")
    generated: torch.Tensor = pixels.float().mul(255).round().to(torch.uint8).cpu()
    return generated


def _negatives(anatomy: Anatomy, requests: Sequence[ImageRequest]) -> list[str] | None:
    if requests[0].negative_prompt:
        return [request.negative_prompt for request in requests]
    return None if anatomy.negative is None or requests[0].guidance <= 1 else [anatomy.negative] * len(requests)


def _read(pipeline: DiffusionPipeline, text: Text) -> dict[str, torch.Tensor]:
    """Return text states as the pipeline's arguments, in the denoiser's dtype.

    Raises:
        GenerateError: the pipeline wants to know which rows count.
    """
    if text.mask is not None:
        raise GenerateError("the model reads a mask beside its text, and states alone are no prompt for it")
    placed = text.to(denoiser_of(pipeline).dtype)
    pooled = {} if placed.pooled is None else {"pooled_prompt_embeds": placed.pooled.to(pipeline.device)}
    return {"prompt_embeds": placed.states.to(pipeline.device), **pooled}


def _told(images: int) -> Callable[..., dict[str, torch.Tensor]]:
    """Tell open meters of each sampling step; decoding counts as one more."""

    def tell(pipeline: DiffusionPipeline, _step: int, _t: object, _tensors: object) -> dict[str, torch.Tensor]:
        advance(images / (pipeline.num_timesteps + 1))
        return {}

    return tell


def _common(requests: Sequence[ImageRequest]) -> tuple[int, float, bool]:
    kinds = {batch_kind(request) for request in requests}
    if len(kinds) != 1:
        raise ValueError("a batch needs requests of one number of steps, one guidance scale, one use of negatives")
    return kinds.pop()


def batch_kind(request: ImageRequest) -> tuple[int, float, bool]:
    """Return what requests of one batch have in common: steps, guidance, whether there is a negative prompt."""
    return request.steps, request.guidance, bool(request.negative_prompt)


def batch_size(latent: tuple[int, int]) -> int:
    """Return the images of one batch, for latents of this height and width."""
    return max(1, min(MOST, LATENTS // (latent[0] * latent[1])))


def _noise(pipeline: DiffusionPipeline, generators: Sequence[torch.Generator]) -> torch.Tensor:
    import torch

    latents = pipeline.anatomy.latents
    shape = (latents.channels, *latents.size)
    noise = torch.stack([torch.randn(shape, generator=generator) for generator in generators])
    return noise.to(device=pipeline.device, dtype=denoiser_of(pipeline).dtype)
