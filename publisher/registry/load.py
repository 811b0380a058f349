"""Entry points, one by one behind a guard: a broken plugin is a line in ``publisher plugins``, never a traceback.

pluggy calls the plugin registered last first, and one raising implementation loses the results of all; so each plugin
is asked alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy

from publisher.api import (
    Attack,
    Executor,
    Metric,
    ModelFamily,
    ModelSource,
    Origin,
    ReportFormat,
    Scorer,
    Step,
    hookspecs,
)
from publisher.registry.origin import origin_of
from publisher.registry.registry import Broken, Contribution, Registry

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


class _RefusedError(Exception):
    """Why a plugin is set aside."""


@cache
def load_registry() -> Registry:
    """The registry of everything installed in this environment; made once a process."""
    return build_registry(entry_points(group=GROUP))


def build_registry(points: Iterable[EntryPoint]) -> Registry:
    """A registry of these entry points, asked in the order of their names."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    contributions: list[Contribution] = []
    broken: list[Broken] = []
    for point in sorted(points, key=lambda point: (point.name, point.value)):
        origin = origin_of(point)
        try:
            contributions += _admit(manager, point, origin)
        except _RefusedError as refusal:
            broken.append(Broken(point.name, origin, str(refusal)))
        except Exception as error:  # noqa: BLE001  # whatever a foreign module raises when it is imported or asked
            broken.append(Broken(point.name, origin, f"{type(error).__name__}: {error}"))
    return Registry(manager, tuple(contributions), tuple(broken))


def _admit(manager: pluggy.PluginManager, point: EntryPoint, origin: Origin) -> list[Contribution]:
    plugin = point.load()
    _check_hooks(manager, plugin)
    manager.register(plugin, name=point.name)
    try:
        return [entry for kind in KINDS for entry in _ask(manager, plugin, kind, point.name, origin)]
    except BaseException:
        manager.unregister(plugin)
        raise


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


def _ask(manager: pluggy.PluginManager, plugin: Any, kind: str, point: str, origin: Origin) -> list[Contribution]:
    hook, base = KINDS[kind]
    others = [other for other in manager.get_plugins() if other is not plugin]
    answers = manager.subset_hook_caller(hook, others)()
    classes = [cls for answer in answers for cls in answer]
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
    where = origin.model_copy(update={"module": f"{cls.__module__}:{cls.__qualname__}"})
    return Contribution(kind, cls.name, cls.version, getattr(cls, "summary", ""), cls, where, point)


def _derives(cls: Any, base: type) -> bool:
    return inspect.isclass(cls) and issubclass(cls, base)
