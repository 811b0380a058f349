"""The registry as the manifest's resolver sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from publisher.api import ModelDefaults, Params, SearchAttack
from publisher.api.searching import Budget
from publisher.errors import UsageError
from publisher.registry.registry import collision

if TYPE_CHECKING:
    from publisher.registry.registry import Registry


class RegistryCatalog:
    """Names, parameters and labels; no plugin is run."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def names(self, kind: str) -> tuple[str, ...]:
        """Return names of a kind, sorted."""
        return self._registry.names(kind)

    def params(self, kind: str, name: str) -> type[Params]:
        """Return the parameter model of a plugin that has parameters."""
        model: type[Params] = self._registry.get(kind, name).cls.Params
        return model

    def labels(self, scorer: str, params: Mapping[str, Any] | None = None) -> Mapping[str, Sequence[str] | None]:
        """Return kind -> labels that the scorer can give with these parameters; None: any label.

        Raises:
            PluginError: it crashed.
        """
        entry = self._registry.get("scorer", scorer)
        instance = entry.make(params or {})
        with entry.asked("for its labels"):
            found: Mapping[str, Sequence[str] | None] = {
                str(kind): None if names is None else tuple(map(str, names))
                for kind, names in instance.labels().items()
            }
        return found

    def source_problem(self, reference: str) -> str | None:
        """Return what is wrong with a model reference, or None."""
        try:
            entry = self._registry.source_for(reference)
            with entry.asked("about a reference"):
                problem: str | None = entry.cls().check(reference)
        except UsageError as error:
            return str(error)
        return problem

    def model_defaults(self, reference: str) -> ModelDefaults:
        """Return what the model's source says for manifests that leave it out.

        Raises:
            PluginError: it crashed.
        """
        entry = self._registry.source_for(reference)
        with entry.asked("for its defaults"):
            defaults: ModelDefaults = entry.cls().defaults(reference)
        return defaults

    def conflict(self, kind: str, name: str) -> str | None:
        """Return the origins of a name that several plugins claim, as a message; None: at most one does."""
        entries = self._registry.collisions().get((kind, name))
        return str(collision(entries)) if entries else None

    def searches(self, budget: Budget) -> tuple[str, ...]:
        """Return the names of attacks that search with this budget, sorted: its suite."""
        found = (entry.cls for entry in self._registry.all("attack"))
        searching = [cls for cls in found if issubclass(cls, SearchAttack)]
        return tuple(sorted({cls.name for cls in searching if budget in cls.budgets.keys() & cls.suites}))

    def excuse(self, kind: str, name: str) -> str | None:
        """Tell why a plugin that might provide this was set aside, for a better message."""
        stem = name.replace("-", "_")
        for broken in self._registry.broken:
            if stem in broken.plugin.replace("-", "_") or stem in broken.origin.module:
                return f"the plugin {broken.plugin!r}, which may provide this {kind}, was set aside: {broken.reason}"
        return None
