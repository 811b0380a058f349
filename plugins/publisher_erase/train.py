"""Draw, train, and say how it went: a trained erasure from its texts to its weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from publisher.api import StepContext, UsageError
from publisher.api.choosing import spread
from publisher.api.diffusion.checkpoints import Checkpoints
from publisher.api.diffusion.denoiser import Denoiser
from publisher.api.diffusion.latents import Noising
from publisher.api.diffusion.loop import Loop, thin
from publisher.api.diffusion.sampling import sampler_of
from publisher.api.diffusion.text import Text, encode
from publisher.api.diffusion.threads import is_small, one_thread_each
from publisher_erase.attackers import (
    Attacker,
    DerivedAttacker,
    GradientSearch,
    StatesAttacker,
    TokenAttacker,
    attackers_of,
    frozen_weights,
)
from publisher_erase.erasure import TERMS, ConceptRows, Erasure, ErasureData, held_out
from publisher_erase.params import EraseParams, RobustParams, SurgicalParams
from publisher_erase.plan import Selection
from publisher_erase.tensors import find_projections
from publisher_erase.trajectories import FrozenModel

HINT = "Lower lr. In float16, run in bfloat16 or float32."
LOSS_SCALE = {torch.float16: 1024.0}
TAIL = 10
"""Numbers of the report are means over the last of so many parts of the steps."""
NOT_TRAINING = ("checkpoint_every", "promises")
"""Parameters that the trained weights do not depend on."""
DRAWN = ("trajectories", "pool", "denoising_steps", "kept_steps", "kept_pool", "guidance", "images", "copies")
"""Parameters that the frozen rows depend on."""


def train_erasure(
    ctx: StepContext,
    params: EraseParams,
    selection: Selection,
    names: Sequence[str],
    start: Callable[[], Mapping[str, Tensor]],
) -> dict[str, Tensor]:
    """Train, and say how it went.

    Args:
        ctx: context of the running step.
        params: parameters, decided.
        selection: texts of the step.
        names: names of the weights that are trained.
        start: returns weights that the training starts from; others are the model's own.

    Returns:
        Name -> trained weight, float32 on the CPU.

    Raises:
        ModelError: a part cannot be loaded, or the model says NaN before it is trained.
        UsageError: a text is too long, or the losses diverge.
        ValueError: the method trains nothing, or its parameters are not decided.
    """
    training = params.training
    if training is None or training.steps is None:
        raise ValueError(f"the method {params.method} trains nothing, or its parameters are not decided")
    empty = ctx.model.anatomy.negative or ""
    keep = spread(selection.keep, training.kept_pool)
    own = [text for _, pairs in selection.concepts for pair in pairs for text in pair]
    texts = _encoded(ctx, [empty, *keep, *own])
    denoiser = Denoiser.load(ctx.model, ctx.device, torch.float32)
    if training.gradient_checkpointing:
        denoiser.network.enable_gradient_checkpointing()  # type: ignore[operator]
    noising, steps = Noising.for_model(ctx.model), training.steps
    # Without a cache: weights that were cast for one step would be read again after it.
    half = torch.autocast(ctx.device.type, ctx.dtype, enabled=ctx.dtype != torch.float32, cache_enabled=False)
    with half, _threads(denoiser):
        drawn = training.model_dump(mode="json", include=set(DRAWN))
        identity = _digest(ctx, drawn, selection, "trajectories")
        frozen = FrozenModel(
            denoiser,
            texts,
            empty,
            noising,
            ctx.generator,
            ctx.scratch,
            identity,
            ctx.warn,
            lambda text: ctx.progress(0, steps, text),
        )
        data = _drawn(ctx, training, selection, keep, frozen)
        first = [held_out(denoiser, data, turn) for turn in range(len(data.concepts))]
        attackers = _attackers(ctx, training, selection, data, denoiser, noising)
        with torch.no_grad():
            for name, weight in start().items():
                denoiser.network.get_parameter(name).copy_(weight)
        scale = LOSS_SCALE.get(ctx.dtype, 1.0)
        erasure = Erasure(training, denoiser, names, data, attackers, ctx.generator, scale=scale)
        trained = training.model_dump(mode="json", exclude=set(NOT_TRAINING))
        checkpoints = Checkpoints(ctx.scratch, "training", _digest(ctx, [trained, list(names)], selection, "rows"))

        def progress(done: int, text: str) -> None:
            ctx.progress(done, steps, text)

        loop = Loop(steps, training.checkpoint_every, checkpoints, progress, ctx.warn, "erase", HINT)
        rows = loop.run(erasure)
        _report(ctx, data, rows, first, [held_out(denoiser, data, turn) for turn in range(len(data.concepts))])
        for attacker in attackers:
            if isinstance(attacker, StatesAttacker):
                _fresh_attack(ctx, attacker, denoiser)
    return {name: weight.detach().cpu() for name, weight in erasure.theta.items()}


def _encoded(ctx: StepContext, texts: Sequence[str]) -> dict[str, Text]:
    distinct = tuple(dict.fromkeys(texts))
    by_encoder = "clip-text" in ctx.model.anatomy.capabilities  # else the pipeline runs all of them at once
    tell = ctx.counted(len(distinct) * (len(ctx.model.anatomy.text_encoders) if by_encoder else 1), "texts encoded")
    return encode(ctx.model, distinct, ctx.device, tell)


def _threads(denoiser: Denoiser) -> AbstractContextManager[Any]:
    return one_thread_each() if is_small(denoiser.device, denoiser.size) else nullcontext()


def _drawn(
    ctx: StepContext, params: SurgicalParams, selection: Selection, keep: Sequence[str], frozen: FrozenModel
) -> ErasureData:
    """Return all rows and pictures."""
    sampler = sampler_of(ctx.model, params.denoising_steps, params.guidance)
    short = sampler_of(ctx.model, params.kept_steps, params.guidance)
    concepts = []
    for concept, pairs in selection.concepts:
        owners = ("alternative", "concept") if params.trajectories == "both" else (params.trajectories,)
        counts = [len(range(number, params.pool, len(owners))) for number in range(len(owners))]
        parts = [
            frozen.concept(concept.id, pairs, owner, count, sampler)
            for owner, count in zip(owners, counts, strict=True)
            if count
        ]
        held = frozen.held_out(concept.id, pairs, sampler)
        pictures = None
        if isinstance(params, RobustParams):
            pictures = frozen.pictures(concept.id, pairs, params.images, params.copies, short)
        own = frozen.text([text for text, _ in pairs])
        varied = concept.kind == "style"
        concepts.append(ConceptRows(concept.id, own, type(held).join(parts), held, pictures, varied))
    return ErasureData(tuple(concepts), frozen.text(keep), frozen.kept(keep, short), frozen.text([frozen.empty]))


def _attackers(
    ctx: StepContext,
    params: SurgicalParams,
    selection: Selection,
    data: ErasureData,
    denoiser: Denoiser,
    noising: Noising,
) -> list[Attacker]:
    """Return the attackers of ``robust``; call it while the denoiser still has the model's own weights."""
    if not isinstance(params, RobustParams) or not params.lam_adversarial:
        return []
    pictures = [concept.pictures.latents.to(ctx.device) for concept in data.concepts if concept.pictures is not None]
    search = GradientSearch(params.attack, pictures, noising, denoiser)

    def derived() -> Attacker:
        weights = [denoiser.network.get_parameter(name) for name in find_projections(ctx.model)]
        base = [weight.detach().clone() for weight in weights]
        return DerivedAttacker([concept.own for concept in data.concepts], weights, base, params.attack.rho)

    def token() -> Attacker:
        concepts = [(concept, [text for text, _ in pairs]) for concept, pairs in selection.concepts]
        words = [concept.name for concept in ctx.scope.keep]
        return TokenAttacker(search, ctx.model, ctx.device, concepts, words)

    return attackers_of(params.attack, derived, lambda: StatesAttacker(search, data.keep), token)


def _report(
    ctx: StepContext,
    data: ErasureData,
    rows: Sequence[Sequence[float]],
    first: Sequence[tuple[float, float]],
    last: Sequence[tuple[float, float]],
) -> None:
    for concept, (before, _), (after, drift) in zip(data.concepts, first, last, strict=True):
        ctx.record(f"{concept.name}: guidance left, held out", after / max(before, 1e-30), "of its start")
        ctx.record(f"{concept.name}: drift of the empty prompt, held out", drift)
    ctx.record("training steps", len(rows))
    end = rows[-max(1, len(rows) // TAIL) :]
    for column, name in enumerate((*TERMS, "attackers'")):
        steps, values = thin([row[column] for row in rows])
        if any(values):
            ctx.curve(f"{name} loss", steps, values)
            ctx.record(f"{name} loss at the end", sum(row[column] for row in end) / len(end))


def _fresh_attack(ctx: StepContext, attacker: StatesAttacker, denoiser: Denoiser) -> None:
    """Record how far searches get that the training did not see: other samples, and twice the steps.

    Nothing is decided by them, so one that fails takes away its curve, not what was trained.
    """
    try:
        with frozen_weights(denoiser):
            _, losses = attacker.find(ctx.generator("attackers/fresh"), 2 * attacker.steps)
    except UsageError as error:
        ctx.warn(f"there is no curve of fresh attackers: {error.what}")
        return
    steps, values = thin(losses)
    ctx.curve("fresh attackers' loss", steps, values)


def _digest(ctx: StepContext, said: Any, selection: Selection, purpose: str) -> str:
    """Return a digest of all that a result depends on."""
    texts = [[concept.id, pairs] for concept, pairs in selection.concepts]
    where = [ctx.model.digest, str(ctx.dtype), str(ctx.device), torch.__version__]
    digest = hashlib.sha256(json.dumps([said, texts, selection.keep, where], sort_keys=True).encode())
    digest.update(bytes(ctx.generator(purpose).get_state().numpy().tobytes()))
    return digest.hexdigest()
