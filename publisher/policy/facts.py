"""What a policy is compared with: the same facts of a plan, of a finished release, and of a stranger's package."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from publisher.api import Binding, Check, CheckRecord, Measurement, PluginRecord, ReleaseReport

_JOINED = re.compile(r", |\+")
"""Between the ids of several scorers: of several kinds of concepts, and of those who judge together."""


@dataclass(frozen=True)
class CheckFacts:
    """One check, before or after it was made."""

    id: str
    attack: str
    metric: str
    concepts: tuple[str, ...]
    binds: Binding
    scorers: Mapping[str, str]
    """Registered name of each scorer that judges -> sha256 of its weights; empty text: not known yet."""
    planned: Mapping[str, int] | None = None
    """Concept -> images that are planned; None: the check was made, or counts no images."""
    measurement: Measurement | None = None
    """None: nothing was measured."""
    comparable: bool = True
    """Whether the numbers of single concepts are the check's number once more."""


@dataclass(frozen=True)
class ReleaseFacts:
    """A release as a policy sees it."""

    license: str
    concepts: Mapping[str, str]
    """Id of each concept to go -> its kind."""
    checks: tuple[CheckFacts, ...]
    plugins: Sequence[PluginRecord]
    measured: bool
    """False of a plan: its numbers do not exist yet."""
    age: float | None = None
    """Days since the decision was signed; None: it is not signed yet."""


def facts_of_report(report: ReleaseReport, age: float | None = None) -> ReleaseFacts:
    """Return the facts of a finished release.

    Args:
        report: of the release.
        age: days since the decision was signed; None: it is not signed yet.
    """
    checks = [_made(claim.binds, check, report) for claim in report.claims for check in claim.checks]
    return ReleaseFacts(
        license=report.license,
        concepts={one.id: one.kind for one in report.concepts},
        checks=tuple(checks),
        plugins=report.plugins,
        measured=True,
        age=age,
    )


def _made(binds: Binding, check: CheckRecord, report: ReleaseReport) -> CheckFacts:
    cards = {name: report.scorers.get(name) for name in _JOINED.split(check.scorer) if name}
    return CheckFacts(
        id=check.id,
        attack=check.attack,
        metric=check.metric,
        concepts=check.concepts,
        binds=binds,
        scorers={(card.use if card else "") or name: card.weights if card else "" for name, card in cards.items()},
        measurement=check.measurement,
        comparable=not check.concept_figure,
    )


def facts_of_plan(
    license_: str,
    concepts: Mapping[str, str],
    checks: Iterable[tuple[Binding, Check, Mapping[str, int] | None, Sequence[str]]],
    plugins: Sequence[PluginRecord],
) -> ReleaseFacts:
    """Return the facts of a release before it runs.

    Args:
        license_: of the package.
        concepts: id of each concept to go -> its kind.
        checks: of each check: where its claim binds, the check, its images by concept (None: it counts none), and
            names of its scorers.
        plugins: that take part.
    """
    made = [
        CheckFacts(check.id, check.attack, check.metric, check.concepts, binds, dict.fromkeys(scorers, ""), planned)
        for binds, check, planned, scorers in checks
    ]
    return ReleaseFacts(license_, concepts, tuple(made), plugins, measured=False)
