"""The executor ``ray``: a ray cluster, or one that is started on this machine. It needs the extra ``ray``."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from typing import Any

from pydantic import Field

from publisher.api import Executor, Params, PrerequisiteError
from publisher.api.world import R, T
from publisher.builtin.executors.packing import packed, perform_packed, unpacked


class RayParams(Params):
    """Parameters of the executor ``ray``."""

    address: str = ""
    """Address of a running cluster, such as ``auto`` or ``ray://head:10001``. Empty: one of this machine is started."""
    tries: int = Field(default=3, ge=1, le=100)
    """Number of times that a task is begun when the worker that does it is killed."""


class RayCluster(Executor[RayParams]):
    """Sends tasks to the workers of a ray cluster, each with the processor cores and the GPU that the task needs.

    The folders that tasks read have to be there under the same path on every machine, and the same versions of the
    libraries. A worker that is killed is replaced, and its task is begun again.
    """

    name = "ray"
    version = "1"
    summary = "on a ray cluster (extra: ray)"

    def __init__(self, params: RayParams | None = None) -> None:
        super().__init__(params)
        self._ray: Any = None
        if find_spec("ray") is None:
            raise PrerequisiteError(
                "the executor 'ray' needs ray, which is not installed", hint="pip install 'model-publisher[ray]'"
            )

    def map(self, function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
        """Yield ``function`` of each task, in the order of the tasks; at most two for each place are under way.

        Raises:
            Exception: what ray raises where a task crashed, or the worker that does it was killed each time.
        """
        waiting: deque[Any] = deque()
        for task in tasks:
            ray = self._connected()
            threads, gpu = getattr(task, "threads", 1), getattr(task, "device", "cpu") == "cuda"
            fitting = min(threads, int(ray.cluster_resources().get("CPU", 1)))
            options = {"num_cpus": fitting, "num_gpus": float(gpu), "max_retries": self.params.tries - 1}
            waiting.append(ray.remote(**options)(perform_packed).remote(packed(function, task)))
            if len(waiting) >= 2 * self._places(threads, gpu=gpu):
                yield unpacked(ray.get(waiting.popleft()))
        while waiting:
            yield unpacked(self._connected().get(waiting.popleft()))

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        if self._ray is not None:
            self._ray.shutdown()
            self._ray = None

    def _connected(self) -> Any:
        if self._ray is None:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its maker
            import ray

            ours = {"include_dashboard": False, "runtime_env": {"env_vars": {"PYTHONPATH": os.pathsep.join(sys.path)}}}
            given = {"address": self.params.address} if self.params.address else {"address": "local", **ours}
            ray.init(configure_logging=False, log_to_driver=False, **given)
            self._ray = ray
        return self._ray

    def _places(self, threads: int, *, gpu: bool) -> int:
        """Return how many tasks of this size the cluster does at the same time."""
        resources = self._ray.cluster_resources()
        found = resources.get("GPU", 1) if gpu else resources.get("CPU", 1) // threads
        return max(1, int(found))
