"""Generate a batch of requests: each image from its own noise, which starts the same on every device."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from publisher.api import Anatomy, ImageRequest, denoiser_of
from publisher.errors import PublisherError
from publisher.runtime.meter import advance

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

    from publisher.api.diffusion.starting import Start
    from publisher.api.diffusion.text import Text
    from publisher.runtime.beginning import Level

VERSION = "1"
"""Raised when the same request gives other pixels."""
MOST = 32
"""Images of a batch at most; more do not generate faster on a CPU."""
LATENTS = 32_768
"""Latent pixels of a batch: 8 images of 512 pixels, 2 of 1024. Fixed, so that memory does not decide the image."""


class GenerateError(PublisherError):
    """The model generated nothing that could be judged."""


def generate(
    pipeline: DiffusionPipeline, requests: Sequence[ImageRequest], text: Text | None = None, start: Start | None = None
) -> torch.Tensor:
    """Generate each request, in one batch.

    The initial noise is sampled in float32 on the CPU by a generator with the request's seed, which the scheduler goes
    on using where it samples more. Below a guidance scale of 1 there is no unconditional pass, as diffusers has it.

    Args:
        pipeline: from :func:`publisher.runtime.pipelines.load`.
        requests: at least one; all with the same steps and guidance, and all or none with a negative prompt.
        text: a row for each request to generate with in place of its prompt; None: prompts are read.
        start: a row for each request to begin from; None: noise alone. With ``eta`` the pipeline gets another
            scheduler: use a twin.

    Returns:
        ``(n, 3, h, w)`` uint8 on the CPU; the size is the model's own.

    Raises:
        ValueError: the requests do not go together, or no step is left of the start's.
        GenerateError: the model generated NaN or infinity, or no step of its sampler adds noise.
    """
    import torch

    steps, _, _ = _common(requests)
    generators = [torch.Generator().manual_seed(request.seed) for request in requests]
    noise = _noise(pipeline, generators)
    with _exact():
        call = _call(pipeline, requests, text) | {"generator": generators, "output_type": "pt"}
        if start:
            pixels = _from(pipeline, requests, start, call)
        else:
            told = _told(pipeline, len(requests))
            pixels = pipeline(**call, latents=pipeline.anatomy.pack(noise), **told).images
    advance(len(requests) / (steps + 1))
    if not torch.isfinite(pixels).all():
        raise GenerateError("the model generated NaN or infinite values")
    generated: torch.Tensor = pixels.float().mul(255).round().to(torch.uint8).cpu()
    return generated


def _exact() -> ExitStack:
    """Return a block without gradients, in which kernels are chosen in one way alone."""
    import torch

    block = ExitStack()
    block.enter_context(torch.inference_mode())
    block.enter_context(torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True))
    return block


def _call(pipeline: DiffusionPipeline, requests: Sequence[ImageRequest], text: Text | None = None) -> dict[str, Any]:
    """Return the arguments of the pipeline's call, without noise and generators."""
    steps, guidance, negative = _common(requests)
    anatomy = pipeline.anatomy
    height, width = anatomy.latents.image_size
    return {
        **(_read(pipeline, text) if text else {"prompt": [request.prompt for request in requests]}),
        "negative_prompt": _negatives(anatomy, requests),
        "height": height,
        "width": width,
        "num_inference_steps": steps,
        **anatomy.call(guidance) | (anatomy.call_against(guidance) if negative else {}),
    }


def noise_of(pipeline: DiffusionPipeline, requests: Sequence[ImageRequest]) -> torch.Tensor:
    """Return the initial noise of each request, ``(n, c, h, w)`` float32 on the CPU."""
    import torch

    latents = pipeline.anatomy.latents
    shape = (latents.channels, *latents.size)
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(one.seed)) for one in requests])


def levels_of(pipeline: DiffusionPipeline, requests: Sequence[ImageRequest]) -> list[Level]:
    """Return alpha and sigma at each sampling step of these requests, and last those of a finished picture.

    Args:
        pipeline: no other thread may use its scheduler.
        requests: that go together.
    """
    from publisher.runtime.beginning import levels

    call = _call(pipeline, requests)
    with _exact():
        return levels(pipeline, lambda: pipeline(**call))


def _from(
    pipeline: DiffusionPipeline, requests: Sequence[ImageRequest], start: Start, call: dict[str, Any]
) -> torch.Tensor:
    """Generate from a start, with what is known put back after each step."""
    from publisher.runtime.beginning import blender, cut, mixed
    from publisher.runtime.louder import louder

    if start.begin.eta:
        pipeline.scheduler = louder(pipeline.scheduler, start.begin)
    skipped, anatomy = start.begin.skipped, pipeline.anatomy
    path, noise = levels_of(pipeline, requests), noise_of(pipeline, requests)
    first = skipped * getattr(pipeline.scheduler, "order", 1)
    if first >= len(path) - 1:
        raise ValueError(f"{skipped} of {requests[0].steps} steps are skipped: none is left")
    latents = mixed(start, noise, path[first])
    if start.begin.noised or skipped:  # the pipeline takes what it is given for noise, and scales it
        latents = latents / float(getattr(pipeline.scheduler, "init_noise_sigma", 1.0))
    placed = anatomy.pack(latents.to(device=pipeline.device, dtype=denoiser_of(pipeline).dtype))
    told = _told(pipeline, len(requests), blender(start, noise, path[first + 1 :], anatomy))
    with cut(pipeline, skipped):
        images: torch.Tensor = pipeline(**call, latents=placed, **told).images
    return images


def half_made(
    pipeline: DiffusionPipeline, requests: Sequence[ImageRequest], after: Collection[int]
) -> dict[int, torch.Tensor]:
    """Return the latents of these requests after some numbers of steps, ``(n, c, h, w)`` float32 on the CPU.

    Args:
        pipeline: no other thread may use its scheduler.
        requests: that go together.
        after: numbers of steps, at least 1 each.
    """
    import torch

    from publisher.runtime.beginning import cut, unpacked

    order, found = getattr(pipeline.scheduler, "order", 1), {}

    def keep(step: int, latents: torch.Tensor) -> None:
        done = (step + 1) // order
        if done in after and not (step + 1) % order:
            found[done] = unpacked(pipeline.anatomy, latents)

    generators = [torch.Generator().manual_seed(request.seed) for request in requests]
    noise = pipeline.anatomy.pack(_noise(pipeline, generators))
    with _exact(), cut(pipeline, 0, max(after)):
        pipeline(
            **_call(pipeline, requests),
            latents=noise,
            generator=generators,
            output_type="latent",
            **_at_each_step(pipeline, keep),
        )
    return found


def inverted(pipeline: DiffusionPipeline, requests: Sequence[ImageRequest], latents: torch.Tensor) -> torch.Tensor:
    """Return the noise from which these requests would sample some pictures: DDIM, backwards, without guidance.

    Args:
        pipeline: gets another scheduler; use a twin.
        requests: one for each picture; their seeds do not matter.
        latents: of the pictures, ``(n, c, h, w)``.

    Returns:
        ``(n, c, h, w)`` float32 on the CPU.

    Raises:
        GenerateError: the model is sampled by another process than DDPM's.
    """
    from diffusers import DDIMInverseScheduler

    from publisher.runtime.beginning import samples_flow, unpacked

    config = dict(pipeline.scheduler.config)
    if samples_flow(pipeline.scheduler):
        raise GenerateError("pictures are inverted by DDIM, and the model is sampled by flow matching")
    spacing = config.get("timestep_spacing", "leading")
    config["timestep_spacing"] = spacing if spacing in ("leading", "trailing") else "leading"
    pipeline.scheduler = DDIMInverseScheduler.from_config(config)
    plain = [request.model_copy(update={"guidance": 1.0, "negative_prompt": ""}) for request in requests]
    placed = latents.to(device=pipeline.device, dtype=denoiser_of(pipeline).dtype)
    with _exact():
        found = pipeline(
            **_call(pipeline, plain), latents=pipeline.anatomy.pack(placed), output_type="latent", return_dict=False
        )[0]
    return unpacked(pipeline.anatomy, found)


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


def _told(
    pipeline: DiffusionPipeline, images: int, change: Callable[[int, torch.Tensor], torch.Tensor] | None = None
) -> dict[str, Any]:
    """Return the argument that tells open meters of each sampling step; decoding counts as one more.

    Args:
        pipeline: that is going to be called.
        images: of the batch.
        change: returns other latents after a step; None: none changes.
    """

    def tell(step: int, latents: torch.Tensor) -> torch.Tensor | None:
        advance(images / (len(pipeline.scheduler.timesteps) + 1))
        return change(step, latents) if change else None

    return _at_each_step(pipeline, tell)


def _at_each_step(
    pipeline: DiffusionPipeline, tell: Callable[[int, torch.Tensor], torch.Tensor | None]
) -> dict[str, Any]:
    """Return the argument by which a pipeline tells of each sampling step, and goes on with other latents.

    Older pipelines, such as PixArt's, tell of whole steps of the sampler, and take nothing back: there the latents are
    overwritten.

    Args:
        pipeline: that is going to be called.
        tell: is given number and latents of a step; what it returns, if anything, takes their place.

    Raises:
        GenerateError: the pipeline tells nothing.
    """
    known = inspect.signature(type(pipeline).__call__).parameters

    def told(_pipeline: object, step: int, _t: object, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        other = tell(step, tensors["latents"])
        return {} if other is None else {"latents": other}

    def told_before(step: int, _t: object, latents: torch.Tensor) -> None:
        order = getattr(pipeline.scheduler, "order", 1)
        other = tell(step * order + order - 1, latents)
        if other is not None:
            latents.copy_(other)

    if "callback_on_step_end" in known:
        return {"callback_on_step_end": told}
    if "callback" in known:
        return {"callback": told_before}
    raise GenerateError(f"{type(pipeline).__name__} tells nothing of its sampling steps, so nothing can follow them")


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
