"""How far every prompt of the checks lets the attached safeguards act, and the rows of it that the report shows.

The numbers come from the pipeline that generates, by its text encoder alone. Like the images they are kept under the
digest of everything that they depend on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from publisher.api import Anatomy, Concept, Executor, ImageRequest, PermeabilityRow, PermeabilityTable, Scope
from publisher.errors import CRASHES
from publisher.evaluate.context import ModelUnderTest, Setting, Unmeasured
from publisher.evaluate.dispatch import dispatch
from publisher.evaluate.images import close_models, machine, opened
from publisher.evaluate.requests import one_line
from publisher.model.digest import sha256_json
from publisher.runtime.side_by_side import threads_of

DIGITS = 6
PROMPTS, PARAPHRASES, KEPT = 6, 4, 24
"""Rows of the report's table: of each concept to go, and of everything that stays."""


@dataclass(frozen=True)
class ScoreTask:
    """Prompts for one model: all that an executor has to send."""

    folder: Path
    anatomy: Anatomy
    safeguards: Path
    device: str
    dtype: str
    prompts: tuple[str, ...]

    @property
    def threads(self) -> int:
        """Processor threads that the task keeps busy."""
        return threads_of(self.device, 1)


@dataclass(frozen=True)
class Permeabilities:
    """Permeabilities of prompts, or why there are none."""

    concepts: tuple[str, ...] = ()
    """Ids of the concepts that something attached holds back."""
    rows: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Prompt -> one number for each of these concepts."""
    problem: str = ""


def score(model: ModelUnderTest, prompts: Iterable[str], executor: Executor[Any], setting: Setting) -> Permeabilities:
    """Ask what is attached to a model about prompts, each once; what was asked before comes from the store.

    Raises:
        PublisherError: the store's disk is full.
    """
    wanted = sorted(set(prompts))
    key = sha256_json({"permeabilities": model.key, "prompts": wanted, "machine": machine(setting)})
    stored = setting.store.note(key)
    if stored is not None:
        return _permeabilities(stored["concepts"], wanted, stored["rows"])
    if model.safeguards is None or not model.attached:
        return Permeabilities(problem="nothing is attached to the model")
    task = ScoreTask(model.folder, model.anatomy, model.safeguards, setting.device, setting.dtype, tuple(wanted))
    try:
        (found,) = dispatch(executor, rate, [task], lambda _, found: isinstance(found, Permeabilities))
    except Unmeasured as error:
        return Permeabilities(problem=str(error))
    finally:
        close_models()
    if not found.problem:
        data = {"concepts": list(found.concepts), "rows": [list(found.rows[prompt]) for prompt in wanted]}
        setting.store.put_note(key, data)
    return found


def rate(task: ScoreTask) -> Permeabilities:
    """Score prompts. A crash is an answer, not an exception."""
    try:
        import torch

        _, attached = opened(task.folder, task.anatomy, task.safeguards, task.device, task.dtype)
        rows = torch.cat([one.permeabilities(task.prompts) for one in attached], dim=1).tolist()
        return _permeabilities([name for one in attached for name in one.concepts], task.prompts, rows)
    except CRASHES as error:  # whatever the libraries raise, these numbers are not there
        return Permeabilities(problem=one_line(error))


def _permeabilities(concepts: Sequence[str], prompts: Sequence[str], rows: Sequence[Sequence[float]]) -> Permeabilities:
    found = {prompt: tuple(round(value, DIGITS) for value in row) for prompt, row in zip(prompts, rows, strict=True)}
    sound = all(len(row) == len(concepts) and all(0 <= value < math.inf for value in row) for row in found.values())
    return (
        Permeabilities(tuple(concepts), found) if sound else Permeabilities(problem="a permeability is no number >= 0")
    )


def table(permeabilities: Permeabilities, requests: Iterable[ImageRequest], scope: Scope) -> PermeabilityTable:
    """Return the rows that tell most: what is to go, the empty prompt, and the kept prompts that open most.

    Args:
        permeabilities: of every prompt of the checks.
        requests: of the checks.
        scope: says what is to stay.
    """
    asked: dict[str, str] = {}
    kept = {concept.id for concept in scope.keep}
    for request in requests:
        if request.concept in kept:
            asked.setdefault(request.prompt, request.concept)
    rows = [
        PermeabilityRow(concept=concept.id, prompt=prompt, kept=False, permeability=permeabilities.rows[prompt])
        for concept in scope.concepts
        if concept.id in permeabilities.concepts
        for prompt in _telling(concept, permeabilities)
    ]
    shown = {row.prompt for row in rows}
    stays = [("", "")] if "" in permeabilities.rows and "" not in shown else []
    others = sorted(set(asked) - shown - {""}, key=lambda prompt: (-sum(permeabilities.rows[prompt]), prompt))
    stays += [(asked[prompt], prompt) for prompt in others[:KEPT]]
    rows += [
        PermeabilityRow(concept=concept, prompt=prompt, kept=True, permeability=permeabilities.rows[prompt])
        for concept, prompt in stays
    ]
    return PermeabilityTable(membranes=permeabilities.concepts, rows=tuple(rows), prompts=len(permeabilities.rows))


def _telling(concept: Concept, permeabilities: Permeabilities) -> list[str]:
    """Return the first prompts and paraphrases of a concept that were asked for."""
    plain = [prompt for prompt in concept.prompts if prompt in permeabilities.rows]
    other = [prompt for prompt in concept.paraphrases if prompt in permeabilities.rows and prompt not in plain]
    return list(dict.fromkeys([*plain[:PROMPTS], *other[:PARAPHRASES]]))
