"""Processor threads for networks so small that several threads on one matrix cost more than they bring.

One thread takes one part of a training step, another one what does not depend on it, such as the frozen forward. For
the embedded model that is more than twice as fast as two threads on all (``docs/explanation/membranes.md``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch

SMALL = 256
"""Latent pixels of one image up to which a network counts as small, on a CPU."""

Work = Callable[[], Any]
Aside = Callable[[Work], Work]
"""Function that starts work, and returns a function that waits for its result."""


def is_small(device: torch.device, size: tuple[int, int]) -> bool:
    """Return whether one thread at a time should run a denoiser of latents of this height and width."""
    return device.type == "cpu" and size[0] * size[1] <= SMALL


def at_once(work: Work) -> Work:
    """Run the work now, in this thread."""
    result = work()
    return lambda: result


@contextmanager
def one_thread_each() -> Iterator[Aside]:
    """Give one thread to what is done inside, and another one to what is put aside."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield lambda work: pool.submit(work).result
    finally:
        torch.set_num_threads(before)
