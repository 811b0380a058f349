"""Send tasks to the executor. What it raises, or leaves out, is a failure of its own: *unknown*, with a report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

from publisher.api import Executor
from publisher.errors import CRASHES
from publisher.evaluate.context import Unmeasured
from publisher.evaluate.requests import one_line

T = TypeVar("T")
R = TypeVar("R")


def dispatch(
    executor: Executor[Any], function: Callable[[T], R], tasks: Sequence[T], fits: Callable[[T, R], bool]
) -> Iterator[R]:
    """Yield the result of each task, as results come.

    Args:
        executor: where the tasks run.
        function: what is done with each.
        tasks: in the order of their results.
        fits: tells whether something is a result of a task.

    Raises:
        Unmeasured: the executor crashed, gave another number of results than there were tasks, or something else. What
            it gave before has been yielded.
    """
    results = _asked(executor, lambda: iter(executor.map(function, tasks)))
    for done, task in enumerate(tasks):
        found = _asked(executor, lambda: list(islice(results, 1)))
        if not found:
            raise Unmeasured(f"the executor {executor.name!r} gave {done} of {len(tasks)} results")
        if not fits(task, found[0]):
            raise Unmeasured(f"the executor {executor.name!r} gave something else than the result of its task")
        yield found[0]
    if _asked(executor, lambda: list(islice(results, 1))):
        raise Unmeasured(f"the executor {executor.name!r} gave more results than it had tasks")


@contextmanager
def closed_after(executor: Executor[Any], warn: Callable[[str], None]) -> Iterator[None]:
    """Close the executor when the block ends; what it raises then becomes a warning."""
    try:
        yield
    finally:
        try:
            executor.close()
        except CRASHES as error:
            warn(f"the executor {executor.name!r} was not closed: {one_line(error)}")


def _asked(executor: Executor[Any], ask: Callable[[], R]) -> R:
    try:
        return ask()
    except CRASHES as error:
        raise Unmeasured(f"the executor {executor.name!r} failed: {one_line(error)}") from error
