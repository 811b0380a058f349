"""Progress on the terminal: bars where a person watches, plain lines in a log. Everything goes to stderr."""

from __future__ import annotations

import resource
import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from publisher.cli import interrupts, output
from publisher.text import printable

LOG_EVERY_S = 15.0


def peak_memory() -> str:
    """Return the most memory that this process has held, and its GPU's where torch uses one."""
    scale = 1 if sys.platform == "darwin" else 1024
    text = f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 2**30:.1f} GiB"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        text += f" + {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB GPU"
    return text


class MemoryColumn(ProgressColumn):
    """Peak memory."""

    def render(self, task: Task) -> Text:  # noqa: ARG002
        """Render the process' peak so far."""
        return Text(peak_memory(), style="dim")


class Terminal:
    """Shows a release's progress. A context manager: the bars end with it."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(file=output.raw_stderr(), quiet=quiet, highlight=False)
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            MemoryColumn(),
            TextColumn("{task.fields[note]}", style="dim", markup=False),
            console=self.console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._said: dict[str, float] = {}
        self._phases: dict[str, tuple[float, int, int, int]] = {}
        """Stage -> when its phase began and what was done then; total and done when it was last told."""

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._bars.start()
            sys.stdout, sys.stderr = output.cleaned(sys.stdout), output.cleaned(sys.stderr)  # ended with the bars
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self._bars.stop()

    def update(self, stage: str, done: int, total: int, text: str = "") -> None:
        """Move a stage's bar, or log a line now and then; ends the command if it was told to end."""
        interrupts.check()
        stage, text = output.clean(printable(stage)), output.clean(printable(text))
        if self.console.is_terminal:
            if stage not in self._tasks:
                self._tasks[stage] = self._bars.add_task(stage, total=total, note=text)
            self._bars.update(self._tasks[stage], completed=done, total=total, note=text)
        else:
            self._log(stage, done, total, text)

    def _log(self, stage: str, done: int, total: int, text: str) -> None:
        now = time.monotonic()
        left = self._left(stage, done, total, now)
        if done < total and now - self._said.get(stage, -LOG_EVERY_S) < LOG_EVERY_S:
            return
        self._said[stage] = now
        self.console.print(f"{stage}: {done}/{total} {text}{left} [{peak_memory()}]", markup=False, soft_wrap=True)

    def _left(self, stage: str, done: int, total: int, now: float) -> str:
        """Return the time left of a phase, which begins again where another total is counted or the count falls."""
        began, first, whole, last = self._phases.get(stage, (now, done, total, done))
        if whole != total or done < last:
            began, first = now, done
        self._phases[stage] = began, first, total, done
        if not first < done < total:
            return ""
        minutes, seconds = divmod(round((now - began) / (done - first) * (total - done)), 60)
        return f", {minutes}:{seconds:02} left"

    def say(self, text: str) -> None:
        """Print a line worth keeping."""
        self.console.print(output.clean(text), markup=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """Print a line to act on."""
        self.console.print(output.clean(f"Warning: {text}"), style="yellow", markup=False, soft_wrap=True)
