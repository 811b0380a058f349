"""A plugin that is tested: its class, what it is given, and a private copy of a very small model to work on."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from publisher.api import Concept, Params, Scope
from publisher.api.model_files import INDEX
from publisher.errors import UsageError
from publisher.model.inputs import locate_input
from publisher.registry.load import KINDS

if TYPE_CHECKING:
    from publisher.model.state import State


def _concept(name: str, synonym: str, description: str) -> Concept:
    return Concept(
        id=name,
        name=name,
        synonyms=(synonym,),
        prompts=(f"a {name} emoji", f"a photo of a {name}", f"{name} in the street"),
        paraphrases=(f"a {synonym} emoji", f"a photo of a {synonym}"),
        description=description,
        label=name,
    )


SCOPE = Scope(
    concepts=(_concept("cigarette", "smoke", "a small white thing with a red end"),),
    keep=(_concept("pizza", "pie", "a round yellow thing"), _concept("dog", "hound", "an animal with four feet")),
)
"""Concepts that a plugin is tested with where its author names no others: one to go, two to stay."""


class BrokenRuleError(AssertionError):
    """A plugin breaks a rule of its contract: the message says how, and what its author can do."""


Rule = Callable[["PluginUnderTest"], None]
"""A rule of the contract.

Raises:
    BrokenRuleError: the plugin breaks it.
"""


def demand(condition: object, what: str) -> None:
    """Refuse what breaks a rule.

    Raises:
        BrokenRuleError: the condition does not hold.
    """
    if not condition:
        raise BrokenRuleError(what)


@dataclass(frozen=True)
class PluginUnderTest:
    """A class, and what it is tested with. What is expensive is made once and kept."""

    plugin: type[Any]
    given: Mapping[str, Any] = field(default_factory=dict)
    """Parameters, as a manifest has them."""
    scope: Scope = SCOPE
    files: Mapping[str, Path] = field(default_factory=dict)
    """Name, as the plugin's ``inputs`` gives it -> the file or folder."""
    folder: Path | None = None
    """Model to work on, or that a family recognises; None: a very small Stable Diffusion."""
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """``"model_index"`` and each component's folder name -> its configuration: a model for a family to recognise."""

    @cached_property
    def kind(self) -> str:
        """Kind of the plugin, as ``publisher plugins`` names it.

        Raises:
            UsageError: the class derives from none of the classes that plugins derive from.
        """
        for kind, (_, base) in KINDS.items():
            if isinstance(self.plugin, type) and issubclass(self.plugin, base):
                return kind
        bases = ", ".join(f"api.{base.__name__}" for _, base in KINDS.values())
        raise UsageError(f"{self.plugin!r} is no plugin", hint=f"Give a class that derives from one of: {bases}.")

    @cached_property
    def params(self) -> Any:
        """Parameters, checked against the plugin's model; None: its kind has none."""
        model: type[Params] | None = getattr(self.plugin, "Params", None)
        return None if model is None else model.parse(self.given)

    @cached_property
    def inputs(self) -> dict[str, Path]:
        """Name of each file that the plugin reads -> where it is: as given, or in an installed package."""
        plain = self.plugin(self.params) if self.kind == "scorer" else self.plugin()
        names = plain.inputs() if self.kind == "scorer" else plain.inputs(self.params)
        found = {name: locate_input(name, Path(), f"the {self.kind}", fetch=False) for name in names if ":" in name}
        return {**{name: path for name, path in found.items() if path is not None}, **self.files}

    def make(self) -> Any:
        """Return an instance, as a release makes it, with its files."""
        instance = self.plugin(self.params) if self.kind in ("scorer", "executor") else self.plugin()
        if self.kind in ("step", "scorer"):
            instance.files = dict(self.inputs)
        if self.kind == "scorer":
            instance.scope = self.scope
        return instance

    @cached_property
    def model(self) -> State:
        """State before a step: of a copy that this plugin alone can spoil."""
        from publisher.testing.tiny import open_model

        return open_model(Path(shutil.copytree(self.place, new_folder() / "model")))

    @cached_property
    def place(self) -> Path:
        """Folder of the model, or of its configurations."""
        if not self.configs:
            return self.folder or tiny_folder()
        folder = new_folder()
        for name, config in self.configs.items():
            path = folder / INDEX if name == "model_index" else folder / name / "config.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(config), encoding="utf-8")
        for name in self.configs.get("model_index", {}):
            if not name.startswith("_"):
                (folder / name).mkdir(exist_ok=True)
        return folder

    @cached_property
    def results(self) -> dict[str, Any]:
        """Name -> what a rule has computed and others read."""
        return {}


@cache
def tiny_folder() -> Path:
    """Return a very small Stable Diffusion with random weights, made once a process."""
    from publisher.testing.tiny import save_tiny_model

    return save_tiny_model(new_folder() / "tiny")


def new_folder() -> Path:
    """Return a new empty folder that is removed when the process ends."""
    return Path(tempfile.mkdtemp(dir=_root()))


@cache
def _root() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="publisher-testing-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
