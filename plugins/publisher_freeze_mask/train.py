"""The fine-tunings of one mask: each is trained, scored, and kept, so that a killed run goes on.

They run one after the other; those of a small network two at a time, with a network and a thread each.

theta_ft comes from AdamW (betas 0.9 and 0.999, decoupled weight decay) on the ordinary diffusion loss, with gradients
shortened to a norm and a constant rate: FreezeAsGuard's relearning, and what diffusers' training examples do.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from publisher.api.diffusion.checkpoints import Checkpoints, Unusable
from publisher.api.diffusion.denoiser import Denoiser
from publisher.api.diffusion.loop import Loop, Training, optimizer_state, pack, restore_optimizer, unpack
from publisher.api.diffusion.threads import Aside
from publisher_freeze_mask.data import CaptionedImages, MaskData
from publisher_freeze_mask.integrated_gradients import PathScores, path_scores
from publisher_freeze_mask.mixing import Loss, MixedNetwork
from publisher_freeze_mask.params import AdaptParams, FreezeMaskParams

Side = Literal["illegal", "innocent"]


@dataclass(frozen=True)
class FineTuning:
    """One fine-tuning to do."""

    side: Side
    """Side of the mask that it is for."""
    label: str
    """Name, unique in a mask, such as ``"illegal 1 name 1"``."""
    images: CaptionedImages
    """Images that are learned."""


@dataclass(frozen=True)
class ScoredFineTuning:
    """One fine-tuning that is done."""

    what: FineTuning
    """Fine-tuning that was done."""
    path: PathScores
    """Scores of the units."""
    losses: tuple[float, ...]
    """Training loss of each step."""
    delta: Mapping[str, Tensor]
    """theta_ft - theta_pre by name; empty where the recipe needs the scores alone."""
    batches: tuple[Loss, ...]
    """L on each batch that the scores are of."""


def fine_tunings(params: FreezeMaskParams, data: MaskData) -> list[FineTuning]:
    """Return the fine-tunings to do, illegal ones first. The released recipe has one theta_ft, of both sides."""
    if params.recipe == "released":
        shown = (*(one for ones in data.illegal.values() for one in ones), *data.innocent)
        return [FineTuning("illegal", "both", CaptionedImages.join(shown))]
    found: list[tuple[Side, str, CaptionedImages]] = []
    for kind, ones in data.illegal.items():
        found += [("illegal", f"{turn} {kind}", images) for turn, images in _parts(params, ones)]
    found += [("innocent", f"{turn} rare", images) for turn, images in _parts(params, data.innocent)]
    repeats = range(1, params.adapt.seeds + 1)
    return [FineTuning(side, f"{side} {label} {i}", images) for side, label, images in found for i in repeats]


class Relearning(Training):
    """The training of one theta_ft, in place.

    Args:
        network: network at theta_pre.
        names: names of the tensors that are trained.
        params: parameters with every None replaced.
        loss: function that samples a batch and returns its loss.
        generator: source of the batches.
    """

    def __init__(
        self,
        network: MixedNetwork,
        names: Sequence[str],
        params: AdaptParams,
        loss: Callable[[torch.Generator], Tensor],
        generator: torch.Generator,
    ) -> None:
        network.moving(names)
        self.loss, self.clip, self.generators = loss, params.max_grad_norm, {"samples": generator}
        self.tensors = {name: network.parameters[name].requires_grad_() for name in names}
        self.adam = torch.optim.AdamW(
            list(self.tensors.values()), lr=params.lr or 0.0, weight_decay=params.weight_decay, foreach=False
        )

    def step(self, done: int) -> list[float]:  # noqa: ARG002 - each step is like the others
        """Compute the loss of a batch and its shortened gradient."""
        loss = self.loss(self.generators["samples"])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.tensors.values(), self.clip)
        return [float(loss.detach())]

    def move(self, done: int) -> None:  # noqa: ARG002 - as above
        """Take a step of AdamW."""
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """Return the weights themselves, as the last bits of their difference would be others, and the moments."""
        return pack({"theta": self.tensors, "adam": optimizer_state(self.adam)})

    def restore(self, state: Mapping[str, Tensor], done: int) -> None:  # noqa: ARG002 - the state says it
        """Restore what :meth:`state` returned."""
        groups = unpack(state)
        for name, tensor in self.tensors.items():
            with torch.no_grad():
                tensor.copy_(groups["theta"][name])
        restore_optimizer(self.adam, groups["adam"])


@dataclass(frozen=True)
class FineTuner:
    """All that the fine-tunings of a step have in common."""

    network: MixedNetwork
    """Network at theta_pre."""
    denoiser: Denoiser
    """Denoiser of the same network."""
    data: MaskData
    """Images, texts and noise process."""
    names: Sequence[str]
    """Names of the tensors that theta_ft may change."""
    params: FreezeMaskParams
    """Parameters with every None replaced."""
    generator: Callable[[str], torch.Generator]
    """Purpose -> generator, from its beginning."""
    folder: Path
    """Folder of the checkpoints."""
    identity: str
    """Digest of all that the results depend on."""
    progress: Callable[[int, str], None]
    """Function that is told how many steps more are done, and a line."""
    warn: Callable[[str], None]
    """Function that is told what the report should say."""

    def __call__(self, what: FineTuning, seed: int) -> ScoredFineTuning:
        """Train and score one fine-tuning; the network is at theta_pre before and after.

        Args:
            what: fine-tuning to do.
            seed: number of the mask; 0 is the one that is published.

        Raises:
            UsageError: a loss is not finite.
        """
        name = _name(what, seed)
        finished = Checkpoints(self.folder, f"scored-{name}", self.identity)
        batches = self._batches(what, name)
        saved = self._finished(finished)
        if saved is not None:
            self.progress((self.params.adapt.steps or 0) + 1, what.label)
            return _unpacked(what, saved, batches)
        checkpoints = Checkpoints(self.folder, name, self.identity)
        delta, losses = self._learn(what, self.generator(f"{name}/train"), checkpoints)
        path = path_scores(self.network, delta, batches, self.params.score.points)
        self.progress(1, f"{what.label}: scored")
        kept = {} if self.params.recipe == "path" else delta
        done = ScoredFineTuning(what, path, tuple(losses), kept, batches)
        finished.save(len(losses) + 1, _packed(done))
        checkpoints.clear()
        return done

    def all(self, wanted: Sequence[FineTuning], seed: int, aside: Aside | None) -> tuple[ScoredFineTuning, ...]:
        """Train and score fine-tunings, in the order given.

        Args:
            wanted: fine-tunings to do. They do not depend on each other.
            seed: number of the mask.
            aside: function that starts work in another thread, which then does every second one on a network of its
                own; None: there is no other thread.

        Raises:
            UsageError: a loss is not finite.
        """
        if aside is None or len(wanted) < 2:
            return tuple(self(one, seed) for one in wanted)
        other = self._with_own_network()
        later = aside(lambda: [other(one, seed) for one in wanted[1::2]])
        here = [self(one, seed) for one in wanted[::2]]
        there = [replace(one, batches=self._batches(one.what, _name(one.what, seed))) for one in later()]
        done = {one.what.label: one for one in (*here, *there)}
        return tuple(done[one.label] for one in wanted)

    def _with_own_network(self) -> FineTuner:
        denoiser = Denoiser(copy.deepcopy(self.denoiser.network), self.denoiser.anatomy)
        network = MixedNetwork(denoiser.network, self.network.read, self.network.rows)
        return replace(self, network=network, denoiser=denoiser)

    def loop(self, steps: int, checkpoints: Checkpoints, label: str, hint: str) -> Loop:
        """Return the loop of a training that this step does.

        Args:
            steps: number of steps.
            checkpoints: place of the checkpoint.
            label: name of the training, for the line to show.
            hint: advice where a loss is not finite.
        """
        seen = 0

        def progress(done: int, text: str) -> None:
            nonlocal seen
            self.progress(done - seen, f"{label}: {text}")
            seen = done

        return Loop(steps, self.params.checkpoint_every, checkpoints, progress, self.warn, "freeze-mask", hint)

    def _learn(
        self, what: FineTuning, generator: torch.Generator, checkpoints: Checkpoints
    ) -> tuple[dict[str, Tensor], list[float]]:
        """Return theta_ft - theta_pre, and the loss of every step."""
        params, data = self.params.adapt, self.data

        def loss(generator: torch.Generator) -> Tensor:
            return data.loss(self.denoiser, what.images, data.sample(what.images, params.batch, generator))

        training = Relearning(self.network, self.names, params, loss, generator)
        loop = self.loop(params.steps or 0, checkpoints, what.label, "Lower adapt.lr.")
        try:
            rows = loop.run(training)
            loop.progress(len(rows), "trained")
            return self.network.delta(self.names), [row[0] for row in rows]
        finally:
            for tensor in training.tensors.values():
                tensor.grad = None
            self.network.network.requires_grad_(requires_grad=False)
            self.network.back()

    def _batches(self, what: FineTuning, name: str) -> tuple[Loss, ...]:
        generator, score, data = self.generator(f"{name}/score"), self.params.score, self.data
        sampled = [data.spread(what.images, score.batch, generator) for _ in range(score.batches)]
        return tuple(partial(data.loss, self.denoiser, what.images, one) for one in sampled)

    def _finished(self, checkpoints: Checkpoints) -> dict[str, Tensor] | None:
        try:
            found = checkpoints.load()
        except Unusable as error:
            self.warn(f"the checkpoint {checkpoints.name} {error}; this fine-tuning started again")
            return None
        return None if found is None else found[1]


def _parts(params: FreezeMaskParams, shown: Sequence[CaptionedImages]) -> list[tuple[str, CaptionedImages]]:
    if params.adapt.learn == "together":
        return [("all", CaptionedImages.join(shown))]
    return [(str(turn), images) for turn, images in enumerate(shown, 1)]


def _packed(done: ScoredFineTuning) -> dict[str, Tensor]:
    numbers = {
        "losses": torch.tensor(done.losses, dtype=torch.float64),
        "ends": torch.tensor([done.path.before, done.path.after], dtype=torch.float64),
    }
    return pack({"score": done.path.scores, "delta": done.delta, "numbers": numbers})


def _name(what: FineTuning, seed: int) -> str:
    return f"seed-{seed} {what.label}".replace(" ", "-")


def _unpacked(what: FineTuning, saved: Mapping[str, Tensor], batches: tuple[Loss, ...]) -> ScoredFineTuning:
    groups = unpack(saved)
    before, after = groups["numbers"]["ends"].tolist()
    losses = tuple(groups["numbers"]["losses"].tolist())
    path = PathScores(groups["score"], before, after)
    return ScoredFineTuning(what, path, losses, groups.get("delta", {}), batches)
