"""What a manifest can name: the resolver's view of the installed plugins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from publisher.api import Params


class Catalog(Protocol):
    """Installed plugin classes by kind and name. Loads nothing heavy."""

    def names(self, kind: str) -> tuple[str, ...]:
        """Names of one kind, sorted.

        Args:
            kind: ``step``, ``attack``, ``scorer``, ``metric``, ``executor`` or ``source``.
        """

    def params(self, kind: str, name: str) -> type[Params]:
        """Parameter model of an installed step, attack or metric."""

    def labels(self, scorer: str) -> Mapping[str, Sequence[str]]:
        """Kind -> labels of an installed scorer, without those that no prompt can ask for (``nothing``)."""

    def source_problem(self, reference: str) -> str | None:
        """Why no installed source takes this model reference, or None. Touches neither disk nor network."""

    def excuse(self, kind: str, name: str) -> str | None:
        """Why a plugin that may have provided this name was set aside, or None."""

    def conflict(self, kind: str, name: str) -> str | None:
        """Which plugins claim this name, as a message that names their origins; None: at most one does."""
