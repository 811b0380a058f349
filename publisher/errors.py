"""What can go wrong, and the exit code that says so. Imports nothing of ours."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class ExitCode(IntEnum):
    """What the command's exit code means; the same for every command, whatever the output format."""

    OK = 0
    """Released, verified, pushed, or not worse."""
    REFUSED = 1
    """The answer is no: a gate failed, a policy is broken, a package did not verify, a release is worse than the one
    before, or a repository of the hub holds something else. Nothing was signed, or tagged."""
    USAGE = 2
    """The user has to edit something: the command line, the manifest or policy, the model it names. A plan without a
    test that the policy requires is this too."""
    UNDECIDED = 3
    """Could not decide: a crash, a full disk, a missing prerequisite, a device that is not there."""
    INCONCLUSIVE = 4
    """Nothing, or too little, was measured to decide a gate or a comparison, or two releases cannot be compared."""
    INTERRUPTED = 130
    """Stopped by Ctrl-C; the same command resumes."""
    TERMINATED = 143
    """Stopped by SIGTERM; the same command resumes."""


class Terminated(BaseException):
    """SIGTERM arrived."""


INTERRUPTS = (KeyboardInterrupt, Terminated)
"""The user's wish to stop. Whatever else a plugin raises, ``SystemExit`` included, is a failure of the plugin."""


CRASHES = (Exception, SystemExit, GeneratorExit)
"""What foreign code may raise where its failure is an answer, not the end of the command."""


def in_words(error: BaseException) -> str:
    """Return the kind and the text of an exception, also where its own ``__str__`` fails."""
    try:
        text = str(error)
    except INTERRUPTS:
        raise
    except BaseException:  # noqa: BLE001  # a plugin's exception can do anything
        text = "(its text cannot be read)"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class PublisherError(Exception):
    """An error that is shown as one paragraph: what is wrong, where, what to do next."""

    exit_code = ExitCode.UNDECIDED

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        what = self.what.replace("\n", "\n  ")
        place = self.where.replace("\r", "\\r").replace("\n", "\\n")  # a file's name can hold anything
        head = f"{place}: {what}" if place else what
        return head + "".join(f"\n  {line}" for line in self.hint.splitlines())


class UsageError(PublisherError):
    """The user asked for something that cannot be; they edit it and try again."""

    exit_code = ExitCode.USAGE


class ModelError(UsageError):
    """The base model cannot be used: not a diffusers folder, unknown family, malformed or non-finite weights."""


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong in a manifest."""

    line: int
    """1-based."""
    column: int
    """1-based."""
    message: str
    hint: str = ""


class ManifestError(UsageError):
    """Everything that is wrong in a manifest, each with its place."""

    def __init__(self, path: str, problems: list[Problem]) -> None:
        self.path = path
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(self._lines()))

    def __str__(self) -> str:
        return self.what

    def _lines(self) -> list[str]:
        lines = []
        path = self.path.replace("\r", "\\r").replace("\n", "\\n")
        for problem in self.problems:
            lines.append(f"{path}:{problem.line}:{problem.column}: {problem.message}")
            lines += [f"  {line}" for line in problem.hint.splitlines()]
        return lines


class PluginError(PublisherError):
    """A plugin broke its contract, or crashed; the message names its origin."""


class PrerequisiteError(PublisherError):
    """Something has to be installed, fetched or plugged in first; the hint gives the command."""


class HostileHubError(PublisherError):
    """A hub's answer cannot be an honest one; nothing of it was used."""

    exit_code = ExitCode.REFUSED


class BusyError(PublisherError):
    """Another run holds the work folder."""


class InconclusiveError(PublisherError):
    """Too little was measured."""

    exit_code = ExitCode.INCONCLUSIVE
