"""Train membranes: the parts put together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from publisher.api import Model
from publisher.api.diffusion.checkpoints import Checkpoints
from publisher.api.diffusion.denoiser import Denoiser
from publisher.api.diffusion.process import process_of
from publisher.api.diffusion.text import Text, encode
from publisher.api.diffusion.threads import Aside, at_once, is_small, one_thread_each
from publisher.api.membranes import Membrane, find_hosts
from publisher_membrane_bundle import summary
from publisher_membrane_bundle.anchors import AnchorMix
from publisher_membrane_bundle.branch import Membranes
from publisher_membrane_bundle.ddim import Ddim
from publisher_membrane_bundle.exact import Exact
from publisher_membrane_bundle.hosts import Layer, match_hosts
from publisher_membrane_bundle.loop import Run, Trainer
from publisher_membrane_bundle.objective import Objective, Sentence
from publisher_membrane_bundle.optimiser import Optimiser
from publisher_membrane_bundle.params import MembraneParams
from publisher_membrane_bundle.pool import Pool, Size
from publisher_membrane_bundle.selection import Target

__all__ = ["Session", "Target", "Trained", "train"]
_RESULT = (
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


@dataclass(frozen=True)
class Session:
    """Where and with what a training runs."""

    device: torch.device
    dtype: torch.dtype
    """Of the denoiser. Membranes, optimizer and losses are float32."""
    generator: Callable[[str], torch.Generator]
    """Purpose -> generator on the CPU; the same one, from its beginning, for the same purpose of the same run."""
    scratch: Path
    """Survives a kill."""
    progress: Callable[[int, int, str], None]
    """Done, total, a line to show."""


@dataclass
class Trained:
    """What came out."""

    membranes: dict[str, Membrane] = field(default_factory=dict)
    """Concept -> membrane, float32 on the CPU."""
    curves: list[summary.Curve] = field(default_factory=list)
    """Name, steps, values, unit."""
    numbers: list[summary.Number] = field(default_factory=list)
    """Name, value, unit."""
    warnings: list[str] = field(default_factory=list)


def train(
    model: Model, targets: Sequence[Target], keep: Sequence[str], params: MembraneParams, session: Session
) -> Trained:
    """One membrane for each target: all at once with ``pool``, one after the other with ``exact``.

    Args:
        model: what the membranes are for; its weights stay as they are.
        targets: at least one.
        keep: prompts that anchors are sampled from, where ``params.anchors.prompts`` says so.
        params: of the step.
        session: see there.

    Raises:
        UsageError: a text is too long, there is nothing to sample anchors from, or the losses diverge.
        ModelError: the model cannot be loaded, or has other layers than its family.
    """
    hosts = find_hosts(model)
    kept = tuple(keep) if params.anchors.prompts else ()
    named = [text for target in targets for one in (target.texts, target.surrogates, target.positives) for text in one]
    texts = _encoded(model, ["", *named, *kept], session)
    anchors = AnchorMix(params.anchors, kept, texts)
    ddim = Ddim(process_of(model), params.denoising_steps, params.denoising_guidance)
    denoiser = Denoiser.load(model, session.device, session.dtype)
    layers = match_hosts(denoiser.network, hosts)
    bench = _Bench(denoiser, layers, texts, anchors, ddim, params, session)
    together = [tuple(targets)] if params.trainer == "pool" else [(target,) for target in targets]
    trained = Trained()
    for part, group in enumerate(together):
        bench.train(group, (part, len(together)), trained)
    return trained


def _encoded(model: Model, texts: Sequence[str], session: Session) -> dict[str, Text]:
    """Every distinct text as the denoiser reads it; the session is told how many are done."""
    distinct, done = dict.fromkeys(texts), 0
    total = len(distinct) * len(model.anatomy.text_encoders)

    def tell(more: int) -> None:
        nonlocal done
        done += more
        session.progress(done, total, "texts encoded")

    return encode(model, distinct, session.device, tell)


@dataclass(frozen=True)
class _Bench:
    denoiser: Denoiser
    layers: Mapping[str, Layer]
    texts: Mapping[str, Text]
    anchors: AnchorMix
    ddim: Ddim
    params: MembraneParams
    session: Session

    def train(self, targets: Sequence[Target], part: tuple[int, int], trained: Trained) -> None:
        """Train these together, as one part of several."""
        params, concepts = self.params, [target.concept for target in targets]
        membranes = Membranes(self.layers, concepts, params.rank, params.alpha, self.session.device)
        for i, concept in enumerate(concepts):
            membranes.sample(i, self.session.generator(f"init/{concept}"))
        trainer = self._trainer(membranes, targets)
        run = Run(
            trainer,
            Optimiser(membranes, params),
            params,
            Checkpoints(self.session.scratch, f"{params.trainer}-{part[0]}", self._identity(targets, trainer)),
            lambda done, text: self.session.progress(part[0] * params.steps + done, part[1] * params.steps, text),
            trained.warnings,
        )
        with membranes.attached(), self._threads() as trainer.objective.aside:
            losses = run()
        for i, target in enumerate(targets):
            trained.membranes[target.concept] = Membrane(membranes.branches(i), target.texts)
        trained.curves += summary.curves(concepts, losses)
        trained.numbers += summary.numbers(concepts, losses)
        scale = params.alpha / params.rank
        for warning in summary.warnings(concepts, losses, params.lam, scale):
            if warning not in trained.warnings:
                trained.warnings.append(warning)

    def _threads(self) -> AbstractContextManager[Aside]:
        small = is_small(self.session.device, self.denoiser.size)
        return one_thread_each() if small else nullcontext(at_once)

    def _trainer(self, membranes: Membranes, targets: Sequence[Target]) -> Trainer:
        params = self.params
        objective = Objective(self.denoiser, membranes, self.texts, params.eta, params.lam, params.anchors.uncond)
        sentences = [_sentences(target) for target in targets]
        if params.trainer == "exact":
            generator = self.session.generator(f"exact/{targets[0].concept}")
            dynamic = params.dynamic_resolution
            return Exact(objective, self.ddim, self.anchors, sentences[0], dynamic=dynamic, generator=generator)
        size = Size(max(params.pool, len(targets)), params.batch)
        return Pool(objective, self.ddim, self.anchors, sentences, size, self.session.generator("pool"))

    def _identity(self, targets: Sequence[Target], trainer: Trainer) -> str:
        """Digest of what the result depends on; of the weights a sample, for the scratch folder is the step's own."""
        digest = hashlib.sha256()
        plain = self.params.model_dump(mode="json", include=set(_RESULT))
        said = [[target.concept, target.texts, target.surrogates, target.positives] for target in targets]
        where = [str(self.session.dtype), str(self.session.device), torch.__version__]
        digest.update(json.dumps([plain, said, self.anchors.keep, where, list(self.layers)], sort_keys=True).encode())
        digest.update(_bytes(trainer.generator.get_state()))
        for text in self.texts.values():
            digest.update(_bytes(text.states))
        for layer in self.layers.values():
            digest.update(_bytes(layer.weight[0].float()))
        return digest.hexdigest()


def _sentences(target: Target) -> tuple[Sentence, ...]:
    rows = zip(target.texts, target.surrogates, target.positives, strict=True)
    return tuple(Sentence(text, surrogate, positive) for text, surrogate, positive in rows)


def _bytes(tensor: Tensor) -> bytes:
    return bytes(tensor.detach().cpu().contiguous().numpy().tobytes())
