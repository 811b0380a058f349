"""The executor ``processes``: processes of this machine, one for each GPU, or a few on its processor cores."""

from __future__ import annotations

import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from queue import Queue
from threading import Thread
from typing import Any

from pydantic import Field

from publisher.api import Executor, Params, PluginError
from publisher.api.world import R, T
from publisher.builtin.executors.packing import packed, perform_packed, unpacked

VISIBLE = "CUDA_VISIBLE_DEVICES"


class ProcessesParams(Params):
    """Parameters of the executor ``processes``."""

    workers: int | None = Field(default=None, ge=1, le=256)
    """Number of processes. Default: one for each GPU; without one as many as tasks fit on the processor cores."""
    tries: int = Field(default=3, ge=1, le=100)
    """Number of times that a task is begun when the process that does it is killed."""


@dataclass
class _Waiting:
    """A task that was handed to the pool."""

    work: bytes
    future: Future[bytes]
    tries: int = 1


class Processes(Executor[ProcessesParams]):
    """Sends tasks to processes of this machine. Each loads the models for itself, and stays until all is measured.

    They start empty (spawn). A process that is killed is replaced, and its task is begun again.
    """

    name = "processes"
    version = "1"
    summary = "in processes of this machine, one for each GPU"

    def __init__(self, params: ProcessesParams | None = None) -> None:
        super().__init__(params)
        self.workers = 0
        """Processes that the pool has; 0: there is none yet."""
        self._pool: ProcessPoolExecutor | None = None
        self._device = "cpu"

    def map(self, function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
        """Yield ``function`` of each task, in the order of the tasks; at most two for each process are under way.

        Raises:
            PluginError: the process that does a task was killed each time.
        """
        waiting: deque[_Waiting] = deque()
        for task in tasks:
            self._require_pool(task)
            waiting.append(self._begin(packed(function, task)))
            if len(waiting) >= 2 * self.workers:
                yield self._first(waiting)
        while waiting:
            yield self._first(waiting)

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def _first(self, waiting: deque[_Waiting]) -> Any:
        """Wait for the result of the task in front, and take it out."""
        while True:
            try:
                result = unpacked(waiting[0].future.result())
            except BrokenProcessPool as error:
                self._begin_again(waiting, error)
            else:
                waiting.popleft()
                return result

    def _begin(self, work: bytes) -> _Waiting:
        if self._pool is None:
            raise RuntimeError("there is no pool")
        try:
            return _Waiting(work, self._pool.submit(perform_packed, work))
        except BrokenProcessPool as error:
            failed: Future[bytes] = Future()
            failed.set_exception(error)
            return _Waiting(work, failed)

    def _begin_again(self, waiting: deque[_Waiting], error: BrokenProcessPool) -> None:
        """Replace a broken pool, and hand it all that has no result.

        Nobody knows which task the killed process did. It was one of the first ones: there are as many as processes.
        """
        self.close()
        self._open()
        lost = [one for one in waiting if one.future.cancelled() or one.future.exception() is not None]
        for place, one in enumerate(lost):
            tries = one.tries + (place < self.workers)
            if tries > self.params.tries:
                raise PluginError(
                    f"a process was killed each of the {one.tries} times that a task was begun",
                    hint="Was there too little memory? Fewer workers need less.",
                ) from error
            one.future, one.tries = self._begin(one.work).future, tries

    def _require_pool(self, task: object) -> None:
        if self._pool is None:
            self._device = getattr(task, "device", "cpu")
            self.workers = self.params.workers or default_workers(self._device, getattr(task, "threads", 1))
            self._open()

    def _open(self) -> None:
        context = get_context("spawn")
        given: tuple[Any, ...] = ()
        if self._device == "cuda":
            devices, names = context.Queue(), gpus()
            for number in range(self.workers):
                devices.put(names[number % len(names)])
            given = (devices,)
        self._pool = ProcessPoolExecutor(self.workers, context, _begin_worker, given)


def default_workers(device: str, threads: int) -> int:
    """Return one worker for each GPU, or as many as tasks of so many threads fit on the processor cores.

    Args:
        device: ``"cpu"`` or ``"cuda"``.
        threads: processor threads that a task keeps busy.
    """
    if device == "cuda":
        return len(gpus())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // threads)


def gpus() -> list[str]:
    """Return the names by which processes see one GPU each: those that this process sees, at least one."""
    import torch

    visible = [name for name in os.environ.get(VISIBLE, "").split(",") if name]
    return visible or [str(number) for number in range(max(1, torch.cuda.device_count()))]


def _begin_worker(devices: Queue[str] | None = None) -> None:
    """Set up a worker: its GPU, no signals of the terminal, nothing on stdout, and an end when its parent is gone."""
    if devices is not None:
        os.environ[VISIBLE] = devices.get()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who releases decides what an interrupt ends
    sys.stdout.flush()
    os.dup2(2, 1)  # stdout is the release's result
    parent = parent_process()
    if parent is not None:
        Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    """Wait until the process that releases has ended, however that was, and end this one."""
    connection.wait([sentinel])
    os._exit(1)
