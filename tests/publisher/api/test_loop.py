from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from publisher.api import UsageError
from publisher.api.diffusion.checkpoints import Checkpoints
from publisher.api.diffusion.loop import Loop, Training, optimizer_state, pack, restore_optimizer, thin, unpack
from publisher.api.steps import MOST_POINTS

STEPS = 7


class Noisy(Training):
    """AdamW towards random numbers; ``poison`` makes a loss of that step NaN."""

    def __init__(self, poison: int = -1, enough: int = 99) -> None:
        self.weight = torch.nn.Parameter(torch.zeros(3))
        self.adam = torch.optim.AdamW([self.weight], lr=0.1, fused=True)
        self.generators = {"noise": torch.Generator().manual_seed(1)}
        self.poison, self.enough, self.begun = poison, enough, False

    def begin(self, tell: Callable[[str], None]) -> None:
        self.begun = True
        tell("beginning")

    def step(self, done: int) -> Sequence[float]:
        self.adam.zero_grad()
        loss = (self.weight - torch.randn(3, generator=self.generators["noise"])).square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return (float("nan") if done == self.poison else float(loss.detach()), 0.5)

    def move(self, done: int) -> None:
        self.adam.step()
        if done + 1 >= self.enough:
            self.stopped = "enough"

    def state(self) -> Mapping[str, Tensor]:
        return pack({"weight": {"weight": self.weight}, "adam": optimizer_state(self.adam)})

    def restore(self, state: Mapping[str, Tensor], done: int) -> None:
        groups = unpack(state)
        with torch.no_grad():
            self.weight.copy_(groups["weight"]["weight"])
        restore_optimizer(self.adam, groups["adam"])


class KilledError(Exception):
    """The process ends here."""


def loop(folder: Path, kill_at: int = 99, warnings: list[str] | None = None, lines: list[Any] | None = None) -> Loop:
    def progress(done: int, text: str) -> None:
        if lines is not None:
            lines.append((done, text))
        if done == kill_at:
            raise KilledError

    warn = [].append if warnings is None else warnings.append
    return Loop(STEPS, 2, Checkpoints(folder, "toy", "same"), progress, warn, "toy", "Lower lr.")


@pytest.mark.parametrize("kill_at", [1, 4, 5, 7])
def test_a_run_that_was_killed_goes_on_to_the_same_bytes(tmp_path: Path, kill_at: int) -> None:
    whole, cut, resumed = Noisy(), Noisy(), Noisy()
    rows = loop(tmp_path / "whole").run(whole)
    with pytest.raises(KilledError):
        loop(tmp_path / "cut", kill_at).run(cut)
    again = loop(tmp_path / "cut").run(resumed)
    assert again == rows
    assert len(rows) == STEPS
    assert resumed.weight.equal(whole.weight)
    assert resumed.generators["noise"].get_state().equal(whole.generators["noise"].get_state())
    assert resumed.begun == (kill_at == 1)  # before the first checkpoint it starts from the beginning


def test_a_loss_that_is_no_number_ends_the_training_before_it_moves_the_weights(tmp_path: Path) -> None:
    training, before = Noisy(poison=3), Noisy()
    with pytest.raises(UsageError, match="no longer numbers at step 4") as error:
        loop(tmp_path).run(training)
    assert (error.value.where, error.value.hint) == ("toy", "Lower lr.")
    for done in range(3):
        before.step(done)
        before.move(done)
    assert training.weight.equal(before.weight)


def test_a_damaged_checkpoint_is_said_and_the_training_starts_again(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        loop(tmp_path, 4).run(Noisy())
    (file,) = tmp_path.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    warnings: list[str] = []
    training, whole = Noisy(), Noisy()
    assert loop(tmp_path, warnings=warnings).run(training) == loop(tmp_path / "whole").run(whole)
    assert len(warnings) == 1
    assert "damaged" in warnings[0]


def test_a_training_that_has_enough_stops_and_has_a_checkpoint_there(tmp_path: Path) -> None:
    assert len(loop(tmp_path).run(Noisy(enough=3))) == 3
    found = Checkpoints(tmp_path, "toy", "same").load()
    assert found is not None
    assert found[0] == 3


def test_progress_is_told_of_the_beginning_and_of_every_step(tmp_path: Path) -> None:
    lines: list[tuple[int, str]] = []
    rows = loop(tmp_path, lines=lines).run(Noisy())
    assert lines[0] == (0, "beginning")
    assert [done for done, _ in lines[1:]] == list(range(1, STEPS + 1))
    assert lines[1] == (1, f"loss {rows[0][0]:.2e}")


def test_a_long_curve_is_thinned_to_means_with_the_last_step_of_each_window() -> None:
    ends, means = thin([float(i) for i in range(2 * MOST_POINTS + 1)])
    assert len(ends) == len(means) <= MOST_POINTS
    assert (ends[0], means[0], ends[-1]) == (3.0, 1.0, 2.0 * MOST_POINTS + 1)
    assert thin([5.0, 6.0]) == ([1.0, 2.0], [5.0, 6.0])
    assert thin([]) == ([], [])
