"""Tasks in other processes: the order is kept, a killed one is begun again, one that always dies is a failure."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from publisher.api import PluginError, PrerequisiteError
from publisher.builtin.executors import Processes, RayCluster
from publisher.builtin.executors.processes import ProcessesParams, default_workers, gpus
from publisher.builtin.executors.ray_cluster import RayParams
from publisher.testing import release
from support.working import Chore, always_killed, doubled, killed_once, printing, process_of

TESTS = Path(__file__).parents[2]
HAS_RAY = find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not HAS_RAY, reason="ray is not installed: pip install 'model-publisher[ray]'")


@pytest.fixture
def two() -> Iterator[Processes]:
    executor = Processes(ProcessesParams(workers=2))
    yield executor
    executor.close()


def chores(count: int, folder: Path = Path(), **changes: Any) -> list[Chore]:
    return [Chore(number, folder, **changes) for number in range(count)]


def test_a_killed_worker_is_replaced_and_its_task_begun_again(two: Processes, tmp_path: Path) -> None:
    assert list(two.map(killed_once, chores(6, tmp_path))) == [0, 2, 4, 6, 8, 10]
    assert (tmp_path / "killed").exists()


def test_a_task_whose_worker_is_always_killed_ends_the_work_and_the_executor_can_be_used_again(two: Processes) -> None:
    with pytest.raises(PluginError, match="a process was killed each of the 3 times that a task was begun"):
        list(two.map(always_killed, chores(1)))
    assert list(two.map(doubled, chores(2))) == [0, 2]


def test_workers_stay_until_it_is_closed_and_no_more_tasks_are_taken_than_are_under_way(two: Processes) -> None:
    taken = []

    def some() -> Iterator[Chore]:
        for chore in chores(12):
            taken.append(chore.number)
            yield chore

    results = two.map(process_of, some())
    first = next(results)
    assert len(taken) == 4
    assert len({process for process, _ in (first, *results)}) <= 2
    assert os.getpid() != first[0]


def test_each_worker_sees_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    executor = Processes()
    try:
        seen = set(executor.map(process_of, chores(16, device="cuda")))
    finally:
        executor.close()
    assert executor.workers == len(gpus()) == 2
    assert {device for _, device in seen} <= {"4", "7"}
    assert len({process for process, _ in seen}) == len(seen)


def test_without_a_gpu_there_are_as_many_workers_as_tasks_fit_on_the_cores() -> None:
    cores = len(os.sched_getaffinity(0))
    assert [default_workers("cpu", threads) for threads in (1, cores, 8 * cores)] == [cores, 1, 1]


def test_what_a_worker_prints_is_no_part_of_the_result(two: Processes, capfd: pytest.CaptureFixture[str]) -> None:
    assert list(two.map(printing, chores(1))) == [0]
    said = capfd.readouterr()
    assert (said.out, "what a worker prints" in said.err) == ("", True)


def test_workers_end_with_the_process_that_releases() -> None:
    code = (
        "import os, signal, sys\n"
        "from publisher.builtin.executors import Processes\n"
        "from support.working import Chore, process_of\n"
        "if __name__ == '__main__':\n"
        "    print(next(Processes().map(process_of, [Chore(1)]))[0], flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(TESTS)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True, check=False, timeout=60
    )
    assert done.returncode == -signal.SIGKILL
    worker = int(done.stdout)
    until = time.monotonic() + 20
    while _runs(worker) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _runs(worker)


def _runs(process: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_a_release_whose_workers_are_always_killed_is_unknown_with_a_report(tmp_path: Path) -> None:
    manifest = """
release: {name: tried, version: 1.0.0, license: CC0-1.0}
model: testing:tiny
concepts: [cigarette]
keep: {concepts: [pizza]}
steps: [{use: erase}]
evaluate:
  executor: {use: doomed, with: {workers: 1, tries: 2}}
  gates: {erase.kept: {lower_at_least: -0.5}}
"""
    outcome = release(manifest, "support.working", folder=tmp_path)
    assert (outcome.decision, outcome.package) == ("unknown", None)
    reasons = {check.reason for claim in outcome.report.claims for check in claim.checks}
    assert all("a process was killed each of the 2 times" in reason for reason in reasons), reasons
    assert (outcome.reports / "index.html").is_file()


@pytest.mark.skipif(HAS_RAY, reason="ray is installed")
def test_without_ray_a_plan_says_how_to_get_it() -> None:
    with pytest.raises(PrerequisiteError, match="needs ray") as error:
        RayCluster()
    assert "model-publisher[ray]" in str(error.value)


@needs_ray
@pytest.mark.enable_socket  # a cluster on this machine talks over its loopback
def test_ray_keeps_the_order_replaces_a_killed_worker_and_gives_up_on_a_task_that_always_kills(tmp_path: Path) -> None:
    executor = RayCluster(RayParams(tries=2))
    try:
        assert list(executor.map(doubled, chores(5))) == [0, 2, 4, 6, 8]
        assert list(executor.map(killed_once, chores(5, tmp_path))) == [0, 2, 4, 6, 8]
        with pytest.raises(Exception, match=r"(?i)worker"):
            list(executor.map(always_killed, chores(1)))
    finally:
        executor.close()
