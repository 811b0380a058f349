"""What observers are told: one frozen object per event."""

from __future__ import annotations

from dataclasses import dataclass

from publisher.api.claims import Verdict
from publisher.api.records import CheckRecord, ReleaseReport, StepRecord


@dataclass(frozen=True)
class ReleaseStart:
    """A release begins; the manifest has been resolved and the plan made."""

    name: str
    version: str
    steps: tuple[str, ...]
    """Ids of the steps, in order."""


@dataclass(frozen=True)
class StepStart:
    """A step begins to run (not told for a step that comes from the cache)."""

    id: str
    name: str


@dataclass(frozen=True)
class StepEnd:
    """A step has its result."""

    record: StepRecord
    cached: bool
    """The result came from the cache."""
    seconds: float


@dataclass(frozen=True)
class CheckEnd:
    """A check has its verdict."""

    claim: str
    record: CheckRecord
    seconds: float


@dataclass(frozen=True)
class PackageBuilt:
    """The unsigned package is complete in its temporary place."""

    files: int
    bytes: int


@dataclass(frozen=True)
class ReleaseEnd:
    """The decision has been made; the package, if any, is in place."""

    decision: Verdict
    report: ReleaseReport
    package: str
    """Path of the package; empty if there is none."""
