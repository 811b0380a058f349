"""A parent process for a command: success is what the command itself says, and nothing else.

``os._exit(0)`` in a plugin, ``exit(0)`` in a library or a crash leave no exception that could be caught. So the command
runs in a child, forked before anything heavy is imported, and tells its exit code through a pipe. The child stays in
the terminal's process group: Ctrl-C and Ctrl-Z reach both, and what reaches the parent alone is passed on. If the
parent dies, so does the child.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from publisher.cli.output import note
from publisher.errors import ExitCode

PASSED_ON = (signal.SIGINT, signal.SIGTERM)


def supervised(program: Callable[[], NoReturn]) -> int:
    """Run a program that ends with ``SystemExit`` in a child, and return its exit code.

    Returns:
        The code that the program said; ``UNDECIDED``, with a message, if something else ended the process.
    """
    said, tell = os.pipe()
    watched, held = os.pipe()
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
    child = os.fork()
    if child == 0:
        os.close(said)
        os.close(held)
        _end_with_parent(watched)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
        _run(program, tell)
    os.close(tell)
    os.close(watched)
    _pass_on(child)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    _, status = os.waitpid(child, 0)
    os.set_blocking(said, False)  # a process that the command has left behind may hold the other end
    try:
        word = os.read(said, 1)
    except BlockingIOError:
        word = b""
    return _code(word, os.waitstatus_to_exitcode(status))


def _run(program: Callable[[], NoReturn], tell: int) -> NoReturn:
    try:
        program()
    except SystemExit as end:
        os.write(tell, bytes([int(end.code or 0)]))
        raise


def _end_with_parent(watched: int) -> None:
    """Kill this process when the parent's end of the pipe is closed: by its death alone."""

    def watch() -> None:
        os.read(watched, 1)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _pass_on(child: int) -> None:
    def send(number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    for number in PASSED_ON:
        signal.signal(number, send)


def _code(word: bytes, code: int) -> int:
    """Return the exit code for what the child said, if anything, and how it ended (negative: by a signal)."""
    if word:
        return max(code, 0) or word[0]
    if -code in PASSED_ON:
        return 128 - code
    how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}, by a plugin or a library"
    hint = "\n  Often this is the system, when memory runs out." if -code == signal.SIGKILL else ""
    note(
        f"Error: the command was ended {how}, before it had decided anything.{hint}\n"
        "  What was finished is kept: the same command resumes."
    )
    return ExitCode.UNDECIDED
