"""A signal ends a command, wherever it arrives."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

import pytest

from publisher.cli import interrupts
from publisher.cli.console import Terminal
from publisher.errors import Terminated


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in interrupts.RAISES}
    interrupts.listen()
    yield
    interrupts.listen()
    for number, handler in before.items():
        signal.signal(number, handler)


class Swallows:
    """Sends its own process a signal where Python can only print the exception that it raises."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        with contextlib.suppress(BaseException):
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize(("number", "error"), [(signal.SIGTERM, Terminated), (signal.SIGINT, KeyboardInterrupt)])
def test_a_swallowed_signal_ends_the_command_at_the_next_progress(number: int, error: type[BaseException]) -> None:
    Swallows(number)
    with Terminal(quiet=True) as terminal, pytest.raises(error):
        terminal.update("generate", 1, 2)


def test_without_a_signal_progress_goes_on() -> None:
    with Terminal(quiet=True) as terminal:
        terminal.update("generate", 1, 2)


def test_a_new_command_has_forgotten_the_old_ones_signal() -> None:
    Swallows(signal.SIGTERM)
    interrupts.listen()
    interrupts.check()
