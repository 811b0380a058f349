"""Work for the processes of an executor: functions that a process which starts empty can import."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from publisher.api import hookimpl
from publisher.builtin.executors.processes import Processes


@dataclass(frozen=True)
class Chore:
    """A task that needs no model."""

    number: int
    folder: Path = field(default_factory=Path)
    """Where a process leaves word of what it did."""
    device: str = "cpu"
    threads: int = 1


def doubled(chore: Chore) -> int:
    """Return twice the number."""
    return 2 * chore.number


def process_of(chore: Chore) -> tuple[int, str]:
    """Return which process does it, and what it sees of GPUs."""
    return os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES", "")


def killed_once(chore: Chore) -> int:
    """Return twice the number; the process that first does number 3 is killed."""
    mark = chore.folder / "killed"
    if chore.number == 3 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return doubled(chore)


def always_killed(chore: object) -> None:
    """Kill the process that does it."""
    os.kill(os.getpid(), signal.SIGKILL)


def printing(chore: Chore) -> int:
    """Print something, and return twice the number."""
    os.write(1, b"what a worker prints\n")
    return doubled(chore)


@dataclass(frozen=True)
class KilledOnce:
    """A function whose process is killed the first time that it is called."""

    function: Callable[[Any], Any]
    mark: Path
    """Tells that it was called."""

    def __call__(self, task: Any) -> Any:
        if not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.function(task)


class Risky(Processes):
    """Processes, of which the first one to do a task is killed."""

    mark = Path()

    def map(self, function: Callable[[Any], Any], tasks: Iterable[Any]) -> Iterator[Any]:
        return super().map(KilledOnce(function, self.mark), tasks)


class Doomed(Processes):
    """Does its first tasks here, such as a release's trial image; then it has processes that are killed."""

    name = "doomed"
    begun = False

    def map(self, function: Callable[[Any], Any], tasks: Iterable[Any]) -> Iterator[Any]:
        first, self.begun = not self.begun, True
        return map(function, tasks) if first else super().map(always_killed, tasks)


@hookimpl
def publisher_register_executors() -> list[type[Processes]]:
    """Register what a release is given to fail with."""
    return [Doomed]
