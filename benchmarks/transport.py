"""What ten membranes cost at run time, as ratios to the same denoiser without them.

    OMP_NUM_THREADS=1 python benchmarks/transport.py            # the embedded model
    OMP_NUM_THREADS=1 python benchmarks/transport.py --sd1 1    # also a UNet as large as Stable Diffusion 1.x, 1 prompt

Process CPU seconds of a forward pass with guidance (batch: twice the prompts), in pairs with and without membranes,
one after the other; the median of the pairs' ratios. ``shut`` has the hooks, with permeability 0. Scoring is once a
call, whatever the steps: milliseconds for 8 prompts beside those that the encoder takes for them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from publisher.api.membranes import Branch, Membrane, MembraneEntry, Transport
from publisher.safeguards.membranes.attached import attach
from publisher.safeguards.membranes.hosts import live_hosts
from publisher_emoji import vocabulary
from publisher_emoji.generate import load_pipeline

MEMBRANES = 10
TEXT_WIDTH = 128
"""Of the embedded model, which reads fewer tokens."""
SD1 = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "layers_per_block": 2,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}
"""Of Stable Diffusion 1.x."""


def members(unet: Any) -> list[tuple[MembraneEntry, Membrane]]:
    """Return ten membranes of rank 1 with random factors, on all hosts."""
    hosts = [host for host, _ in live_hosts(unet).values()]
    names = vocabulary().object_names[:MEMBRANES]
    return [
        (
            MembraneEntry(concept=name, file="m.safetensors", sha256="0" * 64, words=(name,), texts=(name,), rank=1),
            Membrane(
                {
                    host.stem: Branch(
                        torch.randn(1, host.shape[1]), 0.01 * torch.randn(host.shape[0], 1), 1.0, len(host.shape) == 4
                    )
                    for host in hosts
                }
            ),
        )
        for name in names
    ]


def seconds(action: Callable[[], object]) -> float:
    """Process CPU seconds of one run."""
    start = time.process_time()
    action()
    return time.process_time() - start


def forward(unet: Any, prompts: int, pairs: int) -> dict[str, float]:
    """Return ratios of a forward pass with membranes to one without, and the milliseconds of the latter."""
    size, width = unet.config.sample_size, unet.config.cross_attention_dim
    pipeline = load_pipeline()
    tokens = pipeline.tokenizer.model_max_length if width == TEXT_WIDTH else 77
    inputs = torch.randn(2 * prompts, 4, size, size), 10, torch.randn(2 * prompts, tokens, width)
    gamma = torch.rand(prompts, MEMBRANES)
    found: dict[str, list[float]] = {"base ms": [], "shut": [], "open": []}
    pipeline.unet = double(unet)
    with attach(pipeline, members(unet), Transport(score="overlap")) as attached:
        for _ in range(pairs + 1):
            base = seconds(lambda: unet(*inputs))
            found["base ms"].append(1000 * base)
            for name, strengths in (("shut", 0 * gamma), ("open", gamma)):
                with attached.at(strengths):
                    found[name].append(seconds(lambda: pipeline.unet(*inputs)) / base)
    return {name: statistics.median(values[1:]) for name, values in found.items()}


def double(unet: Any) -> Any:
    """Return another denoiser with the same weights in memory."""
    with torch.device("meta"):
        other = type(unet)(**unet.config)
    other.load_state_dict(unet.state_dict(), assign=True)
    return other.eval()


def scoring(prompts: int = 8, repeats: int = 20) -> tuple[float, float]:
    """Return the milliseconds to encode prompts, and to score what was encoded against ten concepts."""
    pipeline = load_pipeline()
    texts = [f"a {name} emoji" for name in vocabulary().object_names[-prompts:]]
    with attach(pipeline, members(pipeline.unet)) as attached:
        attached.permeabilities(texts)  # encodes the concepts
        both = statistics.median(seconds(lambda: attached.permeabilities(texts)) for _ in range(repeats))
    encode = statistics.median(seconds(lambda: pipeline.encode_prompt(texts, "cpu", 1, False)) for _ in range(repeats))
    return 1000 * encode, 1000 * max(0.0, both - encode)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sd1", type=int, nargs="*", default=[], metavar="PROMPTS", help="numbers of prompts")
    parser.add_argument("--pairs", type=int, default=5, help="of the large denoiser")
    options = parser.parse_args()
    torch.manual_seed(0)
    print("denoiser  prompts   base ms    shut    open")
    with torch.inference_mode():
        small = load_pipeline().unet
        for prompts, pairs in ((1, 60), (8, 30)):
            report("embedded", prompts, forward(small, prompts, pairs))
        large = sd1() if options.sd1 else None
        for prompts in options.sd1:
            report("SD 1.x", prompts, forward(large, prompts, options.pairs))
    encode, score = scoring()
    print(f"encoding 8 prompts {encode:.2f} ms, scoring them {score:.2f} ms")


def sd1() -> Any:
    """Return a denoiser of the size of Stable Diffusion 1.x with random weights."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(**SD1)
    unet = unet.to_empty(device="cpu").eval()
    for weight in unet.parameters():
        torch.nn.init.normal_(weight, 0, 0.02) if weight.ndim > 1 else torch.nn.init.ones_(weight)
    return unet


def report(name: str, prompts: int, found: dict[str, float]) -> None:
    """Print one row."""
    print(f"{name:8} {prompts:8} {found['base ms']:9.1f} {found['shut']:7.3f} {found['open']:7.3f}", flush=True)


if __name__ == "__main__":
    main()
