"""Send tasks to the executor. What it raises, or leaves out, is a failure of its own: *unknown*, with a report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeVar

from publisher.api import Executor, Task
from publisher.errors import CRASHES
from publisher.evaluate.context import Unmeasured
from publisher.evaluate.requests import one_line
from publisher.runtime.numerics import Numerics, numerics

T = TypeVar("T", bound=Task)
R = TypeVar("R")
A = TypeVar("A")


@dataclass(frozen=True)
class Answer(Generic[R]):
    """The result of a task, and the fingerprint of the machine that it comes from."""

    result: R
    numerics: Numerics


@dataclass(frozen=True)
class Fingerprinted(Generic[T, R]):
    """A function whose results carry the numerics of their machine. It can be pickled where the function can."""

    function: Callable[[T], R]
    threads: int
    """Threads that torch uses for one operation here: with another number the last bits can differ."""

    def __call__(self, task: T) -> Answer[R]:
        """Perform a task as the process that sends it would perform it."""
        import torch

        before = torch.get_num_threads()
        if before != self.threads:
            torch.set_num_threads(self.threads)
        try:
            return Answer(self.function(task), numerics(task.device))
        finally:
            if before != self.threads:
                torch.set_num_threads(before)


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
        Unmeasured: the executor crashed, gave another number of results than there were tasks, or something else, or a
            result of a machine whose numerics differ from those of this one. What it gave before has been yielded.
    """
    import torch

    asked = Fingerprinted(function, torch.get_num_threads())
    results = _asked(executor, lambda: iter(executor.map(asked, tasks)))
    for done, task in enumerate(tasks):
        found = _asked(executor, lambda: list(islice(results, 1)))
        if not found:
            raise Unmeasured(f"the executor {executor.name!r} gave {done} of {len(tasks)} results")
        answer = found[0]
        if not isinstance(answer, Answer) or not fits(task, answer.result):
            raise Unmeasured(f"the executor {executor.name!r} gave something else than the result of its task")
        _require_equal(executor, numerics(task.device), answer.numerics)
        yield answer.result
    if _asked(executor, lambda: list(islice(results, 1))):
        raise Unmeasured(f"the executor {executor.name!r} gave more results than it had tasks")


def _require_equal(executor: Executor[Any], here: Numerics, there: object) -> None:
    """Refuse results of other numerics: they would be kept, and compared, as if they had been made here."""
    difference = here.difference(there) if isinstance(there, Numerics) else "it does not say what it computes with"
    if difference:
        raise Unmeasured(
            f"the executor {executor.name!r} gave a result of a machine whose numerics differ: {difference}"
        )


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


def _asked(executor: Executor[Any], ask: Callable[[], A]) -> A:
    try:
        return ask()
    except CRASHES as error:
        raise Unmeasured(f"the executor {executor.name!r} failed: {one_line(error)}") from error
