"""The order of the page: in which section each claim, check and picture stands. Each check stands in exactly one."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from publisher.api import CheckRecord, ClaimRecord, GoneConcept, ImagePair, ReleaseReport, Verdict
from publisher.builtin.reports.pictures import Group, Pair, groups, pair
from publisher.report import verdicts

STRIP = 6
"""Pairs of the strip of a concept."""
OPEN: tuple[Verdict, ...] = ("failed", "unknown", "reported")
"""Verdicts that are not *passed*."""
Role = Literal["stays", "concept", "several", "all", "untested"]
TITLES: dict[Role, str] = {
    "stays": "What stays",
    "several": "Several concepts together",
    "all": "Claims",
    "untested": "Claims that nothing tests",
}


@dataclass(frozen=True)
class Entry:
    """A claim with those of its checks that stand in one section."""

    number: int
    """Of the claim in the report, from 1."""
    claim: ClaimRecord
    checks: tuple[CheckRecord, ...]
    first: bool
    """Whether no earlier section holds checks of this claim: links lead here."""


@dataclass(frozen=True)
class ConceptStrip:
    """The pictures of one concept at the head of the page."""

    concept: GoneConcept
    pairs: tuple[Pair, ...]
    """At most :data:`STRIP`, of one check; none where the record has none."""

    @property
    def triple(self) -> bool:
        """Whether some of them were generated without membranes too."""
        return any(one.record.without_png for one in self.pairs)


@dataclass(frozen=True)
class Section:
    """A section of the page about checks."""

    role: Role
    anchor: str
    title: str
    concept: GoneConcept | None
    """The concept that the section is about; None: several, or what stays."""
    entries: tuple[Entry, ...]
    groups: tuple[Group, ...]
    """Pictures that stand in no strip."""

    @property
    def checks(self) -> list[CheckRecord]:
        """All checks of the section."""
        return [check for entry in self.entries for check in entry.checks]

    @property
    def trained(self) -> list[CheckRecord]:
        """The checks whose attack trained."""
        return [check for check in self.checks if check.trials]

    @property
    def open(self) -> int:
        """Number of checks that are not passed, and of claims that nothing tests."""
        return sum(verdicts.check_verdict(check) in OPEN for check in self.checks) + sum(
            not entry.checks for entry in self.entries
        )


@dataclass(frozen=True)
class Outline:
    """What stands where on the page."""

    strips: tuple[ConceptStrip, ...]
    sections: tuple[Section, ...]

    def having(self, *roles: Role) -> list[Section]:
        """Return the sections of some roles."""
        return [section for section in self.sections if section.role in roles]


Place = tuple[Role, str]
"""Role of a section, and the id of its concept where it is about one."""


def outline(report: ReleaseReport) -> Outline:
    """Return the order of a report's page."""
    gone = {concept.id: concept for concept in report.concepts}
    places = {check.id: _place(check, gone) for claim in report.claims for check in claim.checks}
    strips = tuple(ConceptStrip(concept, _strip(report, concept, places, gone)) for concept in gone.values())
    shown = {id(one.record) for strip in strips for one in strip.pairs}
    rest = [one for one in report.pairs if id(one) not in shown]
    sections: list[Section] = []
    for place in _order(gone):
        role, name = place
        earlier = {entry.number for section in sections for entry in section.entries}
        entries = tuple(_entries(report, place, places, earlier))
        pictures = tuple(groups([one for one in rest if _place_of(one, places, gone) == place]))
        if entries or pictures or role == "concept":
            concept = gone[name] if role == "concept" else None
            anchor = f"concept-{len(sections)}" if concept else role
            title = concept.name if concept else TITLES[role]
            sections.append(Section(role, anchor, title, concept, entries, pictures))
    return Outline(strips, tuple(sections))


def anchors(order: Outline) -> dict[str, str]:
    """Return the anchor of each check of a page."""
    checks = [check for section in order.sections for check in section.checks]
    return {check.id: f"check-{number}" for number, check in enumerate(checks, 1)}


def _order(gone: Collection[str]) -> list[Place]:
    """Return the sections in the order of the page; a report that does not say what was to go has one for all."""
    if not gone:
        return [("all", ""), ("untested", "")]
    concepts: list[Place] = [("concept", name) for name in gone]
    return [("stays", ""), *concepts, ("several", ""), ("untested", "")]


def _place(check: CheckRecord, gone: Collection[str]) -> Place:
    """Return the section of a check: of the one concept that goes and that it is about, of several, of what stays.

    How near images stay to the base model's is about what stays, whatever concept the check names.
    """
    if not gone:
        return "all", ""
    names = [name for name in gone if name in check.concepts]
    if not names or (check.unit == "rms" and not check.resistance):
        return "stays", ""
    return ("concept", names[0]) if len(names) == 1 else ("several", "")


def _entries(
    report: ReleaseReport, place: Place, places: Mapping[str, Place], earlier: Collection[int]
) -> Iterator[Entry]:
    for number, claim in enumerate(report.claims, 1):
        checks = tuple(check for check in claim.checks if places[check.id] == place)
        if checks or (not claim.checks and place[0] == "untested"):
            yield Entry(number, claim, checks, number not in earlier)


def _place_of(picture: ImagePair, places: Mapping[str, Place], gone: Collection[str]) -> Place:
    """Return the section of a pair: that of its concept, unless its check is about what stays."""
    place = places.get(picture.check, ("stays", "") if gone else ("all", ""))
    return place if place[0] in ("stays", "all") or picture.concept not in gone else ("concept", picture.concept)


def _strip(
    report: ReleaseReport, concept: GoneConcept, places: Mapping[str, Place], gone: Collection[str]
) -> tuple[Pair, ...]:
    """Return the pairs of a concept's first check that has some."""
    found = [one for one in report.pairs if _place_of(one, places, gone) == ("concept", concept.id)]
    return tuple(pair(one) for one in found if one.check == found[0].check)[:STRIP]
