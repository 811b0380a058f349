"""Trained erasing against ESD's loop, a step: `python benchmarks/remove.py`; `--shapes sd15` for memory alone.

ESD (arXiv 2303.07345) is written here from its description, in our own words. In each step it samples from the model
that is trained, with the concept's prompt, from noise to a random place of a grid of 50; asks the frozen model there
for the empty prompt and for the concept; and moves the trained prediction to `eps_0(0) - eta (eps_0(c) - eps_0(0))`.
Ours draw their rows from the frozen model before the training; their cost is in the column *before*. Printed: processor
seconds and rows through the denoiser, before the training and a step (of `robust` with its attackers, over the steps
between two searches); peak memory of the steps over that of the loaded models. One thread.

The embedded model is the default. `--shapes sd15` builds a U-Net of 860 million random weights, and takes one step with
one row of each kind, activations computed again, and one step of a search: memory, not speed. Give it one method a run.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor

from publisher.api import Latents
from publisher.api.diffusion.denoiser import Denoiser
from publisher.api.diffusion.latents import Noising
from publisher.api.diffusion.process import process_of
from publisher.api.diffusion.text import Text
from publisher.builtin.families import StableDiffusion1
from publisher.model.folder import ModelFolder, read_configs
from publisher_emoji import model_folder
from publisher_erase.attackers import DerivedAttacker, GradientSearch, StatesAttacker
from publisher_erase.erasure import ConceptRows, Erasure, ErasureData
from publisher_erase.params import RobustParams, SurgicalParams
from publisher_erase.trajectories import FrozenRows, Pictures

ESD_GRID, ESD_GUIDANCE, ESD_LR = 50, 3.0, 1e-5
KEPT = 138
"""Number of kept prompts that get a trajectory before the training."""


class Esd:
    """The loop of ESD: the student is sampled from at each step.

    Args:
        student: trained network.
        teacher: frozen network.
        texts: states of the concepts' prompts ``(p, n, d)``, one of which is taken in each step, and of the empty
            prompt ``(1, n, d)``.
        names: names of the weights that are trained.
        eta: push beyond the empty prompt.
        lr: learning rate of Adam.
        seed: of all samples.
    """

    def __init__(
        self,
        student: Any,
        teacher: Any,
        texts: tuple[Tensor, Tensor],
        names: Sequence[str],
        eta: float,
        *,
        lr: float = ESD_LR,
        seed: int = 0,
    ) -> None:
        self.student, self.teacher, self.eta = student, teacher, eta
        self.concepts, self.empty = texts
        self.scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
        self.scheduler.set_timesteps(ESD_GRID)
        self.adam = torch.optim.Adam([student.get_parameter(name).requires_grad_() for name in names], lr=lr)
        self.generator = torch.Generator().manual_seed(seed)
        self.rows = 0

    def step(self) -> None:
        """Sample, ask the frozen network, and move the trained one."""
        size, channels = self.student.config.sample_size, self.student.config.in_channels
        x = torch.randn((1, channels, size, size), generator=self.generator)
        place = int(torch.randint(ESD_GRID, (1,), generator=self.generator))
        concept = self.concepts[torch.randint(len(self.concepts), (1,), generator=self.generator)]
        both = torch.cat([concept, self.empty])
        with torch.no_grad():
            for t in self.scheduler.timesteps[:place]:
                said, empty = self.ask(self.student, x.repeat(2, 1, 1, 1), t, both).chunk(2)
                x = self.scheduler.step(empty + ESD_GUIDANCE * (said - empty), t, x).prev_sample
            t = self.scheduler.timesteps[place]
            said, empty = self.ask(self.teacher, x.repeat(2, 1, 1, 1), t, both).chunk(2)
            goal = empty - self.eta * (said - empty)
        loss = (self.ask(self.student, x, t, concept) - goal).square().mean()
        self.adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.adam.step()

    def ask(self, network: Any, x: Tensor, t: Tensor, states: Tensor) -> Tensor:
        """Return predictions, and count their rows."""
        self.rows += len(x)
        predicted: Tensor = network(x, t, encoder_hidden_states=states).sample
        return predicted


class Counted(Denoiser):
    """A denoiser that counts the rows that go through it."""

    rows = 0

    def __call__(self, x: Tensor, t: Tensor, text: Text) -> Tensor:
        """Count, and predict."""
        self.rows += len(x)
        return super().__call__(x, t, text)


def network_of(shapes: str) -> Any:
    """Return the embedded model's U-Net, or one of SD 1.5's shapes with random weights."""
    if shapes == "embedded":
        return UNet2DConditionModel.from_pretrained(model_folder() / "unet").requires_grad_(requires_grad=False)
    torch.manual_seed(0)
    return UNet2DConditionModel(sample_size=64, cross_attention_dim=768).requires_grad_(requires_grad=False)


def erasure(network: Any, method: str, *, fewest: bool) -> tuple[Erasure, Counted, float, int]:
    """Return a training on random rows, its denoiser, and what the rows before it cost: seconds and rows.

    Args:
        network: U-Net.
        method: ``"surgical"`` or ``"robust"``.
        fewest: one row of each kind a step, activations computed again, and nothing drawn before.
    """
    configs = read_configs(model_folder())
    anatomy = StableDiffusion1().recognise(configs)
    if anatomy is None:
        raise SystemExit("the embedded model is not recognised")
    config = network.config
    network.eval()
    anatomy = type(anatomy)(
        **{**vars(anatomy), "latents": Latents(config.in_channels, config.sample_size, config.sample_size)}
    )
    few = {"batch": 1, "keep_batch": 1, "lam_keep_empty": 0.0, "gradient_checkpointing": True} if fewest else {}
    own = {"steps": 1000, "lr": 1e-5, **few}
    params = SurgicalParams.parse(own) if method == "surgical" else RobustParams.parse(own)
    if fewest:
        network.enable_gradient_checkpointing()
        if isinstance(params, RobustParams):
            attack = params.attack.model_copy(update={"fresh": 1, "steps": 1, "batch": 1})
            params = params.model_copy(update={"adversarial_batch": 1, "attack": attack})
    denoiser = Counted(network, anatomy)
    noising = Noising(process_of(ModelFolder(model_folder(), anatomy, configs)))
    samples = torch.Generator().manual_seed(1)
    states = Text(torch.randn(8, 77, config.cross_attention_dim, generator=samples))
    rows = random_rows(denoiser, 64, samples)
    before, asked = 0.0, 0
    if not fewest:
        began = time.process_time()
        denoiser.frozen(rows.x[:48], rows.t[:48], Text(states.states.repeat(6, 1, 1)))
        a_row = (time.process_time() - began) / 48
        drawn = params.pool * params.denoising_steps * 5 // 2 + min(KEPT, params.kept_pool) * params.kept_steps * 2
        if isinstance(params, RobustParams):
            drawn += params.images * (params.kept_steps * 2 + params.copies)
        before, asked = drawn * a_row, drawn
    latents = torch.randn(8, *rows.x.shape[1:], generator=samples)
    pictures = Pictures(latents, rows) if method == "robust" else None
    data = ErasureData((ConceptRows("concept", states, rows, rows, pictures),), states, rows, Text(states.states[:1]))
    doors = [name for name, _ in network.named_parameters() if ".attn2.to_k." in name or ".attn2.to_v." in name]
    names = doors if params.parts == "kv" else [name for name, _ in network.named_parameters()]
    attackers: list[Any] = []
    if isinstance(params, RobustParams):
        weights = [network.get_parameter(name) for name in doors]
        search = GradientSearch(params.attack, [latents], noising, denoiser)
        attackers = [
            DerivedAttacker([states], weights, [one.clone() for one in weights], 0.1),
            StatesAttacker(search, states),
        ]
    made = Erasure(params, denoiser, names, data, attackers, lambda _: torch.Generator().manual_seed(2))
    denoiser.rows = 0
    return made, denoiser, before, asked


def random_rows(denoiser: Denoiser, count: int, samples: torch.Generator) -> FrozenRows:
    """Return rows of the right shapes; their numbers are noise."""
    shape = (count, denoiser.channels, *denoiser.size)
    x, wanted, other = (torch.randn(shape, generator=samples) for _ in range(3))
    t = torch.randint(1000, (count,), generator=samples)
    return FrozenRows(x, t, torch.randint(8, (count,), generator=samples), wanted, other)


def resident(key: str) -> float:
    """Return MiB of resident memory: ``VmRSS`` now, ``VmHWM`` at the most."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024


def measure(step: Callable[[], object], steps: int) -> tuple[float, float, float]:
    """Return processor seconds a step, after a first one, and the peak MiB: over what was there before, and of all.

    Args:
        step: takes one step.
        steps: number of steps after the first one; 0: the first one is measured.
    """
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before, began = resident("VmRSS"), time.process_time()
    step()
    began = time.process_time() if steps else began
    for _ in range(steps):
        step()
    peak = resident("VmHWM")
    return (time.process_time() - began) / max(1, steps), peak - before, peak


def main(argv: Sequence[str]) -> None:
    """Print a row for each way to train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", choices=["embedded", "sd15"], default="embedded")
    parser.add_argument("--steps", type=int, default=50, help="steps of each (50: robust searches once)")
    parser.add_argument("--methods", default="surgical,robust", help="of ours (surgical,robust)")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    fewest = options.shapes == "sd15"
    steps = 0 if fewest else options.steps
    print("| training | before, s (rows) | a step, s | rows a step | peak MiB of steps | in all |\n|" + "---|" * 6)
    if not fewest:
        student = network_of(options.shapes)
        states = torch.randn(2, 77, student.config.cross_attention_dim, generator=torch.Generator().manual_seed(1))
        names = [name for name, _ in student.named_parameters() if ".attn2." in name]
        esd = Esd(student, deepcopy(student), (states[:1], states[1:]), names, 1.0)
        seconds, peak, top = measure(esd.step, steps)
        rows = esd.rows / (steps + 1)
        print(f"| ESD-x, its loop | 0 | {seconds:.3f} | {rows:.1f} | {peak:.0f} | {top:.0f} |", flush=True)
    for method in options.methods.split(","):
        made, denoiser, before, asked = erasure(network_of(options.shapes), method, fewest=fewest)
        done = iter(range(10**6))

        def step(made: Erasure = made, done: Any = done) -> None:
            number = next(done)
            made.step(number)
            made.move(number)

        seconds, peak, top = measure(step, steps)
        rows = denoiser.rows / (steps + 1)
        print(
            f"| {method} | {before:.1f} ({asked}) | {seconds:.3f} | {rows:.1f} | {peak:.0f} | {top:.0f} |", flush=True
        )


if __name__ == "__main__":
    main(sys.argv[1:])
