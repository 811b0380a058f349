"""How every network of the embedded model is trained, on the loop of :mod:`publisher.api.diffusion.loop`.

Step ``n`` samples all its randomness from a generator that is seeded with ``(seed, n)``. A checkpoint therefore needs
no generator state, and a resumed run takes exactly the steps that an uninterrupted one would have taken.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from publisher.api.diffusion.checkpoints import Checkpoints
from publisher.api.diffusion.loop import Loop, Training, optimizer_state, pack, restore_optimizer, unpack
from publisher_emoji.training.config import Optimisation

CHECKPOINT_EVERY = 500
"""Number of steps between two checkpoints."""
LOG_EVERY = 100
"""Number of steps that a line of the log is a mean of."""

StepLoss = Callable[[torch.Generator], Tensor]
"""Function that samples a batch with the given generator and returns a scalar."""


def train(modules: nn.Module, loss: StepLoss, run: Optimisation, *, seed: int, folder: Path, autocast: str) -> None:
    """Minimise ``loss``; afterwards ``modules`` hold the exponentially averaged weights.

    Args:
        modules: networks that are trained, as one module.
        loss: loss of a step; it runs under CPU autocast.
        run: steps, learning rate and so on.
        seed: number that, with the step's number, seeds the step's generator.
        folder: folder for the checkpoint (resumed from when present) and ``log.jsonl``.
        autocast: compute type: ``"bfloat16"``, or ``"float32"`` for none.

    Raises:
        UsageError: a loss is not finite.
    """
    identity = json.dumps([run.model_dump(mode="json"), seed, autocast])
    checkpoints = Checkpoints(folder, "checkpoint", identity)
    training = AveragedTraining(modules, loss, run, seed=seed, folder=folder, autocast=autocast)
    modules.train()
    loop = Loop(
        run.steps, CHECKPOINT_EVERY, checkpoints, lambda *_: None, print, folder.name, "Lower lr in config.yaml."
    )
    loop.run(training)
    modules.load_state_dict(training.average.module.state_dict())
    modules.eval()


class AveragedTraining(Training):
    """AdamW with a rate that rises and falls, and exponentially averaged weights. For arguments see :func:`train`."""

    def __init__(
        self, modules: nn.Module, loss: StepLoss, run: Optimisation, *, seed: int, folder: Path, autocast: str
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.modules, self.loss, self.run, self.seed, self.folder = modules, loss, run, seed, folder
        self.type = None if autocast == "float32" else getattr(torch, autocast)
        self.generators: Mapping[str, torch.Generator] = {}
        self.parameters = [p for p in modules.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(self.parameters, lr=run.lr, weight_decay=run.weight_decay, fused=True)
        self.average = torch.optim.swa_utils.AveragedModel(
            modules, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(run.ema), use_buffers=True
        )
        self.began, self.window = time.perf_counter(), list[float]()

    def step(self, done: int) -> Sequence[float]:
        """Compute the loss of a batch and its shortened gradient."""
        with torch.autocast("cpu", dtype=self.type, enabled=self.type is not None):
            value = self.loss(step_generator(self.seed, done))
        value.backward()
        nn.utils.clip_grad_norm_(self.parameters, self.run.clip)
        self.window.append(value.item())
        return self.window[-1:]

    def move(self, done: int) -> None:
        """Take a step of AdamW, average the weights, and write the log where it is due."""
        self.optimiser.param_groups[0]["lr"] = self.run.lr * _rate(done, self.run)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.average.update_parameters(self.modules)
        if (done + 1) % LOG_EVERY == 0 or done + 1 == self.run.steps:
            _log(self.folder, done + 1, self.run.steps, self.window, time.perf_counter() - self.began)
            self.window.clear()

    def state(self) -> Mapping[str, Tensor]:
        """Return weights, averaged weights, moments, and the seconds spent."""
        spent = {"seconds": torch.tensor(time.perf_counter() - self.began, dtype=torch.float64)}
        average, moments = self.average.state_dict(), optimizer_state(self.optimiser)
        return pack({"modules": self.modules.state_dict(), "average": average, "adam": moments, "spent": spent})

    def restore(self, state: Mapping[str, Tensor], done: int) -> None:  # noqa: ARG002 - the state says it
        """Restore what :meth:`state` returned."""
        groups = unpack(state)
        self.modules.load_state_dict(groups["modules"])
        self.average.load_state_dict(groups["average"])
        restore_optimizer(self.optimiser, groups["adam"])
        self.began -= float(groups["spent"]["seconds"])


def step_generator(seed: int, step: int) -> torch.Generator:
    """Return the generator of one training step; steps and seeds do not share streams."""
    words = np.random.SeedSequence([seed, step]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)


def _rate(step: int, run: Optimisation) -> float:
    """Return the share of the rate: linear warm-up, then linear decay that reaches zero at ``run.decay``."""
    if step < run.warmup:
        return (step + 1) / run.warmup
    end = run.decay or run.steps
    return max(0.0, (end - step) / (end - run.warmup))


def _log(folder: Path, done: int, total: int, losses: list[float], seconds: float) -> None:
    mean = sum(losses) / len(losses)
    with (folder / "log.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({"step": done, "loss": round(mean, 5), "seconds": round(seconds, 1)}) + "\n")
    print(f"{folder.name}: step {done}/{total}  loss {mean:.4f}  {seconds:.0f} s", flush=True)
