"""Statements of others about a package, kept outside of it: what another party found that made its checks again.

Such a statement is an in-toto test result about ``release/SHA256SUMS``, whose digest stands for the whole payload. It
is signed like the package's own statements, with another key. A package never holds it, so it can come years later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from publisher.codes import Code, Finding
from publisher.errors import UsageError
from publisher.package import dsse
from publisher.package.layout import MAX_SIGNATURE_BYTES, REPORT, SUMS
from publisher.package.signature import code_of
from publisher.package.statements import TEST_TYPE

RESULTS = ("PASSED", "WARNED", "FAILED")


@dataclass(frozen=True)
class Witness:
    """What a statement of another party says of a package."""

    path: str
    """File of the statement."""
    key: str
    """sha256 of the key that signed it."""
    result: str
    """``PASSED``, ``WARNED`` or ``FAILED``."""
    passed: tuple[str, ...] = ()
    warned: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()

    def sentence(self) -> str:
        """Return what it says, in a sentence."""
        counts = [(self.passed, "passed"), (self.warned, "reported"), (self.failed, "failed")]
        said = ", ".join(f"{len(tests)} {word}" for tests, word in counts if tests) or "no test"
        return f"{self.result}: {said}; signed with the key {self.key[:16]} ({self.path})"


def test_statement(
    sums: str,
    report: str,
    *,
    passed: Sequence[str],
    warned: Sequence[str],
    failed: Sequence[str],
    how: Mapping[str, Any],
) -> dict[str, Any]:
    """Return a statement about a package.

    Args:
        sums: sha256 of the package's ``release/SHA256SUMS``.
        report: sha256 of its report.
        passed: names of what holds.
        warned: names of what was found without a decision.
        failed: names of what does not hold.
        how: what was done, as JSON data.
    """
    result = "FAILED" if failed else "PASSED" if passed and not warned else "WARNED"
    return {
        "_type": dsse.STATEMENT_TYPE,
        "subject": [{"name": SUMS, "digest": {"sha256": sums}}],
        "predicateType": TEST_TYPE,
        "predicate": {
            "result": result,
            "configuration": [{"name": REPORT, "digest": {"sha256": report}, "annotations": dict(how)}],
            "passedTests": sorted(passed),
            "warnedTests": sorted(warned),
            "failedTests": sorted(failed),
        },
    }


test_statement.__test__ = False  # type: ignore[attr-defined]  # its name is in-toto's, pytest need not collect it


def check_witness(path: Path, anchor: dsse.Anchor, sums: str) -> tuple[Witness | None, list[Finding]]:
    """Read a statement of another party, and compare it with a package.

    Args:
        path: file of the statement.
        anchor: who made it.
        sums: sha256 of the package's list of digests.

    Returns:
        What it says, None where nobody vouches for it; and what is wrong.

    Raises:
        UsageError: the file cannot be read.
    """
    name = path.name
    try:
        statement = dsse.open_statement(read_bundle(path), anchor)
    except dsse.BundleError as error:
        return None, [Finding(code_of(error), name, str(error))]
    predicate = statement["predicate"]
    result = predicate.get("result")
    if statement.get("predicateType") != TEST_TYPE or result not in RESULTS:
        return None, [Finding(Code.STATEMENT, name, "is no test result of in-toto")]
    if {"name": SUMS, "digest": {"sha256": sums}} not in _listed(statement.get("subject")):
        return None, [Finding(Code.REPORT_OTHER, name, "is about another package")]
    tests = [tuple(map(str, _listed(predicate.get(f"{word}Tests")))) for word in ("passed", "warned", "failed")]
    found = Witness(name, anchor.hint, result, *tests)
    failed = [Finding(Code.NOT_PASSED, name, f"says {found.sentence()}")] if result == "FAILED" else []
    return found, failed


def read_bundle(path: Path) -> bytes:
    """Read a signed statement.

    Raises:
        UsageError: it cannot be read, or is too large.
    """
    try:
        if path.stat().st_size > MAX_SIGNATURE_BYTES:
            raise UsageError(f"is larger than {MAX_SIGNATURE_BYTES} bytes", where=str(path))
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(path)) from error


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
