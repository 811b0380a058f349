"""SIGINT and SIGTERM end a command even where a library swallows the exception that they raise.

Python raises a handler's exception wherever the main thread happens to be: inside a finaliser or a callback from native
code it is printed or replaced and the work goes on. So the signal is remembered, and progress raises it again.
"""

from __future__ import annotations

import signal
import time
from types import FrameType

from publisher.errors import Terminated

RAISES: dict[int, type[BaseException]] = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated}
TWICE_S = 1.0
"""Seconds in which a second signal is the same wish: Ctrl-C reaches this process and its parent, which passes it on."""
_arrived: list[tuple[int, float]] = []


def listen() -> None:
    """Let both signals raise from here on, and remember them. In the main thread only, as Python asks."""
    _arrived.clear()
    for number in RAISES:
        signal.signal(number, _handle)


def check() -> None:
    """Raise again what has arrived: called wherever a command tells its progress.

    Raises:
        KeyboardInterrupt, Terminated: the signal arrived, now or earlier.
    """
    if _arrived:
        raise RAISES[_arrived[-1][0]]


def _handle(number: int, _frame: FrameType | None) -> None:
    now = time.monotonic()
    if _arrived and now - _arrived[-1][1] < TWICE_S:
        return
    _arrived.append((number, now))
    raise RAISES[number]
