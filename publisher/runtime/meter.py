"""How far work is, told from inside of it: generating tells each sampling step, however it was started in this process.

Work that an executor runs elsewhere tells nothing on the way; then only finished pieces count.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

_open: list[Meter] = []


def advance(units: float) -> None:
    """Tell every open meter that so much more is done: images, parts of images, training steps."""
    for meter in tuple(_open):
        meter.add(units)


class Meter:
    """Counts what is done inside its ``with`` block, by any thread, and passes it on.

    Args:
        tell: is given done, total and text.
        total: pieces of work.
        text: a line to show.
    """

    def __init__(self, tell: Callable[[int, int, str], None], total: int, text: str) -> None:
        self._tell, self._total, self.text = tell, total, text
        self._settled, self._part = 0, 0.0
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self.settle(0)
        _open.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _open.remove(self)

    def add(self, units: float) -> None:
        """Count work that is under way until :meth:`settle` says what is finished."""
        with self._lock:
            self._part += units
            done = self._settled + int(self._part)
        self._tell(max(self._settled, min(done, self._total - 1)), self._total, self.text)

    def settle(self, pieces: int) -> None:
        """Count pieces that are finished; parts that were told on the way are among them."""
        with self._lock:
            self._settled, self._part = self._settled + pieces, 0.0
        self._tell(self._settled, self._total, self.text)
