"""Begin a pipeline's own sampling later than with noise, or end it earlier: pictures in, half-made latents out.

The pipeline is called as ever, so that what is attached to it works; only its scheduler's list of timesteps is cut.
Schedulers mix a picture and noise as ``x = alpha picture + sigma noise``, those of flow matching with 1 - s and s.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from publisher.api.diffusion.starting import Start

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from publisher.api import Anatomy

Level = tuple[float, float]
"""Alpha and sigma at a timestep."""


class _Rehearsed(BaseException):
    """A call has come to its timesteps, and goes no further."""


def levels(pipeline: DiffusionPipeline, call: Callable[[], object]) -> list[Level]:
    """Return the level of each timestep that a call would sample, and last that of the finished picture.

    Args:
        pipeline: no other thread may use its scheduler.
        call: the pipeline's call; it ends where it has chosen its timesteps.
    """
    with _changed(pipeline.scheduler, _rehearse), suppress(_Rehearsed):
        call()
    scheduler = pipeline.scheduler
    if samples_flow(scheduler):
        return [(1 - float(sigma), float(sigma)) for sigma in scheduler.sigmas]
    timesteps = scheduler.timesteps.cpu()
    one, zero = torch.ones(len(timesteps), 1), torch.zeros(len(timesteps), 1)
    alphas, sigmas = scheduler.add_noise(one, zero, timesteps), scheduler.add_noise(zero, one, timesteps)
    return [*zip(alphas[:, 0].tolist(), sigmas[:, 0].tolist(), strict=True), (1.0, 0.0)]


def samples_flow(scheduler: Any) -> bool:
    """Tell whether a scheduler samples flow matching: by its own process, or as a solver that is told to."""
    return hasattr(scheduler, "scale_noise") or bool(scheduler.config.get("use_flow_sigmas"))


def _rehearse(_scheduler: Any, set_timesteps: Callable[..., None], *args: Any, **kwargs: Any) -> None:
    set_timesteps(*args, **kwargs)
    raise _Rehearsed


@contextmanager
def cut(pipeline: DiffusionPipeline, first: int = 0, last: int | None = None) -> Iterator[None]:
    """Let a pipeline sample some of its steps alone while the block runs.

    Args:
        pipeline: no other thread may use its scheduler.
        first: step that it begins with.
        last: step before which it ends; None: none.
    """
    order = getattr(pipeline.scheduler, "order", 1)

    def shorten(scheduler: Any, set_timesteps: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        set_timesteps(*args, **kwargs)
        whole = scheduler.timesteps
        scheduler.timesteps = whole[first * order : None if last is None else last * order]
        if first and hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(first * order)
        _step_on(scheduler, whole)

    with _changed(pipeline.scheduler, shorten, first * order):
        yield


def _step_on(scheduler: Any, whole: Tensor) -> None:
    """Let a scheduler's steps read the whole list: a solver finds its last step, and the next timestep, by place in it.

    The pipeline has taken the shorter list by then. With that one in its scheduler, DPM-Solver never comes to the last
    step, takes one of second order to noise 0, and says NaN.
    """
    own = type(scheduler).step

    @wraps(own)
    def step(*args: Any, **kwargs: Any) -> Any:
        scheduler.timesteps = whole
        return own(*args, **kwargs)

    scheduler.step = MethodType(step, scheduler)


@contextmanager
def _changed(scheduler: Any, change: Callable[..., None], begin: int = 0) -> Iterator[None]:
    """Put ``change`` around the scheduler's ``set_timesteps``, and let nobody else say where it begins."""
    own = scheduler.set_timesteps

    @wraps(own)
    def set_timesteps(*args: Any, **kwargs: Any) -> None:
        change(scheduler, own, *args, **kwargs)

    scheduler.set_timesteps = set_timesteps
    if begin and hasattr(scheduler, "set_begin_index"):
        set_begin = scheduler.set_begin_index
        scheduler.set_begin_index = lambda _begin_index=0: set_begin(begin)
    try:
        yield
    finally:
        for name in ("set_timesteps", "set_begin_index", "step"):
            scheduler.__dict__.pop(name, None)


def mixed(start: Start, noise: Tensor, level: Level) -> Tensor:
    """Return what a start is when sampling begins, ``(n, c, h, w)`` float32.

    Args:
        start: n rows.
        noise: of each image, of the same shape.
        level: of its first step.
    """
    if start.begin.noised:
        return level[0] * start.latents + level[1] * noise
    turned = math.radians(start.begin.angle)
    return start.latents if not turned else math.cos(turned) * start.latents + math.sin(turned) * noise


def blender(
    start: Start, noise: Tensor, following: list[Level], anatomy: Anatomy
) -> Callable[[int, Tensor], Tensor] | None:
    """Return what puts the known part back after a step, given its number and the latents; None: nothing is known.

    Args:
        start: n rows.
        noise: of each image.
        following: level after each step.
        anatomy: packs latents.
    """
    if start.mask is None:
        return None
    mask = anatomy.pack(start.mask.expand_as(start.latents))

    def blend(step: int, latents: Tensor) -> Tensor:
        alpha, sigma = following[step]
        known = anatomy.pack(alpha * start.latents + sigma * noise).to(latents)
        kept = mask.to(latents)
        return kept * known + (1 - kept) * latents

    return blend


def unpacked(anatomy: Anatomy, packed: Tensor) -> Tensor:
    """Return latents as ``(n, channels, height, width)`` float32 on the CPU: what undoes ``anatomy.pack``."""
    shape = (1, anatomy.latents.channels, *anatomy.latents.size)
    places = anatomy.pack(torch.arange(math.prod(shape), dtype=torch.float64).view(shape)).flatten().long()
    flat = packed.detach().float().cpu().flatten(1)
    found = torch.empty_like(flat)
    found[:, places] = flat
    return found.view(len(flat), *shape[1:])
