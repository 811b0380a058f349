"""The loop: sample, adapt, move the weights; checkpoints, progress, and an end where it is enough."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from publisher.api import Captions, UsageError
from publisher.api.diffusion.checkpoints import Checkpoints, Unusable
from publisher.api.diffusion.threads import Aside, at_once
from publisher_immunize.bench import Bench
from publisher_immunize.inner import Adversary
from publisher_immunize.material import Album, Batch
from publisher_immunize.outer import TERMS, Outer
from publisher_immunize.params import Inner
from publisher_immunize.schedule import Probed, Schedule

PURPOSES = ("concepts", "adapters", "choices", "keep", "innocents")
COLUMNS = (*TERMS, "gradient norm", "inner loss")
RECENT = 20
"""Steps that the shown losses are means of."""


@dataclass
class Log:
    """What a run says of itself."""

    losses: list[list[float]] = field(default_factory=list)
    """:data:`COLUMNS` of every step."""
    images_per_evaluation: list[list[float]] = field(default_factory=list)
    """Step, delay and rise of the kept images' loss, of every probe."""
    stopped: str = ""
    """Why it ended before its last step; empty: it did not."""


class Run:
    """One run from the first step to the last.

    Args:
        bench: what it works with.
        theta: name -> the weights to publish, in the working dtype; they are trained in place.
        generator: purpose -> a generator on the CPU, from its beginning.
        checkpoints: of this run.
        progress: steps done, and a line to show. What it raises ends the run; the next one goes on from the last
            checkpoint.
        schedule: says when it is enough; None: after ``params.steps``.
        second: a bench with a network of its own, and what starts work in another thread; None: all in this one.
    """

    def __init__(
        self,
        bench: Bench,
        theta: dict[str, Tensor],
        generator: Callable[[str], torch.Generator],
        checkpoints: Checkpoints,
        progress: Callable[[int, str], None],
        schedule: Schedule | None = None,
        *,
        second: tuple[Bench, Aside] | None = None,
    ) -> None:
        params = bench.params
        beside, self.aside = second or (bench, at_once)
        self.bench, self.params, self.outer = bench, params, Outer(bench, beside)
        self.checkpoints, self.progress = checkpoints, progress
        self.theta = {name: value.requires_grad_() for name, value in theta.items()}
        self.adam = torch.optim.AdamW(
            list(self.theta.values()), lr=params.lr or 0.0, weight_decay=params.weight_decay, foreach=False
        )
        self.samples = {purpose: generator(purpose) for purpose in PURPOSES}
        self.log = Log()
        self.schedule, self.best = schedule, dict[str, Tensor]()
        self.start = {name: value.detach().clone() for name, value in theta.items()} if schedule else {}
        self.warnings: list[str] = []
        self._adversaries: dict[Inner, dict[str, Tensor]] = {}

    def __call__(self) -> dict[str, Tensor]:
        """Do it.

        Returns:
            The trained weights, in the working dtype.

        Raises:
            UsageError: a loss or a gradient is no number any more.
        """
        if self.params.method == "mima":
            self.outer.check()
        steps, done = self.params.steps or 0, self._resume()
        while done < steps and not self.log.stopped:
            self._step(done)
            done += 1
            self._probe(done)
            if done % self.params.checkpoint_every == 0 or done == steps or self.log.stopped:
                self._save(done)
            self.progress(done, self._line())
        return self.best or {name: value.detach() for name, value in self.theta.items()}

    def _step(self, done: int) -> None:
        keep = self._keep()
        kept = None if keep is None else self.aside(lambda: self.outer.keep(self.theta, keep))
        kind = self.params.inners[self._choose(len(self.params.inners))]
        adversary, inner = self._adapted(kind, done)
        sizes = (self.params.batch or 1, self.params.prior_batch or 1 if self.params.prior else 0)
        batch = self._sample(self.bench.material.concepts, sizes)
        found = self.outer(self.theta, adversary, batch, kept, self._innocent(kind))
        self._decay(done)
        norm = self.move(found.gradients)
        row = [*found.losses, norm, inner]
        if not all(map(math.isfinite, row)):
            raise _diverged(done + 1)
        self.log.losses.append(row)

    def _adapted(self, kind: Inner, done: int) -> tuple[Adversary, float]:
        adversary = Adversary(kind, len(self.bench.material.concepts), self.bench, self.samples["adapters"])
        restart = self.params.restart
        if restart and done % restart == 0:
            self._adversaries.clear()
        if kind in self._adversaries:
            adversary.restore(self._adversaries[kind])
        sizes = (self.params.batch or 1, adversary.kept_rows)
        batches = [self._sample(self.bench.material.concepts, sizes) for _ in range(self.params.inner_steps)]
        losses = adversary.learn(self.theta, batches)
        if restart != 1:
            self._adversaries[kind] = adversary.state()
        return adversary, float(losses[-1].mean())

    def _keep(self) -> Batch | None:
        if not self.params.lam:
            return None
        size = (self.params.prior_batch or 1) * len(self.bench.material.concepts)
        return self.bench.material.keep_batch(size, self.samples["keep"])

    def _innocent(self, kind: Inner) -> tuple[Adversary, Adversary, Batch] | None:
        """Adapt these weights and the frozen ones alike to one kept concept."""
        if not self.params.mu:
            return None
        samples, material = self.samples["innocents"], self.bench.material
        album = material.kept[int(torch.randint(len(material.kept), (1,), generator=samples))]
        begin = samples.get_state()
        mine = Adversary(kind, 1, self.bench, samples)
        samples.set_state(begin)
        other = Adversary(kind, 1, self.bench, samples)
        size = self.params.batch or 1
        count = self.params.inner_steps + 1
        *batches, last = (material.batch([album], "rare", (size, mine.kept_rows), samples) for _ in range(count))
        mine.learn(self.theta, batches)
        other.learn({}, batches)
        return mine, other, last

    def _sample(self, albums: tuple[Album, ...], sizes: tuple[int, int]) -> Batch:
        kind: Captions = self.params.captions[self._choose(len(self.params.captions))]
        return self.bench.material.batch(albums, kind, sizes, self.samples["concepts"])

    def _choose(self, count: int) -> int:
        return int(torch.randint(count, (1,), generator=self.samples["choices"]))

    def _decay(self, done: int) -> None:
        if self.params.lr_schedule == "linear":
            self.adam.param_groups[0]["lr"] = (self.params.lr or 0.0) * (1 - done / (self.params.steps or 1))

    def move(self, gradients: dict[str, Tensor]) -> float:
        """A step of AdamW; the gradient's norm before clipping."""
        for name, value in self.theta.items():
            value.grad = gradients[name]
        limit = self.params.max_grad_norm or math.inf
        norm = float(torch.nn.utils.clip_grad_norm_(self.theta.values(), limit))
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        return norm

    def _probe(self, done: int) -> None:
        if self.schedule is None or (done % self.params.auto.every and done != self.params.steps):
            return
        found = self.schedule.probe(self.theta)
        self.log.images_per_evaluation.append([float(done), found.delay, found.innocent])
        self._judge(self.schedule, found, done)

    def _judge(self, schedule: Schedule, found: Probed, done: int) -> None:
        if not schedule.harmless(found):
            self.log.stopped = f"kept images suffer at step {done} (loss {found.innocent:+.1%}); " + (
                "the weights of the probe before it are taken" if self.best else "the weights are left as they were"
            )
            self.best = self.best or self.start
            return
        self.best = {name: value.detach().clone() for name, value in self.theta.items()}
        if schedule.enough(found):
            self.log.stopped = f"the probe takes {found.delay:.1f} times as long at step {done}"

    def _resume(self) -> int:
        try:
            found = self.checkpoints.load()
        except Unusable as error:
            self.warnings.append(f"a checkpoint of the training {error}; training began anew")
            found = None
        if found is None:
            return 0
        done, tensors = found
        groups: dict[str, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            group, _, name = key.partition("|")
            groups.setdefault(group, {})[name] = tensor
        self._restore(groups, done)
        return done

    def _restore(self, groups: dict[str, dict[str, Tensor]], done: int) -> None:
        for name, value in self.theta.items():
            with torch.no_grad():
                value.copy_(groups["theta"][name])
            moments = {key: groups[key][name].to(value.device) for key in ("exp_avg", "exp_avg_sq")}
            self.adam.state[value] = {"step": torch.tensor(float(done)), **moments}
        for purpose, state in groups["samples"].items():
            self.samples[purpose].set_state(state)
        device = self.bench.host.denoiser.device
        log = groups["log"]
        self.log = Log(
            log["losses"].tolist(), log["images_per_evaluation"].tolist(), bytes(log["stopped"].tolist()).decode()
        )
        self.best = {name: value.to(device) for name, value in groups.get("best", {}).items()}
        for kind in self.params.inners:
            if f"adversary {kind}" in groups:
                kept = groups[f"adversary {kind}"]
                self._adversaries[kind] = {name: value.to(device) for name, value in kept.items()}

    def _save(self, done: int) -> None:
        moments = {
            key: {name: self.adam.state[value][key] for name, value in self.theta.items()}
            for key in ("exp_avg", "exp_avg_sq")
        }
        log = {
            "losses": torch.tensor(self.log.losses, dtype=torch.float64),
            "images_per_evaluation": torch.tensor(self.log.images_per_evaluation, dtype=torch.float64).reshape(-1, 3),
            "stopped": torch.tensor(list(self.log.stopped.encode()), dtype=torch.uint8),
        }
        samples = {purpose: generator.get_state() for purpose, generator in self.samples.items()}
        groups = {"theta": self.theta, **moments, "log": log, "samples": samples, "best": self.best}
        groups |= {f"adversary {kind}": state for kind, state in self._adversaries.items()}
        self.checkpoints.save(
            done, {f"{group}|{name}": value for group, values in groups.items() for name, value in values.items()}
        )

    def _line(self) -> str:
        recent = torch.tensor(self.log.losses[-RECENT:], dtype=torch.float64).mean(0).tolist()
        return ", ".join(f"{name} {value:.2e}" for name, value in zip(TERMS, recent, strict=False) if value)


def _diverged(step: int) -> UsageError:
    return UsageError(
        f"the losses are no longer numbers at step {step}",
        where="immunize",
        hint="Lower lr or inner_lr; objective ascend is without bound unless bound is set.",
    )
