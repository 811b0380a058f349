"""A catalogue of made-up plugins, and a small manifest that uses it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from publisher.api import ModelDefaults, NoParams, Params


class Schedule(Params):
    """How long to go on."""

    epochs: int = Field(default=3, ge=0, le=50)
    """Rounds."""


class EraseParams(Params):
    """Parameters of the made-up step."""

    method: Literal["uce", "rece"] = "rece"
    """Which paper."""
    rho: float = Field(default=0.1, gt=0)
    """Weight of staying near."""
    schedule: Schedule = Schedule()
    """How long to go on."""


class MaskParams(Params):
    """Parameters of another step."""

    share: float = Field(gt=0, lt=1)
    """Share of the tensors to lock."""


class SynonymParams(Params):
    """Parameters of an attack."""

    limit: int = Field(default=5, ge=1)
    """At most so many synonyms."""


class AnyParams(Params):
    """Parameters of a scorer."""

    any: tuple[str, ...] = ()
    """Kinds of which it takes any label."""


class WorkerParams(Params):
    """Parameters of an executor."""

    workers: int = Field(default=1, ge=1)
    """Processes."""


class FakeCatalog:
    """Two steps, two attacks, two scorers, one metric."""

    models: Mapping[str, Mapping[str, type[Params]]] = {
        "step": {"erase": EraseParams, "freeze-mask": MaskParams},
        "attack": {"plain": NoParams, "synonyms": SynonymParams},
        "metric": {"rate": NoParams},
        "scorer": {"emoji": NoParams, "objects": AnyParams},
        "executor": {"local": WorkerParams},
    }
    scorers: Mapping[str, Mapping[str, Sequence[str]]] = {
        "emoji": {
            "object": ("cigarette", "pistol", "police officer", "t-shirt", "apple"),
            "style": ("noto", "blob", "apple"),
        },
        "objects": {"object": ("cigarette",)},
    }

    defaults: Mapping[str, ModelDefaults] = {
        "embedded:known": ModelDefaults(
            object=("{a} {name} emoji",),
            style=("{a} {object} emoji in {name} style",),
            scorer="emoji",
            steps=4,
            guidance=3.0,
        ),
    }

    def names(self, kind: str) -> tuple[str, ...]:
        return tuple(sorted({**self.models, "source": ("embedded:emoji", "folder", "hf")}[kind]))

    def params(self, kind: str, name: str) -> type[Params]:
        return self.models[kind][name]

    def labels(self, scorer: str, params: Mapping[str, Any]) -> Mapping[str, Sequence[str] | None]:
        return {**self.scorers[scorer], **dict.fromkeys(params.get("any", ()))}

    def source_problem(self, reference: str) -> str | None:
        return "no plugin provides the source 'ftp'\nInstalled: folder, hf." if reference.startswith("ftp:") else None

    def model_defaults(self, reference: str) -> ModelDefaults:
        return self.defaults.get(reference, ModelDefaults())

    def searches(self, budget: str) -> tuple[str, ...]:
        return ()

    def excuse(self, kind: str, name: str) -> str | None:
        return f"the plugin 'broken', which may provide this {kind}, was set aside: no x" if name == "broken" else None

    def conflict(self, kind: str, name: str) -> str | None:
        return None


SMALL = """\
manifest: 1
release: {name: emoji-clean, version: 1.0.0, license: CC-BY-4.0}
model: embedded:emoji
prompts:
  object: ["{a} {name} emoji"]
  style: ["{a} {object} in {name} style"]
concepts: [cigarette]
keep: {rest_of: emoji}
steps: [{use: erase}]
evaluate: {scorer: emoji}
"""
