"""Whether the plugins that a manifest names are there and take the parameters that it gives them.

Works on the manifest's plain data, so that a wrong key elsewhere does not hide a wrong name here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from publisher.errors import INTERRUPTS, in_words
from publisher.manifest.catalog import Catalog
from publisher.manifest.messages import add_errors
from publisher.manifest.nearest import suggestion
from publisher.manifest.places import Path, Problems
from publisher.program import command


def add_plugin_problems(data: dict[str, Any], problems: Problems, catalog: Catalog) -> None:
    """Put a problem for each name that no plugin provides and each parameter that its plugin refuses."""
    evaluate = _mapping(data, "evaluate")
    entries = list(_entries(evaluate, "scorers"))
    look = _Look(problems, catalog, tuple(str(entry["id"]) for _, entry in entries if entry.get("id")))
    look.source(data.get("model"), ("model",))
    look.scorer(_mapping(data, "keep").get("rest_of"), ("keep", "rest_of"), "'rest_of' names the scorer")
    for position, step in _entries(data, "steps"):
        look.entry("step", step, ("steps", position), f"step {position + 1} uses")
    look.name("scorer", evaluate.get("scorer"), ("evaluate", "scorer"), "'evaluate' uses the scorer")
    for position, entry in entries:
        look.entry("scorer", entry, ("evaluate", "scorers", position), "'evaluate' uses the scorer")
    look.source(evaluate.get("retrained"), ("evaluate", "retrained"))
    executor, place = evaluate.get("executor"), ("evaluate", "executor")
    if isinstance(executor, dict):
        look.entry("executor", {"use": "local", **executor}, place, "'evaluate' uses the executor")
    else:
        look.name("executor", executor, place, "'evaluate' uses the executor")
    for position, check in _entries(evaluate, "checks"):
        look.check(check, ("evaluate", "checks", position), f"check {position + 1}")


def _mapping(data: dict[str, Any], key: str) -> dict[str, Any]:
    value = data.get(key)
    return value if isinstance(value, dict) else {}


def _entries(data: dict[str, Any], key: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the mappings in a list, with their positions."""
    value = data.get(key)
    for position, entry in enumerate(value if isinstance(value, list) else []):
        if isinstance(entry, dict):
            yield position, entry


@dataclass
class _Look:
    problems: Problems
    catalog: Catalog
    ids: tuple[str, ...]
    """Ids of the entries under ``evaluate.scorers``."""

    def source(self, reference: Any, path: Path) -> None:
        wrong = self.catalog.source_problem(reference) if isinstance(reference, str) and reference else None
        if wrong:
            message, _, hint = wrong.partition("\n")
            self.problems.at_value(path, f"'{path[-1]}': {_sentence(message)}", hint)

    def entry(self, kind: str, entry: dict[str, Any], path: Path, who: str) -> None:
        """Look at a use of a plugin: ``{use: name, with: parameters}``."""
        if self.name(kind, entry.get("use"), (*path, "use"), who):
            self.params(kind, entry["use"], entry.get("with", {}), (*path, "with"))

    def scorer(self, name: Any, path: Path, who: str) -> None:
        """Look at a name that stands for an entry under ``evaluate.scorers``, or for an installed scorer."""
        if name not in self.ids:
            self.name("scorer", name, path, who, self.ids)

    def check(self, check: dict[str, Any], path: Path, what: str) -> None:
        self.scorer(check.get("scorer") or None, (*path, "scorer"), f"{what} uses the scorer")
        for kind in ("attack", "metric"):
            if self.name(kind, check.get(kind), (*path, kind), f"{what} uses the {kind}"):
                key = f"{kind}_params"
                self.params(kind, check[kind], check.get(key, {}), (*path, key))

    def name(self, kind: str, name: Any, path: Path, who: str, others: Sequence[str] = ()) -> bool:
        """Return whether the name is there and a plugin provides it; ``others`` are further names to suggest."""
        if not isinstance(name, str):
            return False  # absent, or the form is wrong, which the schema says
        known = self.catalog.names(kind)
        if name in known:
            if conflict := self.catalog.conflict(kind, name):
                message, _, hint = conflict.partition("\n")
                self.problems.at_value(path, _sentence(message), hint.strip())
            return not conflict
        excuse = self.catalog.excuse(kind, name)
        hints = [_sentence(excuse[:1].upper() + excuse[1:])] if excuse else []
        hints += [suggestion(name, (*others, *known), f"Installed {kind}s")]
        hints += [f"See what is installed with: {command('plugins')}"]
        self.problems.at_value(path, f"{who} '{name}', which no plugin provides.", "\n".join(hints))
        return False

    def params(self, kind: str, name: str, values: Any, path: Path) -> None:
        if not isinstance(values, dict):
            return  # the schema says so
        model = self.catalog.params(kind, name)
        try:
            model.parse(values)
        except ValidationError as error:
            add_errors(error, model, self.problems, path)
        except INTERRUPTS:
            raise
        except BaseException as error:  # noqa: BLE001  # a plugin's validators are foreign code
            self.problems.at_value(path, f"the {kind} '{name}' cannot read its parameters: {in_words(error)}.")


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."
