"""Whether steps and checks have ids of their own and name concepts that are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from publisher.api import Concept, Scope
from publisher.manifest.catalog import Catalog
from publisher.manifest.nearest import suggestion
from publisher.manifest.places import Path, Problems
from publisher.manifest.schema import Manifest
from publisher.manifest.scorers import ResolvedScorer, labels_of


def check_steps(manifest: Manifest, problems: Problems) -> None:
    """Require that ids of steps are unique and that steps are about concepts to go."""
    go = [entry.id for entry in manifest.concepts]
    keep = {entry.id for entry in manifest.keep.concepts}
    seen: set[str] = set()
    for position, step in enumerate(manifest.steps):
        path: Path = ("steps", position)
        name = step.id or step.use
        if name in seen:
            problems.at_value((*path, "id"), f"the step '{name}' is here twice.", "Give this one an id of its own.")
        seen.add(name)
        for number, concept in enumerate(step.concepts or ()):
            if concept not in go:
                what = "is to be kept; steps are about concepts to go" if concept in keep else "is not in the manifest"
                hint = suggestion(concept, go, "Concepts to go")
                problems.at_value((*path, "concepts", number), f"the concept '{concept}' {what}.", hint)


def check_checks(
    manifest: Manifest, scope: Scope, scorers: Mapping[str, ResolvedScorer], catalog: Catalog, problems: Problems
) -> None:
    """Require that ids of checks are unique, and that their concepts are there and known to their scorers."""
    concepts = {concept.id: concept for concept in (*scope.concepts, *scope.keep)}
    seen: set[str] = set()
    for position, check in enumerate(manifest.evaluate.checks):
        path: Path = ("evaluate", "checks", position)
        if check.id in seen:
            problems.at_value((*path, "id"), f"the check '{check.id}' is here twice.", "Give this one another id.")
        seen.add(check.id)
        for number, name in enumerate(check.concepts):
            place = (*path, "concepts", number)
            if name not in concepts:
                hint = suggestion(name, concepts, "Concepts")
                problems.at_value(place, f"the concept '{name}' is not in the manifest.", hint)
            elif check.scorer in (*scorers, *catalog.names("scorer")):
                labels = labels_of(check.scorer, scorers, catalog)
                _check_label(concepts[name], check.scorer, labels.get(concepts[name].kind, ()), place, problems)


def _check_label(concept: Concept, scorer: str, known: Sequence[str] | None, path: Path, problems: Problems) -> None:
    if known is not None and concept.label not in known:
        message = f"the scorer '{scorer}' has no {concept.kind} label '{concept.label}' for the concept '{concept.id}'."
        problems.at_value(path, message, suggestion(concept.label, known, "Its labels"))
