"""Small work on several processor cores: one piece a thread, because one small matrix is no work for two."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from publisher.runtime.generate import batch_size

SMALL = 4096
"""Latent pixels of a batch up to which batches are generated side by side."""
MOST_WORKERS = 8
APART = 12
"""Images from which on it is worth while to halve a batch."""
T = TypeVar("T")
R = TypeVar("R")


def workers_for(latent: tuple[int, int], device: str) -> int:
    """Return how many batches of such latents to generate at the same time; 1: one by all threads."""
    return min(MOST_WORKERS, cores()) if device == "cpu" and is_small(latent) else 1


def is_small(latent: tuple[int, int]) -> bool:
    """Return whether one batch of such latents leaves most of a second processor core idle."""
    return batch_size(latent) * latent[0] * latent[1] <= SMALL


def fair_batch(latent: tuple[int, int], device: str, count: int) -> int:
    """Return how many of ``count`` images to generate at once: small ones in an even number of equal batches.

    How many cores there are does not matter, as the last bits of an image depend on its batch.
    """
    most = batch_size(latent)
    if count < APART or device != "cpu" or not is_small(latent):
        return most
    return -(-count // (2 * -(-count // (2 * most))))


def threads_of(device: str, workers: int) -> int:
    """Return how many threads keep busy with so many pieces of work; several pieces have one thread each."""
    import torch

    if workers > 1:
        return workers
    return 1 if device == "cuda" else torch.get_num_threads()


def cores() -> int:
    """Return the processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS


def one_thread_each(function: Callable[[T], R], items: Sequence[T], workers: int) -> list[R]:
    """Call ``function`` with each item, ``workers`` at a time, one torch thread each; in the items' order."""
    import torch

    before = torch.get_num_threads()

    def alone(item: T) -> R:
        torch.set_num_threads(1)  # of this thread
        return function(item)

    try:
        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(alone, items))
    finally:
        torch.set_num_threads(before)  # what threads started later begin with
