"""Membrane training against the published loop: `python benchmarks/membrane.py`.

A U-Net of 1.4 million parameters with random weights and random text states, on one thread. First the seconds of
processor time for one step of the published loop written plainly (`tests/publisher_membrane_bundle/naive_spm.py`; with
and without the garbage collection that it does each step), of `exact` and of `pool`, interleaved in one run. Then what
they reach after equal steps and after equal processor time: erase residual (of the erase loss at the start) and change
of other texts' predictions (of what their text does), at fixed noisy latents. A mechanism, no statement on images.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from publisher.api import Latents
from publisher.api.diffusion.ddim import Ddim
from publisher.api.diffusion.denoiser import Denoiser
from publisher.api.diffusion.process import read_process
from publisher.api.diffusion.text import Text
from publisher.model.folder import read_configs
from publisher.registry import load_registry
from publisher_emoji import model_folder
from publisher_membrane_bundle.data import AnchorMix
from publisher_membrane_bundle.exact import Exact
from publisher_membrane_bundle.membranes import Membranes, find_layers
from publisher_membrane_bundle.objective import Objective, TextTriple
from publisher_membrane_bundle.params import Anchors, MembraneParams
from publisher_membrane_bundle.pool import Pool, PoolSize
from publisher_membrane_bundle.train import Optimiser, Trainer

sys.path.append(str(Path(__file__).parent.parent / "tests" / "publisher_membrane_bundle"))
from naive_spm import Published

SCHEDULER = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
OTHERS = tuple(f"other {i}" for i in range(8))
NAMES = ("published", "published, no gc", "exact", "pool")
CPU = torch.device("cpu")


def tiny_denoiser(size: int) -> Denoiser:
    """Return that network with the anatomy of a Stable Diffusion 1.x of its size."""
    _, anatomy = load_registry().recognise(read_configs(model_folder()), "embedded:emoji")
    return Denoiser(tiny_unet(size), replace(anatomy, latents=Latents(4, size, size)))


def tiny_unet(size: int) -> UNet2DConditionModel:
    """Return a U-Net of two levels as in SD 1.x, with louder cross-attention, so that random weights heed the text."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=size,
        block_out_channels=(32, 64),
        cross_attention_dim=32,
        norm_num_groups=8,
        attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )
    with torch.no_grad():
        for name, weight in unet.named_parameters():
            if ".attn2." in name and name.endswith("weight"):
                weight.mul_(3)
    return unet.eval().requires_grad_(requires_grad=False)


def texts() -> dict[str, Text]:
    """Return random states of 77 positions, with the start token's in common."""
    samples = torch.Generator().manual_seed(1)
    states = {name: torch.randn(1, 77, 32, generator=samples) for name in ("", "target", *OTHERS)}
    for value in states.values():
        value[:, 0] = states[""][:, 0]
    return {name: Text(value) for name, value in states.items()}


@dataclass
class Contender:
    """One way to train, at its first step."""

    step: Callable[[], None]
    opened: Callable[[Tensor, Tensor, Text], Tensor]
    """Predictions with the membrane open."""
    held: ExitStack = field(default_factory=ExitStack)
    """What would end if nobody held it."""


def contender(name: str, params: MembraneParams, size: int, seed: int) -> Contender:
    """Return a contender that is ready to make steps; what the pool does once, at its start, is done."""
    return _published(name, params, size, seed) if name.startswith("published") else _ours(name, params, size, seed)


def _published(name: str, params: MembraneParams, size: int, seed: int) -> Contender:
    states = {text: value.states for text, value in texts().items()}
    unet = tiny_unet(size)
    loop = Published(
        unet,
        dict(SCHEDULER),
        states,
        [("target", "", "target")],
        params.steps,
        params.lr,
        params.warmup,
        params.cycles,
        la_strength=params.lam,
        init=torch.Generator().manual_seed(seed),
        samples=torch.Generator().manual_seed(seed),
        dynamic_resolution=params.dynamic_resolution,
        collect_garbage=name == "published",
    )

    def opened(x: Tensor, t: Tensor, text: Text) -> Tensor:
        with loop.network, torch.no_grad():
            found: Tensor = unet(x, t, text.states).sample
        return found

    return Contender(loop.step, opened)


def _ours(name: str, params: MembraneParams, size: int, seed: int) -> Contender:
    denoiser, known = tiny_denoiser(size), texts()
    membranes = Membranes(find_layers(denoiser.network, denoiser.anatomy), ["target"], 1, 1.0, CPU)
    membranes.sample(0, torch.Generator().manual_seed(seed))
    objective = Objective(denoiser, membranes, known, params.eta, params.lam, params.anchors.uncond)
    ddim = Ddim(read_process("DDIMScheduler", SCHEDULER), params.denoising_steps, params.denoising_guidance)
    anchors, said = AnchorMix(params.anchors, (), known), [TextTriple("target", "", "target")]
    samples = torch.Generator().manual_seed(seed)
    trainer: Trainer
    if name == "exact":
        trainer = Exact(objective, ddim, anchors, said, dynamic=params.dynamic_resolution, generator=samples)
    else:
        trainer = Pool(objective, ddim, anchors, [said], PoolSize(params.pool, params.batch), samples)
    optimiser, done = Optimiser(membranes, params), iter(range(params.steps))
    attached = ExitStack()
    attached.enter_context(membranes.attached())
    trainer.begin()

    def step() -> None:
        trainer.step()
        optimiser.step(next(done))

    def opened(x: Tensor, t: Tensor, text: Text) -> Tensor:
        with membranes.open():
            return denoiser.frozen(x, t, text)

    return Contender(step, opened, attached)


def quality(opened: Callable[[Tensor, Tensor, Text], Tensor], size: int) -> tuple[float, float]:
    """Erase residual and change of other texts, at 12 noisy latents of the frozen network's own trajectories."""
    frozen, known, ddim = tiny_denoiser(size), texts(), Ddim(read_process("DDIMScheduler", SCHEDULER), 30, 3.0)
    x = torch.randn(4, 4, size, size, generator=torch.Generator().manual_seed(2))
    residual, start, changed, effect = 0.0, 0.0, 0.0, 0.0
    for place in range(30):
        t = torch.full((4,), ddim.grid[place])
        target, empty = (frozen.frozen(x, t, Text(known[name].states.expand(4, -1, -1))) for name in ("target", ""))
        if place in (5, 15, 25):
            goal = 2 * empty - target
            now = opened(x, t, Text(known["target"].states.expand(4, -1, -1)))
            residual += float((now - goal).square().sum())
            start += float((target - goal).square().sum())
            for name in OTHERS:
                other = Text(known[name].states.expand(4, -1, -1))
                before = frozen.frozen(x, t, other)
                changed += float((opened(x, t, other) - before).square().sum())
                effect += float((before - empty).square().sum())
        x = ddim.step(x, torch.full((4,), place), target, empty)
    return residual / start, (changed / effect) ** 0.5


def seconds_per_step(params: MembraneParams, size: int, rounds: int, steps: int) -> dict[str, float]:
    """Return medians over rounds of processor seconds a step, the contenders in turn with the same samples."""
    spent: dict[str, list[float]] = {name: [] for name in NAMES}
    for turn in range(rounds):
        for name in NAMES:
            made = contender(name, params, size, seed=turn)
            made.step()
            began = time.process_time()
            for _ in range(steps):
                made.step()
            spent[name].append((time.process_time() - began) / steps)
    return {name: statistics.median(values) for name, values in spent.items()}


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=32, help="height and width of the latents")
    parser.add_argument("--steps", type=int, default=10, help="timed steps of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--dynamic", action="store_true", help="generate smaller latents, as the authors do (not the pool)"
    )
    parser.add_argument("--train", type=int, default=100, help="steps of the comparison of results; 0: leave it out")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = {"lr": 3e-3, "lam": 3.0, "cycles": 1, "dynamic_resolution": options.dynamic, "anchors": Anchors()}
    plain = MembraneParams(steps=options.steps + 1, warmup=1, **settings)
    spent = seconds_per_step(plain, options.size, options.rounds, options.steps)
    base = spent["published"]
    for name, value in spent.items():
        print(f"{name:18} {value:7.3f} s a step   {base / value:4.1f} x", flush=True)
    if not options.train:
        return
    print(f"{'':18} {'steps':>6} {'residual':>22} {'others changed':>24}   ({options.seeds} seeds)")
    equal_time = {name: round(options.train * spent["exact"] / spent[name]) for name in ("exact", "pool")}
    for name, steps in (("exact", options.train), ("pool", options.train), ("pool", equal_time["pool"])):
        params = MembraneParams(steps=steps, warmup=steps // 10, **settings)
        found = []
        for seed in range(options.seeds):
            made = contender(name, params, options.size, seed)
            for _ in range(steps):
                made.step()
            found.append(quality(made.opened, options.size))
        residual, changed = (" ".join(f"{value:.3f}" for value in column) for column in zip(*found, strict=True))
        print(f"{name:18} {steps:6} {residual:>22} {changed:>24}", flush=True)


if __name__ == "__main__":
    main()
