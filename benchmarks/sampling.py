"""Seconds for 64 images in 20 DDIM steps with guidance on two threads: `python benchmarks/sampling.py`."""

from __future__ import annotations

import statistics
import time

import torch

from publisher_emoji import caption, vocabulary
from publisher_emoji.generate import generate, load_pipeline


def main(repeats: int = 3) -> None:
    """Print load time, and the median of ``repeats`` batches after a warm-up."""
    torch.set_num_threads(2)
    began = time.perf_counter()
    pipeline = load_pipeline()
    print(f"load: {time.perf_counter() - began:.1f} s")
    prompts = [caption(name, "noto") for name in vocabulary().object_names[:64]]
    generate(pipeline, prompts, 0, steps=2)
    runs = []
    for seed in range(repeats):
        began = time.perf_counter()
        generate(pipeline, prompts, seed, steps=20, guidance=3.0)
        runs.append(time.perf_counter() - began)
    print(f"64 images, 20 steps, guidance 3: {statistics.median(runs):.1f} s (n = {repeats})")


if __name__ == "__main__":
    main()
