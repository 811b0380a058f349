"""What a manifest can name: the resolver's view of the installed plugins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from publisher.api import ModelDefaults, Params
from publisher.api.searching import Budget


class Catalog(Protocol):
    """Installed plugin classes by kind and name. Loads nothing heavy."""

    def names(self, kind: str) -> tuple[str, ...]:
        """Return the names of one kind, sorted.

        Args:
            kind: ``step``, ``attack``, ``scorer``, ``metric``, ``executor`` or ``source``.
        """

    def params(self, kind: str, name: str) -> type[Params]:
        """Return the parameter model of an installed plugin that has parameters."""

    def labels(self, scorer: str, params: Mapping[str, Any]) -> Mapping[str, Sequence[str] | None]:
        """Return kind -> labels of an installed scorer, without those that no prompt can ask for (``nothing``).

        Args:
            scorer: its name.
            params: that fit its parameter model.

        Returns:
            None in place of labels where the scorer takes any.

        Raises:
            PluginError: it crashed.
        """

    def source_problem(self, reference: str) -> str | None:
        """Return why no installed source takes this model reference, or None. Touches neither disk nor network."""

    def model_defaults(self, reference: str) -> ModelDefaults:
        """Return what the source of a model knows of manifests for it. Touches neither disk nor network.

        Raises:
            PluginError: it crashed.
        """

    def searches(self, budget: Budget) -> tuple[str, ...]:
        """Return the names of the installed attacks that search with this budget, sorted."""

    def excuse(self, kind: str, name: str) -> str | None:
        """Return why a plugin that may have provided this name was set aside, or None."""

    def conflict(self, kind: str, name: str) -> str | None:
        """Return a message that names the origins of all plugins that claim this name; None: at most one does."""
