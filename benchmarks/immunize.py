"""Immunisation against the published loop: `python benchmarks/immunize.py`, and `--shapes sd15` for the merge alone.

A U-Net with the topology of SD 1.x (686 tensors, narrow) and a small text encoder, random weights, one thread. A step
is one pair, inner and outer, with two concepts: of the published loop written plainly
(`tests/publisher_immunize/naive_mima.py`: captions and prompts encoded one by one, an inverse for each layer, a forward
for each concept) and of ours, in turn; processor seconds a step, and the peak memory of a process that does only that.
First both make the same steps in float64, and the largest relative difference of what they trained is printed. Images
are cached latents on both sides: what the published loop spends on its autoencoder is left out. A mechanism, no
statement on Stable Diffusion, whose U-Net weighs far more.

`--shapes sd15`: the merge at the true shapes of SD 1.5's 32 projections, with captions that are already encoded.
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
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from publisher.api import Concept, Latents
from publisher.api.diffusion.denoiser import Denoiser
from publisher.api.diffusion.latents import Noising
from publisher.api.diffusion.process import read_process
from publisher.api.diffusion.text import Text
from publisher.model.folder import read_configs
from publisher.registry import load_registry
from publisher_emoji import model_folder
from publisher_immunize.adversary import Adversary
from publisher_immunize.data import ConceptBatch, ConceptImages, ImmunizeData
from publisher_immunize.denoiser import Denoising, PatchedDenoiser
from publisher_immunize.merge import KeptTokens, Merge
from publisher_immunize.params import ImmunizeParams
from publisher_immunize.train import Immunization

sys.path.append(str(Path(__file__).parent.parent / "tests" / "publisher_immunize"))
from naive_mima import Published

SCHEDULER = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
WIDTH, POSITIONS, LENGTH, SIZE = 128, 77, 12, 16
RATES = (1e-3, 1e-3)
NAMES = ("published", "ours")
SD15 = ((320, 10), (640, 10), (1280, 12))
"""Output width of SD 1.5's key and value projections, and how many there are."""


class Double(Denoiser):
    """Float64 in and out."""

    def __call__(self, x: Tensor, t: Tensor, text: Text) -> Tensor:
        """Return predictions."""
        out: Tensor = self.network(x, t, text.states, return_dict=False)[0]
        return out


def unet() -> UNet2DConditionModel:
    """Return an SD 1.x with a tenth of its channels."""
    torch.manual_seed(0)
    made = UNet2DConditionModel(
        sample_size=SIZE, block_out_channels=(32, 64, 128, 128), cross_attention_dim=WIDTH, attention_head_dim=8
    )
    return made.eval().requires_grad_(requires_grad=False)


@dataclass
class Texts:
    """A random text encoder and invented prompts; ``encode`` runs it, one text at a time."""

    network: CLIPTextModel
    ids: dict[str, Tensor]

    def encode(self, text: str) -> Tensor:
        """Return states ``(n, D)``."""
        with torch.no_grad():
            states: Tensor = self.network(self.ids[text][None]).last_hidden_state[0]
        return states


def texts(captions: int, dtype: torch.dtype) -> Texts:
    """Return two prompts of two concepts, a kept one, and captions."""
    torch.manual_seed(0)
    config = CLIPTextConfig(
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_attention_heads=4,
        num_hidden_layers=6,
        vocab_size=1000,
        max_position_embeddings=POSITIONS,
        bos_token_id=998,
        eos_token_id=999,
        pad_token_id=999,
    )
    names = ["a first", "a second", "kept", *(f"caption {i}" for i in range(captions))]
    generate = torch.Generator().manual_seed(1)
    ids = {}
    for name in names:
        row = torch.full((POSITIONS,), 999)
        row[0], row[1 : LENGTH - 1] = 998, torch.randint(998, (LENGTH - 2,), generator=generate)
        ids[name] = row
    return Texts(CLIPTextModel(config).eval().to(dtype), ids)


def training_data(known: Texts, dtype: torch.dtype) -> ImmunizeData:
    """Return the training data, encoded once."""
    generate = torch.Generator().manual_seed(2)

    def images(name: str) -> ConceptImages:
        latents = torch.randn(4, 4, SIZE, SIZE, generator=generate, dtype=torch.float64).to(dtype)
        concept = Concept(id=name.rpartition(" ")[2], name=name, prompts=(name,), label=name)
        return ConceptImages(concept, latents, {"name": (name,) * 4})

    states = {text: Text(known.encode(text)[None]) for text in known.ids}
    keep = tuple(text for text in states if not text.startswith("a "))
    concepts = (images("a first"), images("a second"))
    return ImmunizeData(
        concepts,
        (images("kept"),),
        keep,
        states,
        dict.fromkeys(states, LENGTH),
        Noising(read_process("DDIMScheduler", SCHEDULER)),
    )


@dataclass
class Contender:
    """One way to make a pair of steps."""

    step: Callable[[ConceptBatch, ConceptBatch], None]
    weights: Callable[[], dict[str, Tensor]]
    material: ImmunizeData


def contender(name: str, captions: int, dtype: torch.dtype) -> Contender:
    """Return a contender that is ready to make steps."""
    known = texts(captions, dtype)
    stuff = training_data(known, dtype)
    _, anatomy = load_registry().recognise(read_configs(model_folder()), "embedded:emoji")
    anatomy = replace(anatomy, latents=Latents(4, SIZE, SIZE))
    network = unet().to(dtype) if dtype != torch.float32 else unet()
    denoiser = (Double if dtype == torch.float64 else Denoiser)(network, anatomy)
    params = ImmunizeParams(
        bound=None,  # as published
        inner="cross-attention",
        first_order=True,
        inner_lr=RATES[0],
        lr=RATES[1],
        steps=1,
        batch=1,
        prior_batch=1,
    )
    if name == "published":
        loop = Published(
            denoiser.network,
            known.encode,
            lambda _: LENGTH,
            stuff.noising,
            (*stuff.keep_texts, "a first", "a second"),
            rates=RATES,
            ridge=params.merge.ridge,
        )
        return Contender(loop.step, lambda: loop.weights, stuff)
    host = PatchedDenoiser(denoiser)
    theta = {name: host.tensor(name).clone() for name in host.names if ".attn2." in name}
    run = Immunization(Denoising(host, stuff, params), theta, lambda _: torch.Generator())

    def step(inner: ConceptBatch, outer: ConceptBatch) -> None:
        adversary = Adversary("cross-attention", 2, run.denoising, torch.Generator().manual_seed(0))
        adversary.learn(run.theta, [inner])
        run.clip(run.outer(run.theta, adversary, outer, None, None).gradients)
        run.move(0)

    return Contender(step, lambda: run.theta, stuff)


def pair(made: Contender, seed: int, dtype: torch.dtype) -> tuple[ConceptBatch, ConceptBatch]:
    """Return the batches of one pair, the same for both."""
    found = []
    for turn, kept in enumerate((0, 1)):
        generate = torch.Generator().manual_seed(2 * seed + turn)
        batch = made.material.batch(made.material.concepts, "name", (1, kept), generate)
        found.append(ConceptBatch(batch.groups, batch.own, batch.x, batch.noise.to(dtype), batch.t, batch.texts))
    return found[0], found[1]


def difference(captions: int, steps: int) -> float:
    """Return the largest relative difference, over the tensors, of what the steps changed in float64."""
    both = [contender(name, captions, torch.float64) for name in NAMES]
    start = {name: value.detach().clone() for name, value in both[1].weights().items()}
    for made in both:
        for seed in range(steps):
            made.step(*pair(made, seed, torch.float64))
    theirs, ours = ({name: value.detach() for name, value in made.weights().items()} for made in both)
    return max(float((ours[n] - theirs[n]).norm() / (theirs[n] - start[n]).norm().clamp(min=1e-30)) for n in start)


def measure(name: str, captions: int, steps: int) -> tuple[float, float, float]:
    """Measure processor seconds to begin and for a step, and the peak MiB that steps add, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        found: tuple[float, float, float] = pool.apply(_measured, (name, captions, steps))
    return found


def _measured(name: str, captions: int, steps: int) -> tuple[float, float, float]:
    torch.set_num_threads(1)
    began = time.process_time()
    made = contender(name, captions, torch.float32)
    made.step(*pair(made, 0, torch.float32))
    first = time.process_time()
    for seed in range(steps):
        made.step(*pair(made, seed + 1, torch.float32))
    spent = (time.process_time() - first) / steps
    return first - began - spent, spent, _added(lambda: made.step(*pair(made, steps + 1, torch.float32)))


def _added(work: Callable[[], None]) -> float:
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


def shapes(rows: int, width: int = 768, m: int = 18) -> tuple[float, float, float, float]:
    """Return seconds of the published merge of all layers, of ours, of our set-up; relative difference in float64."""
    generate = torch.Generator().manual_seed(0)
    k, t = torch.randn(rows, width, generator=generate), torch.randn(2, m // 2, width, generator=generate)
    layers = [torch.randn(o, width, generator=generate) * 0.03 for o, count in SD15 for _ in range(count)]
    # What the copies of both concepts add to what is read from T; each to its own rows.
    added = [torch.randn(len(weight), m, generator=generate) * 1e-4 for weight in layers]
    began = time.process_time()
    merge = Merge(KeptTokens(k, 1e-4), list(t), 1e-3, 1e10)
    ready = time.process_time()
    _ = [merge.weight(weight, a) for weight, a in zip(layers, added, strict=True)]
    done = time.process_time()
    _ = [published_merge(weight, a, k, t.flatten(0, 1)) for weight, a in zip(layers, added, strict=True)]
    spent = time.process_time() - done
    weight, a = layers[0].double(), added[0].double()
    wanted = published_merge(weight, a, k.double(), t.flatten(0, 1).double()) - weight
    off = float((merge.weight(weight, a) - weight - wanted).norm() / wanted.norm())
    return spent, done - ready, ready - began, off


def published_merge(weight: Tensor, added: Tensor, k: Tensor, t: Tensor) -> Tensor:
    """Merge one layer as the authors do."""
    v = (weight @ t.T + added).T
    c = k.T @ k
    inverse = torch.linalg.inv(c + 1e-4 * c.diagonal().mean() * torch.eye(len(c), dtype=c.dtype))
    found: Tensor = weight + (v.T - weight @ t.T) @ torch.linalg.inv(t @ inverse @ t.T) @ t @ inverse
    return found


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--captions", type=int, default=200, help="that the merge regularises on, as the authors take")
    parser.add_argument("--steps", type=int, default=3, help="timed pairs of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shapes", choices=["sd15"], help="the merge alone, at these shapes")
    parser.add_argument("--rows", type=int, default=12_000, help="caption rows with --shapes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.shapes:
        published, ours, once, off = shapes(options.rows)
        print(
            f"merge of 32 projections, {options.rows} caption rows: published {published:.2f} s, ours {ours:.4f} s",
            end="",
        )
        print(f" ({published / ours:.0f} x) after {once:.2f} s once; first layer's change differs by {off:.1e}")
        return
    off = difference(min(options.captions, 50), 2)
    print(f"same steps in float64: largest relative difference {off:.1e}", flush=True)
    found = {name: [measure(name, options.captions, options.steps) for _ in range(options.rounds)] for name in NAMES}
    middle = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in found.items()}
    base = middle["published"]
    for name, (once, spent, memory) in middle.items():
        print(f"{name:10} {spent:7.3f} s a pair {base[1] / spent:6.1f} x   {once:6.2f} s once   {memory:6.0f} MiB more")


if __name__ == "__main__":
    main()
