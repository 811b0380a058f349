"""Where the evaluation runs: in this process, in processes of this machine, or on a ray cluster."""

from __future__ import annotations

from typing import Any

from publisher.api import Executor
from publisher.builtin.executors.local import Local
from publisher.builtin.executors.processes import Processes
from publisher.builtin.executors.ray_cluster import RayCluster

EXECUTORS: tuple[type[Executor[Any]], ...] = (Local, Processes, RayCluster)
