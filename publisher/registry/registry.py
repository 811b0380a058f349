"""Names to classes, with their origin."""

from __future__ import annotations

import copy
import difflib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from publisher.api import Anatomy, Origin, PluginRecord
from publisher.errors import INTERRUPTS, ModelError, PluginError, PublisherError, UsageError, in_words
from publisher.program import command

if TYPE_CHECKING:
    from publisher.registry.catalog import RegistryCatalog

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
        """Return what the report says of it."""
        return PluginRecord(kind=self.kind, name=self.name, version=self.version, origin=self.origin)

    @property
    def place(self) -> str:
        """Module and distribution, for messages."""
        return f"{self.origin.module} of {self.origin.distribution}"

    @contextmanager
    def asked(self, what: str) -> Iterator[None]:
        """Ask the plugin's class something inside this block.

        Raises:
            PluginError: it raised something that is not one of our errors; the message names its origin.
        """
        try:
            yield
        except (PublisherError, *INTERRUPTS):
            raise
        except BaseException as error:
            raise PluginError(
                f"the {self.kind.replace('_', ' ')} {self.name!r} crashed when asked {what}: {in_words(error)}",
                hint=f"It is {self.place} {self.origin.version}. Run again with --debug for the traceback.",
            ) from error

    def make(self, params: Mapping[str, Any] | None = None) -> Any:
        """Return an instance of the class.

        Args:
            params: those of a class that is made with parameters; None: it is made without.

        Raises:
            PluginError: it cannot be made, or not with these parameters.
        """
        with self.asked("for an instance"):
            return self.cls() if params is None else self.cls(self.cls.Params.parse(params))


@dataclass(frozen=True)
class Broken:
    """A plugin that was set aside."""

    plugin: str
    origin: Origin
    reason: str


class Registry:
    """Everything that the installed plugins contribute."""

    def __init__(
        self,
        observers: tuple[tuple[str, Any], ...],
        contributions: tuple[Contribution, ...],
        broken: tuple[Broken, ...],
    ) -> None:
        self.observers = observers
        self.contributions = tuple(
            sorted(contributions, key=lambda entry: (entry.kind, entry.name, entry.plugin, entry.place))
        )
        self.broken = broken

    def all(self, kind: str) -> tuple[Contribution, ...]:
        """Return contributions of a kind, sorted by name."""
        return tuple(entry for entry in self.contributions if entry.kind == kind)

    def names(self, kind: str) -> tuple[str, ...]:
        """Return names of a kind, sorted, each once."""
        return tuple(dict.fromkeys(entry.name for entry in self.all(kind)))

    def collisions(self) -> dict[tuple[str, str], tuple[Contribution, ...]]:
        """Return (kind, name) -> contributions, where several plugins claim one name."""
        found: dict[tuple[str, str], list[Contribution]] = {}
        for entry in self.contributions:
            found.setdefault((entry.kind, entry.name), []).append(entry)
        return {key: tuple(entries) for key, entries in found.items() if len(entries) > 1}

    def get(self, kind: str, name: str) -> Contribution:
        """Return the one contribution of this name.

        Raises:
            UsageError: none (with near names), or several (with both origins).
        """
        found = [entry for entry in self.all(kind) if entry.name == name]
        if len(found) > 1:
            raise collision(found)
        if not found:
            near = difflib.get_close_matches(name, self.names(kind), 1)
            hint = f"Did you mean {near[0]!r}?  " if near else ""
            hint += (
                f"Installed: {', '.join(self.names(kind)) or 'none'}.\nSee what is installed with: {command('plugins')}"
            )
            raise UsageError(f"no plugin provides the {kind.replace('_', ' ')} {name!r}", hint=hint)
        return found[0]

    def source_for(self, reference: str) -> Contribution:
        """Return the source of a model reference: by the whole, by the part before the colon, else a folder."""
        if ":" not in reference or reference.startswith((".", "/", "~")):
            return self.get("source", "folder")
        names, scheme = self.names("source"), reference.split(":", 1)[0]
        claimed = [self.get("source", name) for name in (reference, scheme) if name in names]
        if len(claimed) > 1:
            raise collision(claimed)
        same = [name for name in names if name.startswith(f"{scheme}:")]
        if same and not claimed:
            raise UsageError(f"there is no model {reference!r}", hint=f"There are: {', '.join(same)}.")
        return claimed[0] if claimed else self.get("source", scheme)

    def require_single(self, kind: str) -> tuple[Contribution, ...]:
        """Return all contributions of a kind, for what uses all of them.

        Raises:
            UsageError: two plugins claim one name.
        """
        for (found, _), entries in self.collisions().items():
            if found == kind:
                raise collision(entries)
        return self.all(kind)

    def recognise(self, configs: Mapping[str, Mapping[str, Any]], where: str) -> tuple[Contribution, Anatomy]:
        """Return the family of a model and its parts.

        Raises:
            ModelError: no family, or several, recognise it.
        """
        found: list[tuple[Contribution, Anatomy]] = []
        reasons: list[tuple[Contribution, str]] = []
        refusals: list[PublisherError] = []
        for entry in self.all("family"):
            try:
                with entry.asked("whether it knows this model"):
                    found += [(entry, anatomy)] if (anatomy := _anatomy(entry, configs)) else []
                    reasons.append((entry, "" if anatomy else str(entry.cls().why_not(configs))))
            except PluginError as error:
                reasons.append((entry, error.what))
                log.warning("%s", error)
            except PublisherError as error:
                refusals.append(error)
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(f"{entry.name} ({entry.place})" for entry, _ in found)
            raise ModelError(f"several families recognise this model: {names}", where=where)
        if refusals:
            raise refusals[0]
        pipeline = configs.get("model_index", {}).get("_class_name")
        parts = ", ".join(sorted(set(configs) - {"model_index"}))
        lines = [f"{entry.name}: {reason}" for entry, reason in reasons if reason]
        lines.append(f"Known families: {', '.join(self.names('family'))}. A plugin can bring another.")
        raise ModelError(
            f"{pipeline} with the components {parts} is of no known family", where=where, hint="\n".join(lines)
        )

    def notify(self, hook: str, event: Any) -> list[str]:
        """Tell observers, each with a copy: nothing that they do to it changes the release.

        Returns:
            What they raised, as text.
        """
        problems = []
        for name, plugin in self.observers:
            try:
                if told := getattr(plugin, hook, None):
                    told(copy.deepcopy(event))
            except INTERRUPTS:
                raise
            except BaseException as error:  # noqa: BLE001  # an observer cannot stop a release
                problems.append(f"observer {name}: {hook} raised {in_words(error)}")
        return problems

    def catalog(self) -> RegistryCatalog:
        """Return what the manifest has to know of plugins: names, parameters, labels."""
        from publisher.registry.catalog import RegistryCatalog

        return RegistryCatalog(self)


def collision(entries: Sequence[Contribution]) -> UsageError:
    """Return the error for two plugins that claim one name."""
    first, places = entries[0], " and ".join(entry.place for entry in entries)
    return UsageError(
        f"the {first.kind.replace('_', ' ')} {first.name!r} is provided by {places}", hint="Uninstall one of them."
    )


def _anatomy(entry: Contribution, configs: Mapping[str, Mapping[str, Any]]) -> Anatomy | None:
    anatomy = entry.cls().recognise(configs)
    if anatomy is None or isinstance(anatomy, Anatomy):
        return anatomy
    raise TypeError(f"recognise returned {type(anatomy).__name__}, not an Anatomy")
