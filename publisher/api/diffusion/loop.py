"""One resumable training loop, for every step and script that trains.

A training says what a step is and what goes on from step to step. The loop writes checkpoints, goes on from the last
one, tells progress, and ends where a loss is no number any more. A run that was killed and goes on gives the same bytes
as one that was not: weights, moments of the optimizer, states of random generators and losses are in the checkpoint.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from publisher.api.diffusion.checkpoints import Checkpoints, Unusable
from publisher.api.steps import MOST_POINTS
from publisher.errors import UsageError

RECENT = 20
"""Number of steps whose mean losses are shown."""
Tensors = dict[str, Tensor]


class Training(ABC):
    """Something that is trained: one step at a time, from any checkpoint."""

    generators: Mapping[str, torch.Generator]
    """Name -> source of random numbers; the loop saves and restores its state."""
    stopped: str = ""
    """Reason why no further step is needed; empty: there is none. A subclass that sets it has it in its state."""

    def begin(self, tell: Callable[[str], None]) -> None:  # noqa: B027 - most trainings have nothing to do
        """Get ready for the first step. Not called where :meth:`restore` is.

        Args:
            tell: function that shows a line to the user.
        """

    @abstractmethod
    def step(self, done: int) -> Sequence[float]:
        """Compute the losses and gradients of one step.

        Args:
            done: number of steps before it.

        Returns:
            A row of numbers, of one length at all steps. One that is not finite ends the training.
        """

    @abstractmethod
    def move(self, done: int) -> None:
        """Move the weights by the gradients of :meth:`step`, whose losses are finite."""

    @abstractmethod
    def state(self) -> Mapping[str, Tensor]:
        """Return all that goes on from step to step, but the generators."""

    @abstractmethod
    def restore(self, state: Mapping[str, Tensor], done: int) -> None:
        """Restore what :meth:`state` returned after ``done`` steps."""

    def line(self, recent: Sequence[float]) -> str:
        """Return the line to show.

        Args:
            recent: mean row of the last :data:`RECENT` steps.
        """
        return f"loss {recent[0]:.2e}"


@dataclass(frozen=True)
class Loop:
    """The settings of one run of a training."""

    steps: int
    """Number of steps of the whole training."""
    every: int
    """Number of steps between two checkpoints; the last step has one too."""
    checkpoints: Checkpoints
    """Place of the checkpoint."""
    progress: Callable[[int, str], None]
    """Function that is told the number of steps done and a line to show. What it raises ends the run; the next run goes
    on from the last checkpoint."""
    warn: Callable[[str], None]
    """Function that is told what the user must know."""
    where: str
    """Name of the hardening step, for errors."""
    hint: str
    """Advice for a user whose losses are no numbers any more."""

    def run(self, training: Training) -> list[list[float]]:
        """Train to the last step, or until the training has stopped.

        Returns:
            The row of every step.

        Raises:
            UsageError: a loss is not finite.
        """
        rows = self._resume(training)
        while len(rows) < self.steps and not training.stopped:
            row = [float(value) for value in training.step(len(rows))]
            if not all(map(math.isfinite, row)):
                what = f"the losses are no longer numbers at step {len(rows) + 1}"
                raise UsageError(what, where=self.where, hint=self.hint)
            training.move(len(rows))
            rows.append(row)
            done = len(rows)
            if done % self.every == 0 or done == self.steps or training.stopped:
                self._save(training, rows)
            recent = torch.tensor(rows[-RECENT:], dtype=torch.float64).mean(0).tolist()
            self.progress(done, training.line(recent))
        return rows

    def _resume(self, training: Training) -> list[list[float]]:
        try:
            found = self.checkpoints.load()
            if found and "loop/rows" not in found[1]:
                raise Unusable("is of another version")  # noqa: TRY301 - as a damaged one
        except Unusable as error:
            self.warn(f"a checkpoint of the training {error}; the training started again")
            found = None
        if found is None:
            training.begin(lambda text: self.progress(0, text))
            return []
        done, tensors = found
        groups = unpack(tensors)
        for name, state in groups.get("generators", {}).items():
            training.generators[name].set_state(state)
        training.restore(groups.get("state", {}), done)
        rows: list[list[float]] = groups["loop"]["rows"].tolist()
        return rows

    def _save(self, training: Training, rows: Sequence[Sequence[float]]) -> None:
        generators = {name: generator.get_state() for name, generator in training.generators.items()}
        loop = {"rows": torch.tensor(rows, dtype=torch.float64)}
        self.checkpoints.save(
            len(rows), pack({"generators": generators, "loop": loop, "state": dict(training.state())})
        )


def pack(groups: Mapping[str, Mapping[str, Tensor]]) -> Tensors:
    """Return groups of tensors as one, named ``group/name``, without graphs."""
    return {f"{group}/{name}": value.detach() for group, values in groups.items() for name, value in values.items()}


def unpack(tensors: Mapping[str, Tensor]) -> dict[str, Tensors]:
    """Return the groups that :func:`pack` made one. An empty group is not there."""
    groups: dict[str, Tensors] = {}
    for key, value in tensors.items():
        group, _, name = key.partition("/")
        groups.setdefault(group, {})[name] = value
    return groups


def optimizer_state(optimizer: torch.optim.Optimizer) -> Tensors:
    """Return moments and step counts of an optimizer, named by the number of the parameter."""
    return {f"{i}.{key}": value for i, one in optimizer.state_dict()["state"].items() for key, value in one.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimizer of the same parameters what :func:`optimizer_state` returned; its rates stay as they are."""
    state: dict[int, Tensors] = {}
    for name, value in tensors.items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def thin(values: Sequence[float] | Tensor) -> tuple[list[float], list[float]]:
    """Return a curve of at most :data:`publisher.api.steps.MOST_POINTS` points: means over windows of equal size.

    Args:
        values: one number for each step.

    Returns:
        The last step of each window, from 1, and the mean.
    """
    if not len(values):
        return [], []
    size = -(-len(values) // MOST_POINTS)
    wide = torch.as_tensor(values, dtype=torch.float64)
    starts = range(0, len(wide), size)
    ends = [float(min(start + size, len(wide))) for start in starts]
    return ends, [float(wide[start : start + size].mean()) for start in starts]
