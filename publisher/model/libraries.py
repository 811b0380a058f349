"""Libraries that a model asks for besides ours: said before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from publisher.errors import PrerequisiteError

SCHEDULERS = {"CosineDPMSolverMultistepScheduler": "torchsde", "DPMSolverSDEScheduler": "torchsde"}
"""Class of a scheduler -> the library without which diffusers cannot make it."""


def require_libraries(configs: Mapping[str, Mapping[str, Any]], where: str) -> None:
    """Refuse a model whose scheduler needs a library that is not installed.

    Args:
        configs: as :func:`publisher.model.folder.read_configs` returns them.
        where: the model, for the message.

    Raises:
        PrerequisiteError: with the command that installs it.
    """
    entry = configs["model_index"].get("scheduler")
    kind = entry[1] if isinstance(entry, list) and len(entry) == 2 else None
    library = SCHEDULERS.get(kind or "")
    if library and find_spec(library) is None:
        raise PrerequisiteError(
            f"the model's scheduler {kind} needs {library}, which is not installed",
            where=where,
            hint=f"pip install {library}\nOr name another scheduler of its noise process in model_index.json and "
            "scheduler/scheduler_config.json.",
        )
