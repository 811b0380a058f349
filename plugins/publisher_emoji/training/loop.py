"""One resumable training loop for every network of the embedded model.

Step ``n`` samples all its randomness from a generator that is seeded with ``(seed, n)``. A checkpoint therefore needs
no generator state, and a resumed run takes exactly the steps that an uninterrupted one would have taken.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from publisher_emoji.training.config import Optimisation

CHECKPOINT_EVERY = 500
LOG_EVERY = 100

StepLoss = Callable[[torch.Generator], Tensor]


def train(modules: nn.Module, loss: StepLoss, run: Optimisation, *, seed: int, folder: Path, autocast: str) -> None:
    """Minimise ``loss``; afterwards ``modules`` hold the exponentially averaged weights.

    Args:
        modules: what is trained, as one module.
        loss: samples a batch with the given generator and returns a scalar; runs under CPU autocast.
        run: steps, learning rate and so on.
        seed: with the step's number, the seed of the step's generator.
        folder: receives ``checkpoint.pt`` (resumed from when present) and ``log.jsonl``.
        autocast: compute type: ``"bfloat16"``, or ``"float32"`` for none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parameters = [p for p in modules.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=run.lr, weight_decay=run.weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, run))
    average = torch.optim.swa_utils.AveragedModel(
        modules, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(run.ema), use_buffers=True
    )
    checkpoint, start, spent = folder / "checkpoint.pt", 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        modules.load_state_dict(state["modules"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        start, spent = state["step"], state["seconds"]
    modules.train()
    began, window = time.perf_counter(), []
    for step in range(start, run.steps):
        generator = step_generator(seed, step)
        with torch.autocast("cpu", dtype=getattr(torch, autocast), enabled=autocast != "float32"):
            value = loss(generator)
        value.backward()
        nn.utils.clip_grad_norm_(parameters, run.clip)
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
        average.update_parameters(modules)
        window.append(value.item())
        done, seconds = step + 1, spent + time.perf_counter() - began
        if done % LOG_EVERY == 0 or done == run.steps:
            _log(folder, done, run.steps, window, seconds)
            window.clear()
        if done % CHECKPOINT_EVERY == 0 or done == run.steps:
            state = {
                "step": done,
                "seconds": seconds,
                "modules": modules.state_dict(),
                "schedule": schedule.state_dict(),
            }
            torch.save(
                state | {"average": average.state_dict(), "optimiser": optimiser.state_dict()},
                checkpoint.with_suffix(".tmp"),
            )
            checkpoint.with_suffix(".tmp").replace(checkpoint)
    modules.load_state_dict(average.module.state_dict())
    modules.eval()


def step_generator(seed: int, step: int) -> torch.Generator:
    """The generator of one training step; steps and seeds do not share streams."""
    words = np.random.SeedSequence([seed, step]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)


def _rate(step: int, run: Optimisation) -> float:
    """Linear warm-up, then linear decay that reaches zero at ``run.decay``."""
    if step < run.warmup:
        return (step + 1) / run.warmup
    end = run.decay or run.steps
    return max(0.0, (end - step) / (end - run.warmup))


def _log(folder: Path, done: int, total: int, losses: list[float], seconds: float) -> None:
    mean = sum(losses) / len(losses)
    with (folder / "log.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({"step": done, "loss": round(mean, 5), "seconds": round(seconds, 1)}) + "\n")
    print(f"{folder.name}: step {done}/{total}  loss {mean:.4f}  {seconds:.0f} s", flush=True)
