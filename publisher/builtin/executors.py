"""Where verification runs: here, one task after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from publisher.api import Executor
from publisher.api.world import R, T


class Local(Executor):
    """This process; the model is loaded once and does one batch after the other."""

    name = "local"
    version = "1"
    summary = "in this process, one batch after the other"

    def map(self, function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
        """``function`` of each task, lazily: the next one starts when its result is asked for."""
        return map(function, tasks)


EXECUTORS: tuple[type[Executor], ...] = (Local,)
