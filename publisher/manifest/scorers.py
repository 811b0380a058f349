"""Who judges what: the scorers of a manifest written out, each with its kinds, and the labels that they can give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from publisher.api import Params
from publisher.errors import PluginError
from publisher.manifest.catalog import Catalog
from publisher.manifest.places import Path, Problems
from publisher.manifest.schema import Evaluate, ScorerEntry

Labels = Mapping[str, Sequence[str] | None]
"""Kind -> labels of a scorer; None: any label."""


class ResolvedScorer(Params):
    """A scorer with its parameters' defaults written out."""

    id: str
    """Name in the manifest's checks and in the report; unique in the release."""
    use: str
    """Registered name of the scorer."""
    kinds: tuple[str, ...]
    """Kinds of concepts that it judges."""
    params: dict[str, Any]
    """``catalog.params("scorer", use).parse(params)`` gives the scorer's parameters."""
    given: tuple[str, ...] = ()
    """Names of the parameters that the manifest itself gives."""
    calibration: tuple[str, ...] = ()
    """Files of its calibration sheets, as seen from the manifest."""
    decides: bool = True
    """False: it gives a second opinion, and no verdict depends on it."""


def scorer_entries(evaluate: Evaluate) -> Iterator[tuple[Path, ScorerEntry]]:
    """Yield the entries with their places; ``scorer: emoji`` is one without parameters."""
    if evaluate.scorer:
        yield ("evaluate", "scorer"), ScorerEntry(use=evaluate.scorer)
    for position, entry in enumerate(evaluate.scorers):
        yield ("evaluate", "scorers", position), entry


def resolve_scorers(evaluate: Evaluate, catalog: Catalog, problems: Problems) -> dict[str, ResolvedScorer] | None:
    """Return the scorers by id, each with the kinds that it judges.

    Args:
        evaluate: section of the manifest; its names are those of installed plugins.
        catalog: of the installed plugins.
        problems: gets what is wrong; the result is then None.
    """
    before = len(problems)
    if evaluate.scorer and evaluate.scorers:
        hint = f"Put it under scorers as well: - {{use: {evaluate.scorer}}}"
        problems.at_key(("evaluate", "scorer"), "'evaluate' has both 'scorer' and 'scorers'.", hint)
        return None
    found: dict[str, ResolvedScorer] = {}
    for path, entry in scorer_entries(evaluate):
        name = entry.id or entry.use
        if name in found:
            problems.at_value(path, f"the scorer '{name}' is here twice.", "Give this one an id of its own.")
            continue
        params = catalog.params("scorer", entry.use).parse(entry.with_).as_json()
        try:
            labels = catalog.labels(entry.use, params)
        except PluginError as error:
            problems.at_value(path, f"{error.what}.", error.hint)
            continue
        kinds = tuple(entry.for_ or labels)
        for number, kind in enumerate(kinds):
            place = (*path, "for", number)
            if kind not in labels:
                hint = f"It judges: {', '.join(labels) or 'nothing'}."
                problems.at_value(place, f"the scorer '{name}' does not judge the kind '{kind}'.", hint)
        found[name] = ResolvedScorer(
            id=name,
            use=entry.use,
            kinds=kinds,
            params=params,
            given=tuple(sorted(entry.with_)),
            calibration=entry.calibration,
            decides=entry.decides,
        )
    return found if len(problems) == before else None


def labels_of(scorer: str, scorers: Mapping[str, ResolvedScorer], catalog: Catalog) -> Labels:
    """Return the labels of an entry of the manifest, or else of an installed scorer with its default parameters."""
    if scorer not in scorers:
        return catalog.labels(scorer, {})
    entry = scorers[scorer]
    labels = catalog.labels(entry.use, entry.params)
    return {kind: labels[kind] for kind in labels if kind in entry.kinds}


def labels_of_all(scorers: Mapping[str, ResolvedScorer], catalog: Catalog) -> Labels | None:
    """Return the labels of all entries that decide; None: there is no such entry.

    Of a kind that several judge they are the labels that each of them has.
    """
    found: dict[str, Sequence[str] | None] = {}
    deciding = [name for name, entry in scorers.items() if entry.decides]
    for name in deciding:
        for kind, labels in labels_of(name, scorers, catalog).items():
            before = found.get(kind)
            both = labels if before is None else before if labels is None else [one for one in before if one in labels]
            found[kind] = both
    return found if deciding else None
