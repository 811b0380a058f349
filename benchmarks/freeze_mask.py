"""The freeze mask against the published loop: `python benchmarks/freeze_mask.py`.

A U-Net with the topology of SD 1.x (686 tensors, narrow), a small autoencoder and text encoder, random weights, one
thread. A cycle is one mask step and four steps of the simulated user, batch 8: of the published loop written plainly
(`tests/publisher_freeze_mask/naive_freeze.py`: images and captions encoded for each batch, the mask moved tensor by
tensor with copies), of ours (`recipe: released`: both encoded once, one dot product a tensor as soon as its gradient is
there), and of ours without the user, who moves nothing. `path` is one backward of the scores, of the same batch.
Processor seconds, and the peak memory that a process needs beyond the weights of theta_pre. First both loops run two
cycles in float64, and the largest difference of their logits and the number of masks' tensors that differ are printed.
A mechanism, no statement on Stable Diffusion.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from publisher.api.diffusion.latents import Noising, encode_images
from publisher.api.diffusion.process import read_process
from publisher.api.freeze_mask import Candidate
from publisher_freeze_mask.freezeasguard import released
from publisher_freeze_mask.mixing import Loss, MixedNetwork
from publisher_freeze_mask.params import ReleasedParams
from publisher_freeze_mask.units import Units

sys.path.append(str(Path(__file__).parent.parent / "tests" / "publisher_freeze_mask"))
from naive_freeze import Encoders, Published, Rates, Rows

SCHEDULER = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
WIDTH, POSITIONS, SIZE, BATCH, RHO = 128, 77, 16, 8, 0.2
PARAMS = ReleasedParams(steps=5)
NAMES = ("published", "ours", "ours, no user", "path")


@dataclass
class Scene:
    """Networks, theta_ft, and batches."""

    network: UNet2DConditionModel
    vae: AutoencoderKL
    text: CLIPTextModel
    delta: dict[str, Tensor]
    noising: Noising
    dtype: torch.dtype

    def predict(self, x: Tensor, t: Tensor, states: Tensor) -> Tensor:
        """Run the U-Net."""
        out: Tensor = self.network(x, t, states, return_dict=False)[0]
        return out

    def image(self, images: Tensor) -> Tensor:
        """Return latents."""
        return encode_images(self.vae, images).to(self.dtype)

    def states(self, ids: Tensor) -> Tensor:
        """Return the states of captions."""
        with torch.no_grad():
            found: Tensor = self.text(ids).last_hidden_state
        return found

    def rows(self, seed: int) -> Rows:
        """Return a batch as it lies on the disk, half of it illegal."""
        generate = torch.Generator().manual_seed(seed)
        images = torch.rand(BATCH, 3, 8 * SIZE, 8 * SIZE, generator=generate).to(self.dtype)
        noise = torch.randn(BATCH, 4, SIZE, SIZE, generator=generate).to(self.dtype)
        ids = torch.randint(99, (BATCH, POSITIONS), generator=generate)
        t = torch.randint(1000, (BATCH,), generator=generate)
        return Rows(images, ids, noise, t, torch.arange(BATCH) < BATCH // 2)


def scene(dtype: torch.dtype) -> Scene:
    """Return a scene with random weights."""
    torch.manual_seed(0)
    network = UNet2DConditionModel(
        sample_size=SIZE, block_out_channels=(32, 64, 128, 128), cross_attention_dim=WIDTH, attention_head_dim=8
    )
    vae = AutoencoderKL(
        block_out_channels=(16, 32, 64, 64),
        layers_per_block=2,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=8,
    )
    text = CLIPTextModel(
        CLIPTextConfig(
            hidden_size=WIDTH,
            intermediate_size=512,
            num_attention_heads=4,
            num_hidden_layers=12,
            vocab_size=100,
            max_position_embeddings=POSITIONS,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
        )
    )
    for part in (network, vae, text):
        part.to(dtype).eval().requires_grad_(requires_grad=False)
    delta = {name: 0.01 * torch.randn_like(tensor) for name, tensor in network.named_parameters()}
    return Scene(network, vae, text, delta, Noising(read_process("DDIMScheduler", SCHEDULER)), dtype)


@dataclass
class Ours:
    """The step's own code on a scene; latents and states encoded before."""

    scene: Scene
    place: MixedNetwork
    units: Units

    @classmethod
    def of(cls, made: Scene) -> Ours:
        """Return a loop at theta_pre, which is read from a copy, as from the disk."""
        before = {name: tensor.detach().clone() for name, tensor in made.network.named_parameters()}
        units = Units({name: Candidate(shape=tuple(value.shape)) for name, value in before.items()})
        return cls(made, MixedNetwork(made.network, before.__getitem__, {}), units)

    def losses(self, rows: Rows) -> tuple[Loss, Loss]:
        """Return the losses, illegal and innocent; encode the batch."""
        x, states = self.scene.image(rows.images), self.scene.states(rows.ids)
        x = self.scene.noising.noisy(x, rows.noise, rows.t)

        def loss(part: Tensor) -> Tensor:
            return (self.scene.predict(x[part], rows.t[part], states[part]) - rows.noise[part]).square().mean()

        return (lambda: loss(rows.illegal)), (lambda: loss(~rows.illegal))

    def run(self, batches: list[tuple[Loss, Loss]], params: ReleasedParams) -> tuple[Tensor, Tensor]:
        """Run ``recipe: released``; return the logits before and after."""
        turns = iter(batches)

        def generate() -> tuple[Loss, Loss]:
            bad, good = next(turns)
            return (lambda: (good() - bad()) / 2), (lambda: (good() + bad()) / 2)

        generates = torch.Generator().manual_seed(0)
        return released(self.place, self.units, self.scene.delta, generate, rho=RHO, params=params, generator=generates)


def published(made: Scene, x: Tensor) -> Published:
    """Run the authors' loop on a scene."""
    after = {name: tensor.detach() + made.delta[name] for name, tensor in made.network.named_parameters()}
    encoders = Encoders(made.image, made.states, made.noising.noisy)
    rates = Rates(RHO, PARAMS.c_sparsity, PARAMS.mask_lr, PARAMS.user_lr, PARAMS.temperature)
    return Published(made.network, made.predict, after, encoders, x, rates)


def cycle(loop: Published, batches: list[Rows]) -> None:
    """Make one mask step, then the user's."""
    for turn, rows in enumerate(batches):
        (loop.user_step if turn % PARAMS.interval else loop.publisher_step)(rows)


def difference(cycles: int) -> tuple[float, int]:
    """Compare both loops in float64: logits at most, tensors whose mask differs."""
    made = scene(torch.float64)
    batches = [made.rows(seed) for seed in range(cycles * PARAMS.interval)]
    ours = Ours.of(scene(torch.float64))
    params = PARAMS.model_copy(update={"steps": len(batches)})
    start, x = ours.run([ours.losses(rows) for rows in batches], params)
    order = [ours.units.keys.index((name, (0, 0))) for name, _ in made.network.named_parameters()]
    theirs = published(made, start[order])
    cycle(theirs, batches)
    other = torch.stack(theirs.x)
    return float((x[order] - other).abs().max()), int(((x[order] > 0) != (other > 0)).sum())


def contender(name: str) -> Callable[[], object]:
    """Return what is timed."""
    made = scene(torch.float32)
    rows = [made.rows(seed) for seed in range(PARAMS.interval)]
    if name == "published":
        loop = published(made, torch.rand(len(made.delta)))
        return lambda: cycle(loop, rows)
    ours = Ours.of(made)
    batches = [ours.losses(one) for one in rows]
    if name == "path":
        bad, good = batches[0]
        return lambda: ours.place.slopes(made.delta, lambda: (bad() + good()) / 2)
    params = PARAMS if name == "ours" else PARAMS.model_copy(update={"steps": 1})
    return lambda: ours.run(batches, params)


def _measured(name: str, repeats: int) -> tuple[float, float]:
    torch.set_num_threads(1)
    run = contender(name)
    run()
    began = time.process_time()
    for _ in range(repeats):
        run()
    spent = (time.process_time() - began) / repeats
    return spent, _added(run)


def _added(work: Callable[[], object]) -> float:
    """Return MiB of memory that it needs at most beyond what there is, looked at every millisecond."""
    over, found = threading.Event(), [_resident()]

    def look() -> None:
        while not over.wait(0.001):
            found.append(_resident())

    eye = threading.Thread(target=look)
    eye.start()
    work()
    over.set()
    eye.join()
    return max(found) - found[0]


def _resident() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def measure(name: str, repeats: int) -> tuple[float, float]:
    """Measure processor seconds and MiB, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found: tuple[float, float] = pool.apply(_measured, (name, repeats))
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=2, help="timed cycles of each round")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    off, wrong = difference(2)
    print(f"same steps in float64: logits differ by {off:.1e} at most, the masks in {wrong} tensors", flush=True)
    found = {name: [measure(name, options.repeats) for _ in range(options.rounds)] for name in NAMES}
    middle = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in found.items()}
    for name, (spent, memory) in middle.items():
        ratio = middle["published"][0] / spent
        print(f"{name:14} {spent:7.3f} s {ratio:6.2f} x   {memory:6.0f} MiB more")


if __name__ == "__main__":
    main()
