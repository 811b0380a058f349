"""Instances of the plugins that a release's checks name, with their parameters and what they read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from publisher.api import CalibrationSheet, Check, Scorer, UsageError
from publisher.evaluate.context import COUNCIL, ReleaseScorer, Tools
from publisher.evaluate.sheets import named, read_sheet
from publisher.manifest.resolve import Resolved
from publisher.manifest.scorers import ResolvedScorer
from publisher.model.inputs import input_digest, locate_input
from publisher.registry import Contribution, Registry


def collect_tools(
    resolved: Resolved, registry: Registry, checks: list[Check], folder: Path, *, fetch: bool
) -> tuple[Tools, list[Contribution]]:
    """Make instances of the plugins that the checks name. A name that nobody provides makes its checks *unknown*.

    Args:
        resolved: the manifest.
        registry: of the installed plugins.
        checks: of all claims.
        folder: of the manifest: files that scorers read are relative to it.
        fetch: get models that scorers read where they are not on this machine.

    Raises:
        PublisherError: a scorer or the executor cannot be made, or one of a scorer's inputs is not there.
    """
    names = {"attack": {check.attack for check in checks}, "metric": {check.metric for check in checks}}
    found = {
        kind: {name: registry.get(kind, name) for name in sorted(some) if name in registry.names(kind)}
        for kind, some in names.items()
    }
    instances = {kind: {name: entry.make() for name, entry in entries.items()} for kind, entries in found.items()}
    scorers = resolved.evaluate.scorers
    deciding = [scorer for scorer in scorers if scorer.decides]
    kinds = dict.fromkeys(kind for scorer in deciding for kind in scorer.kinds)
    judges = {kind: COUNCIL.join(scorer.id for scorer in deciding if kind in scorer.kinds) for kind in kinds}
    second = tuple(scorer.id for scorer in scorers if not scorer.decides)
    wanted: dict[str, tuple[Contribution, ResolvedScorer | None]] = {
        scorer.id: (registry.get("scorer", scorer.use), scorer) for scorer in scorers
    }
    for name in sorted({check.scorer for check in checks} - {"", *wanted}):
        if name in registry.names("scorer"):
            wanted[name] = (registry.get("scorer", name), None)
    made = {
        name: make_scorer(name, entry, scorer, resolved, folder, fetch=fetch)
        for name, (entry, scorer) in wanted.items()
    }
    executor = registry.get("executor", resolved.evaluate.executor.use)
    runs = executor.make(resolved.evaluate.executor.params)
    used = [*(entry for entries in found.values() for entry in entries.values()), *(one for one, _ in wanted.values())]
    return Tools(instances["attack"], instances["metric"], made, judges, runs, second=second), [*used, executor]


def make_scorer(
    name: str,
    entry: Contribution,
    resolved_scorer: ResolvedScorer | None,
    resolved: Resolved,
    folder: Path,
    *,
    fetch: bool,
) -> ReleaseScorer:
    """Make a scorer as the manifest configures it, or with its default parameters, and find its inputs."""
    scorer: Scorer[Any] = entry.make(resolved_scorer.params if resolved_scorer else {})
    with entry.asked("for its inputs and labels"):
        names, kinds = tuple(scorer.inputs()), tuple(scorer.labels())
    places = {one: locate_input(one, folder, f"the scorer {name!r}", fetch=fetch) for one in names}
    files = {one: path for one, path in places.items() if path is not None}
    scorer.files, scorer.scope = files, resolved.scope.model_copy(deep=True)
    if len(files) == len(places):
        with entry.asked("about its files"):
            scorer.check_files()
    inputs = {one: input_digest(one, path) for one, path in files.items()}
    if resolved_scorer is None:
        return ReleaseScorer(name, scorer, kinds, inputs, entry.origin.digest)
    sheets = named(name, [_sheet(one, folder, name) for one in resolved_scorer.calibration])
    return ReleaseScorer(name, scorer, resolved_scorer.kinds, inputs, entry.origin.digest, sheets)


def _sheet(name: str, folder: Path, scorer: str) -> tuple[str, CalibrationSheet]:
    """Read a calibration sheet that the manifest names."""
    path = locate_input(name, folder, f"the calibration of {scorer!r}", fetch=False)
    if path is None or not path.is_file():
        hint = "Name the file that the calibration wrote, as seen from the manifest."
        raise UsageError(f"the calibration of {scorer!r} names {name!r}, which is no file", hint=hint)
    return str(path), read_sheet(path.read_bytes(), str(path))
