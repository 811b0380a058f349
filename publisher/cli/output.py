"""The way out of the process: results alone on stdout, everything else on stderr, all text made harmless first.

Foreign names, texts of plugins and exceptions can hold escape sequences, characters that turn text around, commands for
CI systems (``::error``), and secrets that were given in the wrong place. All of them leave through this module.
"""

from __future__ import annotations

import errno
import json
import os
import re
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from publisher.errors import PublisherError

KEPT = "\n\t\u200c\u200d"
"""Besides printable characters: Persian and emoji need the two invisible joiners."""
LONGEST = 1_000_000
"""Characters of one text; what is longer is of no use to a reader."""
SECRET = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?:[\w+/=\s\\,:.]|-(?!-))*(?:-----END [A-Z ]*PRIVATE KEY-----)?"
    r"|LS0tLS1CRUdJTi[A-Za-z0-9+/=]+"  # the same in base64, as CI systems like it
    r"|\b(?:MI[GHI]|MH[cQ]C)[A-Za-z0-9+/=]{60,}"  # its body alone
    r"|\bhf_[A-Za-z0-9]{20,}"
    r"|(?<=:/)/?[^/\s:@]*:[^/\s@]+(?=@)"  # pathlib makes one slash of two
)
"""Private keys in PEM, tokens of the hub, passwords in URLs."""
COMMAND = re.compile(r"^([^\S\n]*):(?=:)|#(?=#\w*\[)", re.MULTILINE)
"""Place where a line would be a command for GitHub's, Azure's or TeamCity's log reader."""
MOVES = re.compile(r"\r|(?:\x1b\[A)+\Z")
"""Beginning of what progress bars of libraries write."""

_hidden: set[str] = set()
_results: TextIO | int | None = None


class _Table(dict[int, str]):
    """Character -> what is shown for it; made as characters come."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if character in KEPT or character.isprintable() or unicodedata.category(character) == "Zs":
            self[code] = character
        else:
            self[code] = character.encode("unicode_escape").decode("ascii")
        return self[code]


_TABLE = _Table()


def hide(secret: str) -> None:
    """Hide this text from here on; shorter ones than six characters would make holes in other words."""
    if len(secret) >= 6:
        _hidden.add(secret)


def clean(text: str) -> str:
    """Return ``text`` with control and direction characters written out, and without secrets and CI commands."""
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]}\n... and {len(text) - LONGEST} characters more"
    return COMMAND.sub(_written_out, without_secrets(text).translate(_TABLE))


def without_secrets(text: str) -> str:
    """Return ``text`` without what was hidden and what looks like a secret."""
    for secret in _hidden:
        text = text.replace(secret, "[not shown]")
    return SECRET.sub("[not shown]", text)


def _values_without_secrets(data: Any) -> Any:
    if isinstance(data, str):
        return without_secrets(data)
    if isinstance(data, dict):
        return {key: _values_without_secrets(value) for key, value in data.items()}
    return [_values_without_secrets(value) for value in data] if isinstance(data, list | tuple) else data


def _written_out(mark: re.Match[str]) -> str:
    return rf"{mark[0][:-1]}\x{ord(mark[0][-1]):02x}"


class Clean:
    """A text stream whose foreign writers cannot do harm."""

    def __init__(self, stream: TextIO) -> None:
        self.raw = stream

    def write(self, text: str) -> int:
        """Write ``text`` without what could do harm; progress bars may go back to the start of their line."""
        move = MOVES.match(text)
        lead = move[0] if move else ""
        self.raw.write(lead + clean(text[len(lead) :]))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


def cleaned(stream: TextIO) -> TextIO:
    """Return a stream that cleans what is written to ``stream``."""
    return cast("TextIO", Clean(stream))


def raw_stderr() -> TextIO | None:
    """Return stderr for a writer that cleans what it shows itself, and has colours and bars of its own."""
    return sys.stderr.raw if isinstance(sys.stderr, Clean) else sys.stderr


@contextmanager
def clean_stderr() -> Iterator[None]:
    """Clean what anybody writes to ``sys.stderr``: logging, warnings, tracebacks, plugins."""
    before = sys.stderr
    if before is not None and not isinstance(before, Clean):
        sys.stderr = cleaned(before)
    try:
        yield
    finally:
        sys.stderr = before


@contextmanager
def stdout_for_results() -> Iterator[None]:
    """Keep stdout for this module's functions; what others print goes to stderr.

    At the level of file descriptors too, for child processes and native code; and there for good, so that nothing that
    is printed while the process ends can follow the result.
    """
    global _results  # noqa: PLW0603  # stdout is a global
    before, was = sys.stdout, _results
    if _is_real(before):
        before.flush()
        _results = os.dup(1)
        with suppress(OSError):  # stderr may be closed
            os.dup2(2, 1)
    elif _results is None:
        _results = before
    sys.stdout = sys.stderr
    try:
        yield
    finally:
        if not isinstance(_results, int):
            sys.stdout, _results = before, was


def _is_real(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.fileno() == 1
    except (OSError, ValueError, AttributeError):
        return False


def result(text: str) -> None:
    """Print the result for a person."""
    _write(_encoded(f"{clean(text)}\n"))


def document(data: Any, *, sort_keys: bool = False) -> None:
    """Print the result as one JSON document: in ASCII, without secrets and what a log reader takes for a command."""
    text = json.dumps(_values_without_secrets(data), indent=2, sort_keys=sort_keys)
    _write(text.replace("##", "\\u0023#").encode("ascii") + b"\n")


def file(data: bytes) -> None:
    """Print a file as it is; on a terminal, without what could do harm."""
    _write(_encoded(clean(data.decode("utf-8", "backslashreplace"))) if result_is_seen() else data)


def note(text: str) -> None:
    """Print a message for the user to stderr."""
    if sys.stderr is not None:
        sys.stderr.write(f"{clean(text)}\n")
        sys.stderr.flush()


def result_is_seen() -> bool:
    """Return whether stdout is a terminal."""
    where = _results if _results is not None else sys.stdout
    return os.isatty(where) if isinstance(where, int) else where is not None and where.isatty()


def results_stream() -> TextIO | None:
    """Return a stream to stdout for a writer that cleans what it shows itself, and has colours of its own."""
    if isinstance(_results, int):
        return os.fdopen(_results, "w", encoding=_encoding(), errors="backslashreplace", closefd=False)
    return _results if _results is not None else sys.stdout


def _encoding() -> str:
    return getattr(sys.__stdout__, "encoding", None) or "utf-8"


def _encoded(text: str) -> bytes:
    return text.encode(_encoding(), "backslashreplace")


def _write(data: bytes) -> None:
    where = _results if _results is not None else sys.stdout
    if where is None:
        return
    try:
        if isinstance(where, int):
            while data:
                data = data[os.write(where, data) :]
        else:
            where.flush()
            where.buffer.write(data)
            where.buffer.flush()
    except BrokenPipeError:
        return  # the reader has read enough; the answer stands
    except OSError as error:
        reason = errno.errorcode.get(error.errno or 0, "")
        raise PublisherError(f"the result cannot be written to stdout: {error.strerror} ({reason})") from error
