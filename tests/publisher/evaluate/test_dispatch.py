from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from publisher.api import Gate
from publisher.errors import PublisherError
from publisher.evaluate.context import ModelUnderTest
from publisher.evaluate.dispatch import closed_after
from support.grey import Painters, World, check, erased, guarded, nobody_learns, write_safeguards


class Broken(Painters):
    """Does one task, then what ``end`` does."""

    def __init__(self, paint: Any, end: Callable[[Any], Any]) -> None:
        super().__init__(paint)
        self.end = end

    def map(self, function: Callable[[Any], Any], tasks: Iterable[Any]) -> Iterator[Any]:
        for number, task in enumerate(tasks):
            yield self._do(task) if number < 1 else self.end(task)


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
        return map(self._do, list(tasks)[:-1])


def test_a_result_that_is_missing_makes_its_checks_unknown(world: World) -> None:
    world.tools = replace(world.tools, executor=Short(erased))
    (record,) = world.evaluate(check()).claims[0].checks
    assert (record.verdict, "gave 0 of 1 results" in record.reason) == ("unknown", True)


def test_membranes_that_nobody_could_ask_make_their_checks_unknown(world: World, tmp_path: Path) -> None:
    world.models = replace(
        world.models, hardened=ModelUnderTest.of(tmp_path / "hardened", write_safeguards(tmp_path / "release"))
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
