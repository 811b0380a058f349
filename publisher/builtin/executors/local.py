"""Where the evaluation runs: here, one task after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from publisher.api import Executor, NoParams
from publisher.api.world import R, T


class Local(Executor[NoParams]):
    """This process, one task after the other; the model is loaded once."""

    name = "local"
    version = "1"
    summary = "in this process"

    def map(self, function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
        """Return ``function`` of each task, lazily: the next one starts when its result is asked for."""
        return map(function, tasks)
