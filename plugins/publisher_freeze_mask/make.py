"""From a running step to its masks and the artifact: the parts put together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from publisher.api import Concept, StepContext
from publisher.api.diffusion.denoiser import Denoiser
from publisher.api.diffusion.process import latent_size
from publisher.api.diffusion.threads import is_small, one_thread_each
from publisher.api.freeze_mask import (
    Candidate,
    FreezeMask,
    FrozenTensor,
    Share,
    architecture_sha256,
    count,
    digests,
)
from publisher_freeze_mask.adapt import Attacker
from publisher_freeze_mask.jobs import Worker, jobs
from publisher_freeze_mask.learn import Learned, Mask, Studio
from publisher_freeze_mask.material import Material, gather
from publisher_freeze_mask.names import trained
from publisher_freeze_mask.params import FreezeMaskParams
from publisher_freeze_mask.place import Place
from publisher_freeze_mask.units import Units

NOT_LEARNING = ("check", "checkpoint_every", "innocent_at_least", "promise", "random_at_most", "replicas", "swap")
"""Parameters that a mask does not depend on."""
SMALL = 2**28
"""Bytes of a denoiser up to which theta_pre is kept in memory instead of being read again at each move."""


@dataclass(frozen=True)
class Masks:
    """What came out."""

    learned: Learned
    others: tuple[Learned, ...]
    """From the seeds 1, 2..."""
    swapped: Learned | None
    """With the sides exchanged, where it was asked for."""


def make(
    ctx: StepContext, params: FreezeMaskParams, illegal: Sequence[Concept], innocent: Sequence[Concept], units: Units
) -> Masks:
    """Learn all masks.

    Args:
        ctx: of the running step.
        params: every None replaced.
        illegal: concepts whose fine-tuning is to fail.
        innocent: concepts whose fine-tuning is to work.
        units: of the candidates.

    Raises:
        UsageError: images are missing, texts are too long, or a fine-tuning learned nothing or diverged.
        ModelError: a part of the model cannot be loaded.
    """
    with _threads(ctx):
        material = None if params.recipe == "random" else _material(ctx, params, illegal, innocent)
        progress = _Progress(ctx, _steps(params, material))
        worker = None if material is None else _worker(ctx, params, material, units, progress)
        budget = units.budget(params.ratio, params.count, _total(ctx))
        studio = Studio(worker, units, budget, params, ctx.generator, progress)
        learned = studio.learn(0)
        others = tuple(studio.learn(seed) for seed in range(1, params.replicas + 1))
        return Masks(learned, others, studio.swapped(learned) if params.swap and worker else None)


def artifact(
    ctx: StepContext, masks: Masks, candidates: Mapping[str, Candidate], recipe: Mapping[str, Any], granularity: str
) -> FreezeMask:
    """``release/freeze-mask.json``, with the digests of what is frozen as it is stored."""
    component, mask = ctx.model.anatomy.denoiser, masks.learned.mask
    headers = ctx.model.tensors(component)
    return FreezeMask.model_validate(
        {
            "component": component,
            "model": ctx.model.digest,
            "architecture": architecture_sha256({name: info.shape for name, info in headers.items()}),
            "granularity": granularity,
            "recipe": dict(recipe),
            "tensors": Share(frozen=len(mask), total=len(headers)),
            "parameters": Share(frozen=count(mask, candidates), total=_total(ctx)),
            "candidates": dict(candidates),
            "frozen": tuple(_frozen(ctx, component, name, mask, candidates) for name in sorted(mask)),
            "others": {f"seed-{seed}": other.mask for seed, other in enumerate(masks.others, 1)},
        }
    )


def _frozen(
    ctx: StepContext, component: str, name: str, mask: Mask, candidates: Mapping[str, Candidate]
) -> FrozenTensor:
    kept = digests(ctx.model.read(component, name), mask[name])
    return FrozenTensor.model_validate(
        {"name": name, "shape": candidates[name].shape, "rows": mask[name], "sha256": kept}
    )


def _material(
    ctx: StepContext, params: FreezeMaskParams, illegal: Sequence[Concept], innocent: Sequence[Concept]
) -> Material:
    ctx.progress(0, 0, "images and texts")
    return gather(params, illegal, innocent, ctx)


def _worker(
    ctx: StepContext, params: FreezeMaskParams, material: Material, units: Units, progress: Callable[[int, str], None]
) -> Worker:
    denoiser = Denoiser.load(ctx.model, ctx.device, torch.float32)
    place = Place(denoiser.network, _reader(ctx, denoiser), units.rows)
    attacker = Attacker(place, denoiser, material, trained(params, ctx.model), params.adapt)
    return Worker(attacker, params, ctx.generator, ctx.scratch, _identity(ctx, params, material), progress, ctx.warn)


def _reader(ctx: StepContext, denoiser: Denoiser) -> Callable[[str], Tensor]:
    """theta_pre's tensors: of a small denoiser from memory, of a large one from the disk each time."""
    parameters = dict(denoiser.network.named_parameters())
    if sum(tensor.numel() * tensor.element_size() for tensor in parameters.values()) <= SMALL:
        return {name: tensor.detach().clone() for name, tensor in parameters.items()}.__getitem__
    component = ctx.model.anatomy.denoiser
    return lambda name: ctx.model.read(component, name)


def _threads(ctx: StepContext) -> AbstractContextManager[Any]:
    size = latent_size(ctx.model.config(ctx.model.anatomy.denoiser))
    return one_thread_each() if is_small(ctx.device, size) else nullcontext()


def _total(ctx: StepContext) -> int:
    return sum(info.parameters for info in ctx.model.tensors(ctx.model.anatomy.denoiser).values())


def _steps(params: FreezeMaskParams, material: Material | None) -> int:
    """As progress counts them."""
    if material is None:
        return 0
    last = {"refined": params.refine.steps, "released": params.released.steps}.get(params.recipe, 0)
    tunings = len(jobs(params, material)) * ((params.adapt.steps or 0) + 1)
    return (1 + params.replicas) * (tunings + last) + (last if params.swap else 0)


class _Progress:
    """Counts steps."""

    def __init__(self, ctx: StepContext, total: int) -> None:
        self.ctx, self.total, self.done = ctx, total, 0

    def __call__(self, more: int, text: str) -> None:
        self.done += more
        self.ctx.progress(self.done, self.total, text)


def _identity(ctx: StepContext, params: FreezeMaskParams, material: Material) -> str:
    """Digest of what the fine-tunings depend on."""
    plain = {name: value for name, value in params.as_json().items() if name not in NOT_LEARNING}
    albums = [*(one for ones in material.illegal.values() for one in ones), *material.innocent]
    said = [plain, str(ctx.device), torch.__version__, ctx.model.digest, [one.captions for one in albums]]
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for one in albums:
        digest.update(one.latents.cpu().contiguous().numpy().tobytes())
    digest.update(ctx.generator("identity").get_state().numpy().tobytes())
    return digest.hexdigest()
