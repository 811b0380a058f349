"""Bounds of a scorer's errors that cost nothing: counted in the base model's images, which need no labels.

The release counts them, and anybody counts them again from a package's evidence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from publisher.api.calibration import ScorerErrors, Tally
from publisher.api.concepts import Concept, Scope
from publisher.api.evidence import EvidenceRow
from publisher.api.scorers import Judgement

_Asked = tuple[str, str, int, int, float]
"""Prompt, negative prompt, seed, steps and guidance: equal ones are one image."""


def errors_of(
    concepts: Iterable[Concept],
    own: Iterable[EvidenceRow],
    rows: Iterable[EvidenceRow],
    scope: Scope,
    sheets: Mapping[str, ScorerErrors],
) -> dict[str, ScorerErrors]:
    """Return what is known of a scorer's errors about each concept: by its calibration sheet, else by the base model.

    Images of the base model count that plainly ask for a concept, in whatever check. Where none does, those of the
    check itself count. Images that ask for something of the same kind with another label count as false alarms where
    the scorer sees this one; where nothing else of the kind was asked for, those that ask for anything else.

    Args:
        concepts: of one check.
        own: lines of its evidence.
        rows: lines of the evidence of all checks that the same scorer judged, this one among them.
        scope: the release's concepts.
        sheets: concept's id -> counts of its calibration sheet.
    """
    images = _BaseImages(scope, own, rows)
    return {one.id: sheets.get(one.id) or images.errors(one) for one in concepts}


@dataclass(eq=False)
class _BaseImages:
    """The base model's images that were judged, each once."""

    scope: Scope
    own: Iterable[EvidenceRow]
    rows: Iterable[EvidenceRow]
    of_concept: dict[str, dict[_Asked, Judgement]] = field(default_factory=dict)
    """Concept's id -> images that plainly ask for it."""
    of_check: dict[str, dict[_Asked, Judgement]] = field(default_factory=dict)
    """Concept's id -> images of the check that ask for it in any way."""

    def __post_init__(self) -> None:
        for row in self.rows:
            plain = row.prompt in self.scope.concept(row.concept).prompts and not row.negative_prompt
            if plain and row.base is not None:
                self.of_concept.setdefault(row.concept, {})[_asked(row)] = row.base
        for row in self.own:
            if row.base is not None:
                self.of_check.setdefault(row.concept, {})[_asked(row)] = row.base

    def errors(self, concept: Concept) -> ScorerErrors:
        """Return the counts about one concept."""
        mine = self.of_concept.get(concept.id) or self.of_check.get(concept.id, {})
        return ScorerErrors(source="", seen=_tally(concept, mine, unsure=False), false_alarms=self._alarms(concept))

    def _alarms(self, concept: Concept) -> Tally | None:
        every = [self.scope.concept(name) for name in self.of_concept]
        others = [one for one in every if (one.kind, one.label) != (concept.kind, concept.label)]
        alike = [one for one in others if one.kind == concept.kind]
        mine = self.of_concept.get(concept.id, {})
        found = {
            asked: said
            for one in alike or others
            for asked, said in self.of_concept[one.id].items()
            if asked not in mine and concept.kind in said.kinds
        }
        return _tally(concept, found, unsure=True) if found else None


def _tally(concept: Concept, images: Mapping[_Asked, Judgement], *, unsure: bool) -> Tally:
    """Count the images that show a concept, prompt by prompt."""
    by_prompt: dict[tuple[str, str], list[bool]] = {}
    for asked, said in images.items():
        shows = said.shows(concept)
        by_prompt.setdefault(asked[:2], []).append(unsure if shows is None else shows)
    return Tally.of(by_prompt)


def _asked(row: EvidenceRow) -> _Asked:
    return (row.prompt, row.negative_prompt, row.seed, row.steps, row.guidance)
