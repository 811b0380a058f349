"""Names to classes, with their origin."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pluggy

from publisher.api import Anatomy, Origin, PluginRecord
from publisher.errors import ModelError, UsageError

if TYPE_CHECKING:
    from publisher.registry.catalog import Catalog

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Contribution:
    """One class that a plugin brought."""

    kind: str
    name: str
    version: str
    summary: str
    cls: Any
    origin: Origin
    plugin: str
    """Name of the entry point."""

    def record(self) -> PluginRecord:
        """For the report."""
        return PluginRecord(kind=self.kind, name=self.name, version=self.version, origin=self.origin)


@dataclass(frozen=True)
class Broken:
    """A plugin that was set aside."""

    plugin: str
    origin: Origin
    reason: str


class Registry:
    """Everything that the installed plugins contribute."""

    def __init__(
        self, manager: pluggy.PluginManager, contributions: tuple[Contribution, ...], broken: tuple[Broken, ...]
    ) -> None:
        self._manager = manager
        self.contributions = tuple(sorted(contributions, key=lambda entry: (entry.kind, entry.name, entry.plugin)))
        self.broken = broken

    def all(self, kind: str) -> tuple[Contribution, ...]:
        """Contributions of a kind, sorted by name."""
        return tuple(entry for entry in self.contributions if entry.kind == kind)

    def names(self, kind: str) -> tuple[str, ...]:
        """Names of a kind, sorted, each once."""
        return tuple(dict.fromkeys(entry.name for entry in self.all(kind)))

    def collisions(self) -> dict[tuple[str, str], tuple[Contribution, ...]]:
        """(kind, name) -> contributions, where several plugins claim one name."""
        found: dict[tuple[str, str], list[Contribution]] = {}
        for entry in self.contributions:
            found.setdefault((entry.kind, entry.name), []).append(entry)
        return {key: tuple(entries) for key, entries in found.items() if len(entries) > 1}

    def get(self, kind: str, name: str) -> Contribution:
        """The one contribution of this name.

        Raises:
            UsageError: none (with near names), or several (with both origins).
        """
        found = [entry for entry in self.all(kind) if entry.name == name]
        if len(found) > 1:
            origins = " and ".join(f"{entry.origin.module} of {entry.origin.distribution}" for entry in found)
            raise UsageError(f"the {kind} {name!r} is provided by {origins}", hint="Uninstall one of them.")
        if not found:
            near = difflib.get_close_matches(name, self.names(kind), 1)
            hint = f"Did you mean {near[0]!r}?  " if near else ""
            hint += (
                f"Installed: {', '.join(self.names(kind)) or 'none'}.\nSee what is installed with: publisher plugins"
            )
            raise UsageError(f"no plugin provides the {kind.replace('_', ' ')} {name!r}", hint=hint)
        return found[0]

    def source_for(self, reference: str) -> Contribution:
        """The source of a model reference: by the whole, by the part before the colon, else a folder."""
        names = self.names("source")
        scheme = reference.split(":", 1)[0]
        if reference in names:
            return self.get("source", reference)
        if ":" in reference and not reference.startswith((".", "/", "~")):
            same = [name for name in names if name.startswith(f"{scheme}:")]
            if same:
                raise UsageError(f"there is no model {reference!r}", hint=f"There are: {', '.join(same)}.")
            return self.get("source", scheme)
        return self.get("source", "folder")

    def recognise(self, configs: Mapping[str, Mapping[str, Any]], where: str) -> tuple[Contribution, Anatomy]:
        """The family of a model and its parts.

        Raises:
            ModelError: no family, or several, recognise it.
        """
        found = []
        for entry in self.all("family"):
            anatomy = entry.cls().recognise(configs)
            if anatomy is not None:
                found.append((entry, anatomy))
        if len(found) == 1:
            return found[0]
        if not found:
            pipeline = configs.get("model_index", {}).get("_class_name")
            parts = ", ".join(sorted(set(configs) - {"model_index"}))
            reasons = [(entry.name, entry.cls().why_not(configs)) for entry in self.all("family")]
            lines = [f"{name}: {reason}" for name, reason in reasons if reason]
            lines.append(f"Known families: {', '.join(self.names('family'))}. A plugin can bring another.")
            raise ModelError(
                f"{pipeline} with the components {parts} is of no known family", where=where, hint="\n".join(lines)
            )
        names = ", ".join(entry.name for entry, _ in found)
        raise ModelError(f"several families recognise this model: {names}", where=where)

    def notify(self, hook: str, event: Any) -> list[str]:
        """Tell observers; what they raise is returned as text and changes nothing."""
        problems = []
        for name, plugin in self._manager.list_name_plugin():
            if plugin is None or not hasattr(plugin, hook):
                continue
            try:
                getattr(plugin, hook)(event)
            except Exception as error:  # noqa: BLE001  # an observer cannot stop a release
                problems.append(f"observer {name}: {hook} raised {type(error).__name__}: {error}")
                log.warning("%s", problems[-1])
        return problems

    def catalog(self) -> Catalog:
        """What the manifest has to know of plugins: names, parameters, labels."""
        from publisher.registry.catalog import Catalog

        return Catalog(self)
