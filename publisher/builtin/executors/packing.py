"""What goes to another process and comes back: bytes of a plain pickle.

multiprocessing would hand tensors over through shared memory and sockets, which containers often have little of.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

from publisher.api.world import R, T


def packed(function: Callable[[T], R], task: T) -> bytes:
    """Return what :func:`perform_packed` calls."""
    return pickle.dumps((function, task))


def perform_packed(work: bytes) -> bytes:
    """Call a function with its task, and return its result packed."""
    function, task = pickle.loads(work)  # noqa: S301 - packed by the process that releases
    return pickle.dumps(function(task))


def unpacked(result: bytes) -> Any:
    """Return the result that was packed."""
    return pickle.loads(result)  # noqa: S301 - packed by a worker of ours
