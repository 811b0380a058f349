"""Train membranes, and say what the report gets of it.

AdamW runs on the flat vector of all factors, with clipping that works and this learning rate:

    lr(i) = lr i / warmup                                              for i < warmup: the first step has 0
    lr(i) = lr (1 + cos(pi (cycles p mod 1))) / 2,  p = (i - warmup) / (steps - warmup)            after it

As in the authors' code (``cosine_with_restarts``); weight decay on one flat vector is the same arithmetic as on many.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from publisher.api import Model
from publisher.api.diffusion.checkpoints import Checkpoints
from publisher.api.diffusion.ddim import Ddim
from publisher.api.diffusion.denoiser import Denoiser
from publisher.api.diffusion.euler import Euler
from publisher.api.diffusion.loop import Loop, Training, optimizer_state, pack, restore_optimizer, thin, unpack
from publisher.api.diffusion.sampling import sampler_of
from publisher.api.diffusion.text import Text, encode
from publisher.api.diffusion.threads import Aside, at_once, is_small, one_thread_each
from publisher.api.membranes import Membrane, find_hosts
from publisher_membrane_bundle.data import AnchorMix
from publisher_membrane_bundle.exact import Exact
from publisher_membrane_bundle.membranes import Layer, Membranes, match_hosts
from publisher_membrane_bundle.objective import MembraneLosses, Objective, TextTriple
from publisher_membrane_bundle.params import MembraneParams
from publisher_membrane_bundle.plan import Target, require_trainer
from publisher_membrane_bundle.pool import Pool, PoolSize

RESULT = (
    "trainer",
    "eta",
    "lam",
    "anchors",
    "rank",
    "alpha",
    "steps",
    "lr",
    "warmup",
    "cycles",
    "max_grad_norm",
    "denoising_steps",
    "denoising_guidance",
    "dynamic_resolution",
    "pool",
    "batch",
)
"""Parameters that the trained factors depend on."""


WEIGHT_DECAY = 1e-2
FUSED = ("cpu", "cuda")
HINT = "Lower lr or lam, or set max_grad_norm (1 is usual). With float16 weights, run in bfloat16 or float32."
SMALL_SCALE = 0.25
"""alpha / rank below which the user is warned."""
HIGH_RESIDUAL = 0.5
"""Share of the erase loss that is left, above which the user is warned where the anchors outweigh the erasing."""
ReportCurve = tuple[str, list[float], list[float], str]
"""Name, steps, values, unit."""
ReportNumber = tuple[str, float, str]
"""Name, value, unit."""


@dataclass(frozen=True)
class Session:
    """The place where a training runs, and what it runs with."""

    device: torch.device
    """Device of the denoiser."""
    dtype: torch.dtype
    """Type of the denoiser. Membranes, optimizer and losses are float32."""
    generator: Callable[[str], torch.Generator]
    """Purpose -> generator on the CPU; the same one, from its beginning, for the same purpose of the same run."""
    scratch: Path
    """Folder for checkpoints, which survives a kill."""
    progress: Callable[[int, int, str], None]
    """Function that is told steps done, their total, and a line to show."""


@dataclass
class TrainedMembranes:
    """The membranes that were trained, and what the report gets."""

    membranes: dict[str, Membrane] = field(default_factory=dict)
    """Concept -> membrane, float32 on the CPU."""
    curves: list[ReportCurve] = field(default_factory=list)
    """Curves of the report."""
    numbers: list[ReportNumber] = field(default_factory=list)
    """Numbers of the report."""
    warnings: list[str] = field(default_factory=list)
    """Warnings of the report."""


def train(
    model: Model, targets: Sequence[Target], keep: Sequence[str], params: MembraneParams, session: Session
) -> TrainedMembranes:
    """Train one membrane for each target: all at once with ``pool``, one after the other with ``exact``.

    Args:
        model: model that the membranes are for; its weights stay as they are.
        targets: texts of each membrane, at least one.
        keep: prompts that anchors are sampled from, where ``params.anchors.prompts`` says so.
        params: parameters of the step.
        session: place where the training runs.

    Raises:
        UsageError: a text is too long, there is nothing to sample anchors from, the losses diverge, or the authors' own
            trainer is asked for where it does not hold.
        ModelError: the model cannot be loaded, or has other layers than its family.
    """
    require_trainer(params, model)
    hosts = find_hosts(model)
    kept = tuple(keep) if params.anchors.prompts else ()
    named = [text for target in targets for one in (target.texts, target.surrogates, target.positives) for text in one]
    texts = _encoded(model, ["", *named, *kept], session)
    anchors = AnchorMix(params.anchors, kept, texts)
    sampler = sampler_of(model, params.denoising_steps, params.denoising_guidance)
    denoiser = Denoiser.load(model, session.device, session.dtype)
    layers = match_hosts(denoiser.network, hosts, model.anatomy)
    setup = _Setup(denoiser, layers, texts, anchors, sampler, params, session)
    together = [tuple(targets)] if params.trainer == "pool" else [(target,) for target in targets]
    trained = TrainedMembranes()
    for part, group in enumerate(together):
        setup.train(group, (part, len(together)), trained)
    return trained


class Trainer(Protocol):
    """``Exact`` or ``Pool``."""

    generator: torch.Generator
    objective: Objective

    def begin(self, tell: Callable[[str], None] = ...) -> None:
        """Get ready for the first step, unless :meth:`restore` is called; ``tell`` is given a line to show."""

    def step(self) -> MembraneLosses:
        """Compute the losses of one step, and leave the gradients with the membranes."""

    def state(self) -> dict[str, Tensor]:
        """Return all that goes on from step to step, but the generator."""

    def restore(self, state: dict[str, Tensor]) -> None:
        """Restore what :meth:`state` returned."""


def learning_rate(params: MembraneParams, step: int) -> float:
    """Return the learning rate of 0-based ``step``."""
    if step < params.warmup:
        return params.lr * step / params.warmup
    progress = (step - params.warmup) / max(1, params.steps - params.warmup)
    return params.lr * (1 + math.cos(math.pi * (params.cycles * progress % 1))) / 2


class Optimiser:
    """AdamW, one for all membranes."""

    def __init__(self, membranes: Membranes, params: MembraneParams) -> None:
        self.membranes, self.params = membranes, params
        fused = membranes.flat.device.type in FUSED
        self.adam = torch.optim.AdamW([membranes.flat], lr=0.0, weight_decay=WEIGHT_DECAY, fused=fused)

    def step(self, index: int) -> None:
        """Take the 0-based step ``index``, with the gradients that are there."""
        if self.params.max_grad_norm:
            self._clip()
        self.adam.param_groups[0]["lr"] = learning_rate(self.params, index)
        self.adam.step()

    def state(self) -> dict[str, Tensor]:
        """Return factors and moments."""
        return pack({"factors": {"flat": self.membranes.flat}, "adam": optimizer_state(self.adam)})

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`state` returned."""
        groups = unpack(state)
        with torch.no_grad():
            self.membranes.flat.copy_(groups["factors"]["flat"])
        restore_optimizer(self.adam, groups["adam"])

    def _clip(self) -> None:
        """Clip each membrane on its own: one that is far off does not hold the others back."""
        gradient = self.membranes.flat.grad
        if gradient is None:
            return
        for parts in self.membranes.per_membrane(gradient):
            norm = torch.nn.utils.get_total_norm(parts)
            for part in parts:
                part.mul_((self.params.max_grad_norm / (norm + 1e-6)).clamp(max=1))


class MembraneTraining(Training):
    """One trainer and its optimizer."""

    def __init__(self, trainer: Trainer, optimiser: Optimiser) -> None:
        self.trainer, self.optimiser = trainer, optimiser
        self.generators = {"samples": trainer.generator}

    def begin(self, tell: Callable[[str], None]) -> None:
        """Let the trainer get ready."""
        self.trainer.begin(tell)

    def step(self, done: int) -> list[float]:  # noqa: ARG002 - each step is like the others
        """Return erase loss, anchor loss and erase loss of the shut membrane: of every concept, one after the other."""
        found = self.trainer.step()
        row: list[float] = torch.cat([found.erase, found.anchor, found.start]).tolist()
        return row

    def move(self, done: int) -> None:
        """Take a step of AdamW."""
        self.optimiser.step(done)

    def state(self) -> dict[str, Tensor]:
        """Return the state of the trainer and of the optimizer."""
        return pack({"trainer": self.trainer.state(), "optimiser": self.optimiser.state()})

    def restore(self, state: Mapping[str, Tensor], done: int) -> None:  # noqa: ARG002 - the state says it
        """Restore what :meth:`state` returned."""
        groups = unpack(state)
        self.trainer.restore(groups.get("trainer", {}))
        self.optimiser.restore(groups["optimiser"])

    def line(self, recent: Sequence[float]) -> str:
        """Return the mean erase loss and anchor loss."""
        erase, anchor, _ = torch.tensor(recent).view(3, -1).mean(1).tolist()
        return f"erase loss {erase:.2e}, anchor loss {anchor:.2e}"


def curves(concepts: Sequence[str], losses: Tensor) -> list[ReportCurve]:
    """Return erase loss, anchor loss and erase residual of each concept over the steps, as means over windows.

    The erase loss depends on the noise level of the step more than on the membrane; the residual does not.

    Args:
        concepts: names of the k concepts.
        losses: rows of :meth:`MembraneTraining.step`, ``(steps, 3, k)``.
    """
    wide = losses.double()
    found: list[ReportCurve] = []
    for i, concept in enumerate(concepts):
        (ends, erase), (_, anchor), (_, start) = (thin(wide[:, row, i]) for row in range(3))
        residual = [now / max(shut, 1e-30) for now, shut in zip(erase, start, strict=True)]
        found += [
            (f"{concept}: erase loss", ends, erase, ""),
            (f"{concept}: anchor loss", ends, anchor, ""),
            (f"{concept}: erase residual", ends, residual, "of its start"),
        ]
    return found


def numbers(concepts: Sequence[str], losses: Tensor) -> list[ReportNumber]:
    """Return what is left of the erase loss, and the anchor loss, over the last tenth of the steps."""
    found: list[ReportNumber] = []
    for i, concept in enumerate(concepts):
        residual, anchor, _ = _end(losses[:, :, i])
        found += [(f"{concept}: erase residual", residual, "of its start"), (f"{concept}: anchor loss", anchor, "")]
    return found


def warnings(concepts: Sequence[str], losses: Tensor, lam: float, scale: float) -> list[str]:
    """Return what a user should read before trusting the membranes.

    Args:
        concepts: names of the k concepts.
        losses: rows of :meth:`MembraneTraining.step`, ``(steps, 3, k)``.
        lam: weight of the anchor loss.
        scale: alpha / rank.
    """
    found = []
    if scale < SMALL_SCALE:
        found.append(f"alpha / rank is {scale:g}: the membranes learn {1 / scale:.0f} times slower; raise alpha")
    for i, concept in enumerate(concepts):
        residual, anchor, erase = _end(losses[:, :, i])
        if residual > HIGH_RESIDUAL and lam * anchor > erase:
            found.append(
                f"{concept}: the anchors outweigh the erasing ({lam * anchor:.2g} to {erase:.2g}) and {residual:.0%} "
                "of the erase loss is left: lower lam, or train longer"
            )
    return found


def _end(losses: Tensor) -> tuple[float, float, float]:
    """Return residual, anchor loss and erase loss of ``(steps, 3)``, over the last tenth."""
    erase, anchor, start = losses[-max(1, len(losses) // 10) :].double().mean(0).tolist()
    return (erase / start if start else 0.0), anchor, erase


def _encoded(model: Model, texts: Sequence[str], session: Session) -> dict[str, Text]:
    """Encode every distinct text as the denoiser reads it; the session is told how many are done."""
    distinct, done = dict.fromkeys(texts), 0
    by_encoder = "clip-text" in model.anatomy.capabilities  # else the pipeline runs all of them at once
    total = len(distinct) * (len(model.anatomy.text_encoders) if by_encoder else 1)

    def tell(more: int) -> None:
        nonlocal done
        done += more
        session.progress(done, total, "texts encoded")

    return encode(model, distinct, session.device, tell)


@dataclass(frozen=True)
class _Setup:
    denoiser: Denoiser
    layers: Mapping[str, Layer]
    texts: Mapping[str, Text]
    anchors: AnchorMix
    sampler: Ddim | Euler
    params: MembraneParams
    session: Session

    def train(self, targets: Sequence[Target], part: tuple[int, int], trained: TrainedMembranes) -> None:
        """Train these together, as one part of several."""
        params, concepts = self.params, [target.concept for target in targets]
        membranes = Membranes(self.layers, concepts, params.rank, params.alpha, self.session.device)
        for i, concept in enumerate(concepts):
            membranes.sample(i, self.session.generator(f"init/{concept}"))
        trainer = self._trainer(membranes, targets)
        name = f"{params.trainer}-{part[0]}"
        checkpoints = Checkpoints(self.session.scratch, name, self._identity(targets, trainer))

        def progress(done: int, text: str) -> None:
            self.session.progress(part[0] * params.steps + done, part[1] * params.steps, text)

        warn = trained.warnings.append
        loop = Loop(params.steps, params.checkpoint_every, checkpoints, progress, warn, "membrane-bundle", HINT)
        with membranes.attached(), self._threads() as trainer.objective.aside:
            rows = loop.run(MembraneTraining(trainer, Optimiser(membranes, params)))
        losses = torch.tensor(rows, dtype=torch.float32).view(len(rows), 3, len(concepts))
        for i, target in enumerate(targets):
            trained.membranes[target.concept] = Membrane(membranes.branches(i), target.texts)
        trained.curves += curves(concepts, losses)
        trained.numbers += numbers(concepts, losses)
        scale = params.alpha / params.rank
        for warning in warnings(concepts, losses, params.lam, scale):
            if warning not in trained.warnings:
                trained.warnings.append(warning)

    def _threads(self) -> AbstractContextManager[Aside]:
        small = is_small(self.session.device, self.denoiser.size)
        return one_thread_each() if small else nullcontext(at_once)

    def _trainer(self, membranes: Membranes, targets: Sequence[Target]) -> Trainer:
        params = self.params
        objective = Objective(self.denoiser, membranes, self.texts, params.eta, params.lam, params.anchors.uncond)
        triples = [_triples(target) for target in targets]
        if params.trainer == "exact" and isinstance(self.sampler, Ddim):  # no other one gets here
            generator = self.session.generator(f"exact/{targets[0].concept}")
            dynamic = params.dynamic_resolution
            return Exact(objective, self.sampler, self.anchors, triples[0], dynamic=dynamic, generator=generator)
        size = PoolSize(max(params.pool, len(targets)), params.batch)
        return Pool(objective, self.sampler, self.anchors, triples, size, self.session.generator("pool"))

    def _identity(self, targets: Sequence[Target], trainer: Trainer) -> str:
        """Return a digest of what the result depends on; a sample of the weights is enough here."""
        digest = hashlib.sha256()
        plain = self.params.model_dump(mode="json", include=set(RESULT))
        said = [[target.concept, target.texts, target.surrogates, target.positives] for target in targets]
        where = [str(self.session.dtype), str(self.session.device), torch.__version__]
        digest.update(json.dumps([plain, said, self.anchors.keep, where, list(self.layers)], sort_keys=True).encode())
        digest.update(_bytes(trainer.generator.get_state()))
        for text in self.texts.values():
            digest.update(_bytes(text.states))
        for layer in self.layers.values():
            digest.update(_bytes(layer.weight[0].float()))
        return digest.hexdigest()


def _triples(target: Target) -> tuple[TextTriple, ...]:
    rows = zip(target.texts, target.surrogates, target.positives, strict=True)
    return tuple(TextTriple(text, surrogate, positive) for text, surrogate, positive in rows)


def _bytes(tensor: Tensor) -> bytes:
    return bytes(tensor.detach().cpu().contiguous().numpy().tobytes())
