"""Entry points, one by one behind a guard: a broken plugin is a line in ``publisher plugins``, never a traceback.

pluggy calls the plugin registered last first, one raising implementation loses the results of all, and a second plugin
of one name is refused; so each plugin has a manager of its own.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import Distribution, EntryPoint, distributions
from itertools import islice
from threading import Timer
from typing import Any

import pluggy

from publisher.api import (
    Access,
    Attack,
    Executor,
    Metric,
    ModelFamily,
    ModelSource,
    Origin,
    Params,
    ReportFormat,
    Scorer,
    Step,
    hookspecs,
)
from publisher.errors import INTERRUPTS, in_words
from publisher.registry.origin import DISTRIBUTION, named, origin_of
from publisher.registry.registry import Broken, Contribution, Registry

log = logging.getLogger(__name__)

GROUP = "publisher"
KINDS: dict[str, tuple[str, type]] = {
    "step": ("publisher_register_steps", Step),
    "attack": ("publisher_register_attacks", Attack),
    "scorer": ("publisher_register_scorers", Scorer),
    "metric": ("publisher_register_metrics", Metric),
    "family": ("publisher_register_families", ModelFamily),
    "source": ("publisher_register_sources", ModelSource),
    "executor": ("publisher_register_executors", Executor),
    "report_format": ("publisher_register_report_formats", ReportFormat),
}
WITH_PARAMS = ("step", "attack", "metric", "scorer", "executor")
SLOW_S = 2.0
"""Seconds after which the user is told whose import they are waiting for."""
MOST = 1000
"""Classes that one hook may return."""


class _RefusedError(Exception):
    """Why a plugin is set aside."""

    def __str__(self) -> str:
        return str(self.args[0])


@cache
def load_registry() -> Registry:
    """Return the registry of everything installed in this environment; made once a process."""
    points, broken = installed(distributions())
    return build_registry(points, broken)


def installed(found: Iterable[Distribution]) -> tuple[list[EntryPoint], list[Broken]]:
    """Return the entry points of our group, and the distributions whose entry points cannot be read.

    The first distribution of a name hides later ones, as it does for imports.
    """
    points: list[EntryPoint] = []
    broken: list[Broken] = []
    seen = set()
    for distribution in found:
        name, version = named(distribution)
        key = name.lower().replace("_", "-").replace(".", "-")
        if key in seen and key != "unknown":
            continue
        seen.add(key)
        try:
            points += distribution.entry_points.select(group=GROUP)
        except INTERRUPTS:
            raise
        except BaseException as error:  # noqa: BLE001  # whatever stands in a foreign folder
            origin = Origin(distribution=name, version=version, module="entry_points.txt", digest="")
            broken.append(Broken(name, origin, f"its entry points cannot be read: {in_words(error)}"))
    return points, broken


def build_registry(points: Iterable[EntryPoint], broken: Iterable[Broken] = ()) -> Registry:
    """Return a registry of these entry points, asked in the order of their names."""
    observers: list[tuple[str, Any]] = []
    contributions: list[Contribution] = []
    aside = list(broken)
    for point in sorted(points, key=lambda point: (point.name, point.value)):
        with _told_when_slow(point):
            origin = origin_of(point)
            try:
                plugin, brought = _admit(point, origin)
            except INTERRUPTS:
                raise
            except BaseException as error:  # noqa: BLE001  # whatever a foreign module raises when imported or asked
                reason = str(error) if isinstance(error, _RefusedError) else in_words(error)
                aside.append(Broken(point.name, origin, reason))
            else:
                observers.append((point.name, plugin))
                contributions += brought
    return Registry(tuple(observers), tuple(contributions), tuple(aside))


@contextmanager
def _told_when_slow(point: EntryPoint) -> Iterator[None]:
    text = f"importing the plugin {point.name!r} ({point.value}) takes more than {SLOW_S:g} s ..."
    timer = Timer(SLOW_S, log.warning, ("%s", text))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _admit(point: EntryPoint, origin: Origin) -> tuple[Any, list[Contribution]]:
    """Import a plugin and ask it what it brings. Nothing of it counts unless all of it is sound."""
    if not EntryPoint.pattern.match(point.value):
        raise _RefusedError(f"its entry point {point.value!r} is neither 'module' nor 'module:object'")
    plugin = point.load()
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    _check_hooks(manager, plugin)
    manager.register(plugin, name="plugin")
    return plugin, [entry for kind in KINDS for entry in _ask(manager, kind, point.name, origin)]


def _check_hooks(manager: pluggy.PluginManager, plugin: Any) -> None:
    known = {name for name in dir(hookspecs) if name.startswith("publisher_")}
    found = 0
    for name in dir(plugin):
        options = manager.parse_hookimpl_opts(plugin, name)
        if options is None:
            if name.startswith("publisher_") and callable(getattr(plugin, name)):
                raise _RefusedError(f"{name} is not marked: put @publisher.api.hookimpl above it")
            continue
        if name not in known:
            raise _RefusedError(f"there is no hook {name!r}; the hooks are: {', '.join(sorted(known))}")
        if options.get("wrapper") or options.get("hookwrapper"):
            raise _RefusedError(f"{name} is a hook wrapper, which could change what other plugins say")
        found += 1
    if not found:
        raise _RefusedError("it implements no hook")


def _ask(manager: pluggy.PluginManager, kind: str, point: str, origin: Origin) -> list[Contribution]:
    hook, base = KINDS[kind]
    classes = [cls for answer in getattr(manager.hook, hook)() for cls in islice(answer, MOST + 1)]
    if len(classes) > MOST:
        raise _RefusedError(f"{hook} returns more than {MOST} classes")
    return [_contribution(cls, base, kind, point, origin) for cls in classes]


def _contribution(cls: Any, base: type, kind: str, point: str, origin: Origin) -> Contribution:
    if not _derives(cls, base):
        raise _RefusedError(
            f"it registers {cls!r} as {kind}, which is no class derived from publisher.api.{base.__name__}"
        )
    if inspect.isabstract(cls):
        missing = ", ".join(sorted(cls.__abstractmethods__))
        raise _RefusedError(f"{kind} {cls.__name__} lacks {missing}")
    for attribute in ("name", "version"):
        if not isinstance(getattr(cls, attribute, None), str) or not getattr(cls, attribute):
            raise _RefusedError(f"{kind} {cls.__name__} has no {attribute}")
    if not isinstance(cls.summary, str) or not isinstance(cls.__doc__ or "", str):
        raise _RefusedError(f"the summary or the docstring of {kind} {cls.__name__} is no text")
    _require_kind(cls, kind)
    if kind in WITH_PARAMS:
        if not _derives(getattr(cls, "Params", None), Params):
            raise _RefusedError(f"the Params of {kind} {cls.__name__} are no publisher.api.Params")
        if origin.distribution != DISTRIBUTION:  # of ours, the reference pages and their tests have the schemas
            cls.Params.model_json_schema()
    where = origin.model_copy(update={"module": f"{cls.__module__}:{cls.__qualname__}"})
    return Contribution(kind, cls.name, cls.version, cls.summary, cls, where, point)


def why_refused(cls: Any, kind: str) -> str:
    """Return why a class could not be registered as this kind; empty: it could.

    Args:
        cls: what a plugin's hook would return.
        kind: one of :data:`KINDS`.
    """
    try:
        _contribution(cls, KINDS[kind][1], kind, "", Origin(distribution="", version="", module=""))
    except _RefusedError as error:
        return str(error)
    return ""


def _require_kind(cls: Any, kind: str) -> None:
    """Refuse a class that does not say what its kind alone has to say."""
    if kind == "attack" and not isinstance(getattr(cls, "access", None), Access):
        names = ", ".join(f"Access.{access.name}" for access in Access)
        raise _RefusedError(
            f"attack {cls.__name__} does not say what an attacker needs to have: set access to one of {names}"
        )
    if kind == "metric" and not isinstance(cls.resistance, bool):
        raise _RefusedError(f"resistance of metric {cls.__name__} is neither True nor False")


def _derives(cls: Any, base: type) -> bool:
    return inspect.isclass(cls) and issubclass(cls, base)
