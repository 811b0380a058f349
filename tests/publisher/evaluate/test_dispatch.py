from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from publisher.api import Executor, Gate
from publisher.errors import PublisherError
from publisher.evaluate.context import ModelUnderTest, Unmeasured
from publisher.evaluate.dispatch import Answer, closed_after, dispatch
from publisher.runtime.numerics import numerics
from support.anatomies import EMBEDDED
from support.grey import Painters, World, check, erased, guarded, nobody_learns, write_safeguards


class Broken(Painters):
    """Does one task, then what ``end`` does."""

    def __init__(self, paint: Any, end: Callable[[Any], Any]) -> None:
        super().__init__(paint)
        self.end = end

    def map(self, function: Callable[[Any], Any], tasks: Iterable[Any]) -> Iterator[Any]:
        for number, task in enumerate(tasks):
            yield self.answer(task) if number < 1 else self.end(task)


def lost(_task: Any) -> Any:
    raise ConnectionError("the machine went away")


def leaves(_task: Any) -> Any:
    raise SystemExit(0)


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (lost, "the executor 'painters' failed: ConnectionError: the machine went away"),
        (leaves, "the executor 'painters' failed: SystemExit: 0"),
        (lambda _: None, "the executor 'painters' gave something else than the result of its task"),
        (lambda _: [None], "the executor 'painters' gave something else than the result of its task"),
    ],
)
def test_an_executor_that_breaks_makes_checks_unknown_and_keeps_what_it_gave(
    world: World, end: Callable[[Any], Any], reason: str
) -> None:
    world.sampling = world.sampling.model_copy(update={"images": 400})
    world.tools = replace(world.tools, executor=Broken(erased, end))
    (record,) = world.evaluate(check()).claims[0].checks
    assert record.verdict == "unknown"
    assert reason in record.reason
    world.tools = replace(world.tools, executor=Painters(erased))
    assert world.evaluate(check()).verdict == "passed"
    assert 0 < len(world.tools.executor.generated) < 800  # type: ignore[attr-defined]


class Short(Painters):
    """Forgets its last result."""

    def map(self, function: Callable[[Any], Any], tasks: Iterable[Any]) -> Iterator[Any]:
        return map(self.answer, list(tasks)[:-1])


def test_a_result_that_is_missing_makes_its_checks_unknown(world: World) -> None:
    world.tools = replace(world.tools, executor=Short(erased))
    (record,) = world.evaluate(check()).claims[0].checks
    assert (record.verdict, "gave 0 of 1 results" in record.reason) == ("unknown", True)


def test_membranes_that_nobody_could_ask_make_their_checks_unknown(world: World, tmp_path: Path) -> None:
    world.models = replace(
        world.models,
        hardened=ModelUnderTest.of(tmp_path / "hardened", EMBEDDED, write_safeguards(tmp_path / "release")),
    )
    world.tools = replace(world.tools, executor=Short(guarded))
    (record,) = world.evaluate(check()).claims[0].checks
    assert record.verdict == "unknown"


def test_trials_that_an_executor_lost_are_unknown(world: World) -> None:
    painters = Broken(erased, lost)
    painters.learns = nobody_learns
    world.tools = replace(world.tools, executor=painters)
    params = {"images": 3, "evaluation_steps": [0, 10], "seeds": 4, "images_per_evaluation": 4, "controls": ["base"]}
    relearn = check(attack="relearn", metric="relearned-last", metric_params={"against": "base"}, attack_params=params)
    (record,) = world.evaluate(relearn.model_copy(update={"gate": Gate(upper_at_most=0.9)})).claims[0].checks
    assert (record.verdict, "the machine went away" in record.reason) == ("unknown", True)


def test_an_executor_is_closed_whatever_happens_and_a_failure_to_close_is_a_warning() -> None:
    class Stuck(Painters):
        def close(self) -> None:
            raise OSError("still busy")

    warned: list[str] = []
    with pytest.raises(PublisherError, match="disk full"), closed_after(Stuck(erased), warned.append):
        raise PublisherError("disk full")
    assert warned == ["the executor 'painters' was not closed: OSError: still busy"]


@dataclass(frozen=True)
class Doubled:
    """A task that needs no model."""

    number: int
    device: str = "cpu"
    threads: int = 1


def double(task: Doubled) -> int:
    return 2 * task.number


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Executor[Any]]]:
    """The executor of a third party."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "third_party" / "looks")
    looks = importlib.import_module("publisher_looks")
    made = []

    def make(**params: Any) -> Executor[Any]:
        made.append(looks.Helpers(looks.HelpersParams(**params)))
        return made[-1]  # type: ignore[no-any-return]

    yield make
    for executor in made:
        executor.close()


@pytest.mark.slow
def test_an_executor_of_a_third_party_sends_tasks_to_processes(processes: Callable[..., Executor[Any]]) -> None:
    tasks = [Doubled(number) for number in range(3)]
    assert list(dispatch(processes(), double, tasks, lambda _, found: isinstance(found, int))) == [0, 2, 4]


@pytest.mark.slow
def test_results_of_a_machine_whose_arithmetic_differs_are_refused(processes: Callable[..., Executor[Any]]) -> None:
    import torch

    other = processes(environment={"ATEN_CPU_CAPABILITY": "default"})
    if torch.backends.cpu.get_cpu_capability() in ("NO AVX", "DEFAULT"):
        pytest.skip("this processor has no other arithmetic to offer")
    with pytest.raises(Unmeasured, match=r"numerics differ: the device is 'cpu .*' there and 'cpu .*' here"):
        list(dispatch(other, double, [Doubled(1)], lambda _, found: isinstance(found, int)))


def test_one_other_bit_of_a_fixed_computation_is_a_difference() -> None:
    here = numerics("cpu")
    assert here.difference(replace(here, probe="0" * 64)).startswith("a fixed computation gives other last bits")
    assert here.difference(replace(here, libraries=(("torch", "1.0"),))).startswith("torch is 1.0 there and ")
    assert here.difference(here) == ""


def test_an_answer_that_says_nothing_of_its_machine_makes_its_checks_unknown(world: World) -> None:
    class Silent(Painters):
        def answer(self, task: Any) -> Answer[Any]:
            return Answer(self._do(task), None)  # type: ignore[arg-type]

    world.tools = replace(world.tools, executor=Silent(erased))
    (record,) = world.evaluate(check()).claims[0].checks
    assert record.verdict == "unknown"
    assert "numerics differ: it does not say what it computes with" in record.reason
