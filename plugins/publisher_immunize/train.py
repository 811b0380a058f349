"""Immunise: sample, adapt, move the weights, to the last step or until it is enough; and what the report gets of it."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from publisher.api import Captions, Concept, StepContext
from publisher.api.diffusion.checkpoints import Checkpoints
from publisher.api.diffusion.denoiser import Denoiser
from publisher.api.diffusion.loop import Loop, Training, optimizer_state, pack, restore_optimizer, thin, unpack
from publisher.api.diffusion.threads import Aside, at_once, is_small, one_thread_each
from publisher.api.steps import MOST_POINTS
from publisher_immunize.adversary import Adversary
from publisher_immunize.data import ConceptBatch, ConceptImages, ImmunizeData, gather, split
from publisher_immunize.denoiser import Denoising, PatchedDenoiser
from publisher_immunize.outer import TERMS, OuterLevel
from publisher_immunize.params import ImmunizeParams, Inner
from publisher_immunize.schedule import Probed, Schedule

PURPOSES = ("concepts", "adapters", "choices", "keep", "innocents", "attackers")
"""Names of the random generators."""
COLUMNS = (*TERMS, "gradient norm", "inner loss")
"""Numbers of one step, in their order."""
TAIL = 10
"""Numbers of the report are means over the last of so many parts of the steps."""
NOT_TRAINING = ("attacks", "check", "checkpoint_every", "innocents")
"""Parameters that the trained weights do not depend on."""
HINT = "Lower lr or inner_lr; objective ascend is without bound unless bound is set."
ReportCurve = tuple[str, list[float], list[float], str]
"""Name, steps, values, unit."""
ReportNumber = tuple[str, float, str]
"""Name, value, unit."""


@dataclass(frozen=True)
class Immunized:
    """The weights that were trained, and what is known of the training."""

    weights: dict[str, Tensor]
    """Name -> tensor of the denoiser, in the working dtype."""
    losses: list[list[float]]
    """Row of :data:`COLUMNS` for every step."""
    probes: list[list[float]]
    """Step, delay and rise of the kept images' loss, of every probe."""
    stopped: str
    """Reason why the training ended before its last step; empty: it did not."""


def train(
    ctx: StepContext, params: ImmunizeParams, concepts: Sequence[Concept], kept: Sequence[Concept], names: Sequence[str]
) -> Immunized:
    """Immunise.

    Args:
        ctx: context of the running step.
        params: parameters with every None replaced.
        concepts: concepts to immunise against, at least one.
        kept: concepts to keep that give images.
        names: names of the denoiser's tensors to train.

    Raises:
        UsageError: images are missing, texts are too long or cannot be merged, or the losses diverge.
        ModelError: a part of the model cannot be loaded.
    """
    ctx.progress(0, params.steps or 0, "images and texts")
    data = gather(params, concepts, kept, ctx)
    denoiser = Denoiser.load(ctx.model, ctx.device, ctx.dtype)
    if params.gradient_checkpointing:
        denoiser.network.enable_gradient_checkpointing()  # type: ignore[operator]
    with _threads(denoiser) as aside:
        training = _training(ctx, params, data, denoiser, names, aside)
        steps = params.steps or 0
        checkpoints = Checkpoints(ctx.scratch, "immunize", _identity(training.denoising, ctx))

        def progress(done: int, text: str) -> None:
            ctx.progress(done, steps, text)

        losses = Loop(steps, params.checkpoint_every, checkpoints, progress, ctx.warn, "immunize", HINT).run(training)
    return Immunized(training.result(), losses, training.probes, training.stopped)


@dataclass(frozen=True)
class SimulatedAttacker:
    """What is simulated from one restart to the next."""

    kind: int
    """Index of the kind of adaptation, where ``inner_choice`` is not ``step``."""
    adapts: bool
    """Whether anything is adapted."""
    words: tuple[int, ...]
    """Index of the rare word of each concept, where they are drawn at random."""


class Immunization(Training):
    """The training of one immunisation.

    Args:
        denoising: denoiser, data and parameters.
        theta: name -> weight to publish, in the working dtype; it is trained in place.
        generator: purpose -> generator on the CPU, from its beginning.
        schedule: probe that says when it is enough; None: after ``params.steps``.
        second: the same with a network of its own, and what starts work in another thread; None: all in this one.
    """

    def __init__(
        self,
        denoising: Denoising,
        theta: dict[str, Tensor],
        generator: Callable[[str], torch.Generator],
        schedule: Schedule | None = None,
        *,
        second: tuple[Denoising, Aside] | None = None,
    ) -> None:
        params = denoising.params
        other, self.aside = second or (denoising, at_once)
        self.denoising, self.params, self.outer = denoising, params, OuterLevel(denoising, other)
        self.theta = {name: value.requires_grad_() for name, value in theta.items()}
        self.adam = torch.optim.AdamW(
            list(self.theta.values()), lr=params.lr or 0.0, weight_decay=params.weight_decay, foreach=False
        )
        self.generators = {purpose: generator(purpose) for purpose in PURPOSES}
        self.schedule, self.best = schedule, dict[str, Tensor]()
        self.start = {name: value.detach().clone() for name, value in theta.items()} if schedule else {}
        self.probes: list[list[float]] = []
        self._adversaries: dict[Inner, dict[str, Tensor]] = {}
        self._attacker = SimulatedAttacker(0, adapts=True, words=(0,) * len(denoising.data.concepts))

    def begin(self, tell: Callable[[str], None]) -> None:  # noqa: ARG002 - nothing takes long
        """Refuse texts that cannot be merged, before the time is spent."""
        if self.params.method == "mima":
            self.outer.check()

    def step(self, done: int) -> list[float]:
        """Adapt, and compute the gradient of the outer level; return :data:`COLUMNS`."""
        keep = self._keep()
        kept = None if keep is None else self.aside(lambda: self.outer.keep(self.theta, keep))
        self._attacker = self._next_attacker(done)
        each_step = self.params.inner_choice == "step"
        kind = self.params.inners[self._choose(len(self.params.inners)) if each_step else self._attacker.kind]
        adversary, inner = self._adapted(kind, done)
        sizes = (self.params.batch or 1, self.params.prior_batch or 1 if self.params.prior else 0)
        batch = self._sample(self._shown(), sizes)
        found = self.outer(self.theta, adversary, batch, kept, self._innocent(kind))
        return [*found.losses, self.clip(found.gradients), inner]

    def clip(self, gradients: Mapping[str, Tensor]) -> float:
        """Give the weights their gradients, clipped; return the norm before that."""
        for name, value in self.theta.items():
            value.grad = gradients[name]
        limit = self.params.max_grad_norm or math.inf
        return float(torch.nn.utils.clip_grad_norm_(self.theta.values(), limit))

    def move(self, done: int) -> None:
        """Take a step of AdamW, and probe where it is due."""
        if self.params.lr_schedule != "constant":
            self.adam.param_groups[0]["lr"] = (self.params.lr or 0.0) * self._share(done / (self.params.steps or 1))
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        self._probe(done + 1)

    def result(self) -> dict[str, Tensor]:
        """Return the trained weights, in the working dtype."""
        return self.best or {name: value.detach() for name, value in self.theta.items()}

    def state(self) -> dict[str, Tensor]:
        """Return weights, moments, probes, the best weights so far, and the adaptations that go on."""
        log = {
            "probes": torch.tensor(self.probes, dtype=torch.float64).reshape(-1, 3),
            "stopped": torch.tensor(list(self.stopped.encode()), dtype=torch.uint8),
        }
        attacker = {"attacker": torch.tensor([self._attacker.kind, self._attacker.adapts, *self._attacker.words])}
        groups = {"theta": self.theta, "adam": optimizer_state(self.adam), "log": log | attacker, "best": self.best}
        return pack({**groups, **{f"adversary {kind}": state for kind, state in self._adversaries.items()}})

    def restore(self, state: Mapping[str, Tensor], done: int) -> None:  # noqa: ARG002 - the state says it
        """Restore what :meth:`state` returned."""
        groups, device = unpack(state), self.denoising.host.denoiser.device
        for name, value in self.theta.items():
            with torch.no_grad():
                value.copy_(groups["theta"][name])
        restore_optimizer(self.adam, groups["adam"])
        self.probes = groups["log"]["probes"].tolist()
        self.stopped = bytes(groups["log"]["stopped"].tolist()).decode()
        kind, adapts, *words = groups["log"]["attacker"].tolist()
        self._attacker = SimulatedAttacker(kind, adapts=bool(adapts), words=tuple(words))
        self.best = {name: value.to(device) for name, value in groups.get("best", {}).items()}
        for kind in self.params.inners:
            if f"adversary {kind}" in groups:
                kept = groups[f"adversary {kind}"]
                self._adversaries[kind] = {name: value.to(device) for name, value in kept.items()}

    def line(self, recent: Sequence[float]) -> str:
        """Return the terms of the objective that are on."""
        return ", ".join(f"{name} {value:.2e}" for name, value in zip(TERMS, recent, strict=False) if value)

    def _share(self, done: float) -> float:
        """Return the part of the outer rate after a share of the steps."""
        return 1 - done if self.params.lr_schedule == "linear" else 0.1 + 0.45 * (1 + math.cos(math.pi * done))

    def _restarts(self, done: int) -> bool:
        return done % self.params.restart == 0 if self.params.restart else done == 0

    def _next_attacker(self, done: int) -> SimulatedAttacker:
        """Return the one of this step: another one at each restart; without adaptation, other words at each step."""
        if not self._restarts(done) and self._attacker.adapts:
            return self._attacker
        generator, groups = self.generators["attackers"], len(self.denoising.data.concepts)
        found = self._attacker
        if self._restarts(done):
            if self.params.inner_choice == "turns":
                kind = done // (self.params.restart or 1) % len(self.params.inners)
            else:
                kind = int(torch.randint(len(self.params.inners), (1,), generator=generator))
            adapts = bool(torch.rand(1, generator=generator) >= self.params.unadapted)
            found = SimulatedAttacker(kind, adapts=adapts, words=found.words)
        many = self.params.rare if isinstance(self.params.rare, int) else 1
        return replace(found, words=tuple(torch.randint(many, (groups,), generator=generator).tolist()))

    def _shown(self) -> tuple[ConceptImages, ...]:
        concepts = self.denoising.data.concepts
        return tuple(one.under(word) for one, word in zip(concepts, self._attacker.words, strict=True))

    def _adapted(self, kind: Inner, done: int) -> tuple[Adversary, float]:
        concepts = self._shown()
        adversary = Adversary(kind, len(concepts), self.denoising, self.generators["adapters"])
        if self._restarts(done):
            self._adversaries.clear()
        if not self._attacker.adapts:
            return adversary, 0.0
        if kind in self._adversaries:
            adversary.restore(self._adversaries[kind])
        sizes = (self.params.batch or 1, adversary.kept_rows)
        batches = [self._sample(concepts, sizes) for _ in range(self.params.inner_steps)]
        losses = adversary.learn(self.theta, batches)
        if self.params.restart != 1:
            self._adversaries[kind] = adversary.state()
        return adversary, float(losses[-1].mean())

    def _keep(self) -> ConceptBatch | None:
        if not self.params.lam:
            return None
        size = (self.params.prior_batch or 1) * len(self.denoising.data.concepts)
        return self.denoising.data.keep_batch(size, self.generators["keep"])

    def _innocent(self, kind: Inner) -> tuple[Adversary, Adversary, ConceptBatch] | None:
        """Adapt these weights and the frozen ones alike to one kept concept."""
        if not self.params.mu:
            return None
        generator, data = self.generators["innocents"], self.denoising.data
        images = data.kept[int(torch.randint(len(data.kept), (1,), generator=generator))]
        begin = generator.get_state()
        mine = Adversary(kind, 1, self.denoising, generator)
        generator.set_state(begin)
        other = Adversary(kind, 1, self.denoising, generator)
        size = self.params.batch or 1
        count = self.params.inner_steps + 1
        *batches, last = (data.batch([images], "rare", (size, mine.kept_rows), generator) for _ in range(count))
        mine.learn(self.theta, batches)
        other.learn({}, batches)
        return mine, other, last

    def _sample(self, shown: tuple[ConceptImages, ...], sizes: tuple[int, int]) -> ConceptBatch:
        kinds = tuple(self.params.caption_shares)
        kind: Captions = kinds[self._choose(len(kinds)) if isinstance(self.params.captions, tuple) else self._weighed()]
        return self.denoising.data.batch(shown, kind, sizes, self.generators["concepts"])

    def _weighed(self) -> int:
        shares = torch.tensor(list(self.params.caption_shares.values()))
        return int(torch.multinomial(shares, 1, generator=self.generators["choices"]))

    def _choose(self, count: int) -> int:
        return int(torch.randint(count, (1,), generator=self.generators["choices"]))

    def _probe(self, done: int) -> None:
        if self.schedule is None or (done % self.params.auto.every and done != self.params.steps):
            return
        found = self.schedule.probe(self.theta)
        self.probes.append([float(done), found.delay, found.innocent])
        self._judge(self.schedule, found, done)

    def _judge(self, schedule: Schedule, found: Probed, done: int) -> None:
        if not schedule.harmless(found):
            self.stopped = f"kept images suffer at step {done} (loss {found.innocent:+.1%}); " + (
                "the weights of the probe before it are taken" if self.best else "the weights are left as they were"
            )
            self.best = self.best or self.start
            return
        self.best = {name: value.detach().clone() for name, value in self.theta.items()}
        if schedule.enough(found):
            self.stopped = f"the probe takes {found.delay:.1f} times as long at step {done}"


def curves(immunized: Immunized) -> list[ReportCurve]:
    """Return each column over the steps, without those that are all zero, and what the probes found."""
    found: list[ReportCurve] = []
    for column, name in enumerate(COLUMNS):
        ends, values = thin([row[column] for row in immunized.losses])
        if any(values):
            found.append((_loss_name(name), ends, values, ""))
    if immunized.probes:
        steps, delays, rises = zip(*immunized.probes, strict=True)
        found.append(("probed delay", *_every(steps, delays), "times"))
        found.append(("kept images' loss", *_every(steps, rises), "of its start, more"))
    return found


def numbers(losses: Sequence[Sequence[float]]) -> list[ReportNumber]:
    """Return the number of steps, and the mean losses over the last tenth of them."""
    last = losses[-max(1, len(losses) // TAIL) :]
    means = [(name, sum(row[column] for row in last) / len(last)) for column, name in enumerate(COLUMNS)]
    found = [(f"{_loss_name(name)} at the end", value, "") for name, value in means if value and "norm" not in name]
    return [("outer steps", float(len(losses)), ""), *found]


def _loss_name(column: str) -> str:
    return column if "norm" in column else f"{column.removesuffix(' loss')} loss"


def _every(steps: Sequence[float], values: Sequence[float]) -> tuple[list[float], list[float]]:
    size = -(-len(steps) // MOST_POINTS)
    return list(steps[::size]), list(values[::size])


def _training(
    ctx: StepContext,
    params: ImmunizeParams,
    data: ImmunizeData,
    denoiser: Denoiser,
    names: Sequence[str],
    aside: Aside | None,
) -> Immunization:
    other = None if aside is None or params.inner_order == 2 else PatchedDenoiser(_copy(denoiser))  # without hooks yet
    host = PatchedDenoiser(denoiser, second=params.inner_order == 2)
    component = ctx.model.anatomy.denoiser
    theta = {name: ctx.model.read(component, name).to(ctx.device, host.work) for name in names}
    schedule = None
    if params.schedule == "auto":
        training, held = _halves(data)
        data = training
        schedule = Schedule(Denoising(host, training, params), Denoising(host, held, params), ctx.generator)
    denoising = Denoising(host, data, params)
    second = None if aside is None or other is None else (replace(denoising, host=other), aside)
    return Immunization(denoising, theta, ctx.generator, schedule, second=second)


def _copy(denoiser: Denoiser) -> Denoiser:
    """Return one with a network of its own, for another thread."""
    return Denoiser(copy.deepcopy(denoiser.network), denoiser.anatomy)


def _halves(data: ImmunizeData) -> tuple[ImmunizeData, ImmunizeData]:
    concepts, kept = split(data.concepts), split(data.kept)
    training, held = (replace(data, concepts=a, kept=b) for a, b in zip(concepts, kept, strict=True))
    return training, held


def _threads(denoiser: Denoiser) -> AbstractContextManager[Aside | None]:
    return one_thread_each() if is_small(denoiser.device, denoiser.size) else nullcontext()


def _identity(denoising: Denoising, ctx: StepContext) -> str:
    """Return a digest of what the result depends on."""
    plain = {name: value for name, value in denoising.params.as_json().items() if name not in NOT_TRAINING}
    data = denoising.data
    where = [str(ctx.dtype), str(ctx.device), torch.__version__, ctx.model.digest]
    said = [
        [images.concept.id, {kind: list(lines) for kind, lines in images.captions.items()}]
        for images in (*data.concepts, *data.kept)
    ]
    digest = hashlib.sha256(json.dumps([plain, where, said, data.keep_texts], sort_keys=True).encode())
    for images in (*data.concepts, *data.kept):
        digest.update(images.latents.cpu().contiguous().numpy().tobytes())
    digest.update(ctx.generator("concepts").get_state().numpy().tobytes())
    return digest.hexdigest()
