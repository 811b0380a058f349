"""Immunise: the parts put together."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from publisher.api import Concept, StepContext
from publisher.api.diffusion.checkpoints import Checkpoints
from publisher.api.diffusion.denoiser import Denoiser
from publisher.api.diffusion.threads import Aside, is_small, one_thread_each
from publisher_immunize.bench import Bench
from publisher_immunize.host import Host
from publisher_immunize.loop import Log, Run
from publisher_immunize.material import Material, gather, split
from publisher_immunize.params import ImmunizeParams
from publisher_immunize.schedule import Schedule

NOT_TRAINING = ("attacks", "check", "checkpoint_every", "innocents")
"""Parameters that the trained weights do not depend on."""


@dataclass(frozen=True)
class Trained:
    """What came out."""

    weights: dict[str, Tensor]
    """Name -> tensor of the denoiser, float32."""
    log: Log
    warnings: tuple[str, ...]


def train(
    ctx: StepContext, params: ImmunizeParams, concepts: Sequence[Concept], kept: Sequence[Concept], names: Sequence[str]
) -> Trained:
    """Immunise.

    Args:
        ctx: of the running step.
        params: every None replaced.
        concepts: to immunise against, at least one.
        kept: that give images.
        names: of the denoiser's tensors to train.

    Raises:
        UsageError: images are missing, texts are too long or cannot be merged, or the losses diverge.
        ModelError: a part of the model cannot be loaded.
    """
    ctx.progress(0, params.steps or 0, "images and texts")
    material = gather(params, concepts, kept, ctx)
    denoiser = Denoiser.load(ctx.model, ctx.device, ctx.dtype)
    if params.gradient_checkpointing:
        denoiser.network.enable_gradient_checkpointing()  # type: ignore[operator]
    with _threads(denoiser) as aside:
        run = _run(ctx, params, material, denoiser, names, aside)
        weights = run()
    return Trained(weights, run.log, tuple(run.warnings))


def _run(
    ctx: StepContext,
    params: ImmunizeParams,
    material: Material,
    denoiser: Denoiser,
    names: Sequence[str],
    aside: Aside | None,
) -> Run:
    other = None if aside is None or params.inner_order == 2 else Host(_copy(denoiser))  # before hooks are on it
    host = Host(denoiser, second=params.inner_order == 2)
    component = ctx.model.anatomy.denoiser
    theta = {name: ctx.model.read(component, name).to(ctx.device, host.work) for name in names}
    schedule = None
    if params.schedule == "auto":
        training, held = _halves(material)
        material = training
        schedule = Schedule(Bench(host, training, params), Bench(host, held, params), ctx.generator)
    bench = Bench(host, material, params)
    checkpoints = Checkpoints(ctx.scratch, "immunize", _identity(bench, ctx))
    return Run(
        bench,
        theta,
        ctx.generator,
        checkpoints,
        lambda done, text: ctx.progress(done, params.steps or 0, text),
        schedule,
        second=None if aside is None or other is None else (replace(bench, host=other), aside),
    )


def _copy(denoiser: Denoiser) -> Denoiser:
    """One with a network of its own, for another thread."""
    return Denoiser(copy.deepcopy(denoiser.network), denoiser.pixels)


def _halves(material: Material) -> tuple[Material, Material]:
    concepts, kept = split(material.concepts), split(material.kept)
    training, held = (replace(material, concepts=a, kept=b) for a, b in zip(concepts, kept, strict=True))
    return training, held


def _threads(denoiser: Denoiser) -> AbstractContextManager[Aside | None]:
    return one_thread_each() if is_small(denoiser.device, denoiser.size) else nullcontext()


def _identity(bench: Bench, ctx: StepContext) -> str:
    """Digest of what the result depends on."""
    plain = {name: value for name, value in bench.params.as_json().items() if name not in NOT_TRAINING}
    material = bench.material
    where = [str(ctx.dtype), str(ctx.device), torch.__version__, ctx.model.digest]
    said = [
        [album.concept.id, {kind: list(lines) for kind, lines in album.captions.items()}]
        for album in (*material.concepts, *material.kept)
    ]
    digest = hashlib.sha256(json.dumps([plain, where, said, material.keep_texts], sort_keys=True).encode())
    for album in (*material.concepts, *material.kept):
        digest.update(album.latents.cpu().contiguous().numpy().tobytes())
    digest.update(ctx.generator("concepts").get_state().numpy().tobytes())
    return digest.hexdigest()
