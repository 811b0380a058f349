"""The loop around a trainer: optimizer, checkpoints, progress, and an end where numbers stop being numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from publisher.api import UsageError
from publisher.api.diffusion.checkpoints import Checkpoints, Unusable
from publisher_membrane_bundle.objective import Losses, Objective
from publisher_membrane_bundle.optimiser import Optimiser
from publisher_membrane_bundle.params import MembraneParams

RECENT = 20
"""Steps that the shown losses are means of."""


class Trainer(Protocol):
    """``Exact`` or ``Pool``."""

    generator: torch.Generator
    objective: Objective

    def begin(self, tell: Callable[[str], None] = ...) -> None:
        """Once, unless :meth:`restore` is called; ``tell`` is given a line to show."""

    def step(self) -> Losses:
        """Losses; gradients left with the membranes."""

    def state(self) -> dict[str, Tensor]:
        """All that goes on from step to step, but the generator."""

    def restore(self, state: dict[str, Tensor]) -> None:
        """What :meth:`state` gave."""


@dataclass
class Run:
    """One trainer from the first step to the last."""

    trainer: Trainer
    optimiser: Optimiser
    params: MembraneParams
    checkpoints: Checkpoints
    progress: Callable[[int, str], None]
    """Steps done, and a line to show. What it raises ends the run; the next one goes on from the last checkpoint."""
    warnings: list[str]

    def __call__(self) -> Tensor:
        """Do it.

        Returns:
            ``(steps, 3, k)`` float32: erase loss, anchor loss, erase loss of the shut membrane.

        Raises:
            UsageError: a loss is no number any more.
        """
        concepts = self.optimiser.membranes.concepts
        self.losses = torch.zeros(self.params.steps, 3, len(concepts))
        done = self._resume()
        while done < self.params.steps:
            found = self.trainer.step()
            self.losses[done] = torch.stack([found.erase, found.anchor, found.start])
            if not self.losses[done].isfinite().all():
                raise _diverged(done + 1)
            self.optimiser.step(done)
            done += 1
            if done % self.params.checkpoint_every == 0 or done == self.params.steps:
                self._save(done)
            self.progress(done, self._line(done))
        return self.losses

    def _resume(self) -> int:
        try:
            found = self.checkpoints.load()
        except Unusable as error:
            self.warnings.append(f"a checkpoint of the training {error}; training began anew")
            found = None
        if found is None:
            self.trainer.begin(lambda text: self.progress(0, text))
            return 0
        done, tensors = found
        groups: dict[str, dict[str, Tensor]] = {"trainer": {}, "optimiser": {}, "run": {}}
        for name, tensor in tensors.items():
            group, _, key = name.partition(".")
            groups[group][key] = tensor
        self.trainer.restore(groups["trainer"])
        self.trainer.generator.set_state(groups["run"]["generator"])
        self.optimiser.restore(groups["optimiser"], done)
        self.losses[:done] = groups["run"]["losses"]
        return done

    def _save(self, done: int) -> None:
        run = {"generator": self.trainer.generator.get_state(), "losses": self.losses[:done]}
        groups = {"trainer": self.trainer.state(), "optimiser": self.optimiser.state(), "run": run}
        self.checkpoints.save(
            done, {f"{group}.{key}": value for group, values in groups.items() for key, value in values.items()}
        )

    def _line(self, done: int) -> str:
        erase, anchor, _ = self.losses[max(0, done - RECENT) : done].mean((0, 2)).tolist()
        return f"erase loss {erase:.2e}, anchor loss {anchor:.2e}"


def _diverged(step: int) -> UsageError:
    return UsageError(
        f"the losses are no longer numbers at step {step}",
        where="membrane-bundle",
        hint="Lower lr or lam, or set max_grad_norm (1 is usual). With float16 weights, run in bfloat16 or float32.",
    )
