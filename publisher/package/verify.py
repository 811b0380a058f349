"""The strict check of a package: what ``publisher verify`` does, and the last step of every release.

Nothing of the package is loaded or run, and all failures are collected. The order: names; the signature against the
given key; digests of the files that it lists; the content of those that are what was signed; reports; and once more a
look at every file's time stamps. What the signature does not list, or what was changed, is a finding and is not parsed:
nobody vouches for it. Counts, sizes and findings have limits, for each file and for all together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from packaging.version import Version

from publisher.api import ReleaseReport
from publisher.api.header import POINTER, PULL
from publisher.codes import Code, Finding
from publisher.errors import PublisherError, UsageError
from publisher.package import dsse
from publisher.package.content import check_content, check_names, name_problem
from publisher.package.keys import WeakKeyError, load_public
from publisher.package.layout import (
    DECISION,
    MAX_FILES,
    MAX_FINDINGS,
    MAX_SIGNATURE_BYTES,
    MAX_TEXT_BYTES,
    REPORT,
    SIGNATURE,
    SUMMARY,
    TEXT_TYPES,
    suffix,
)
from publisher.package.measurements import Recomputed
from publisher.package.received import received
from publisher.package.reports import check_reports
from publisher.package.signature import check_signature, differences
from publisher.package.statements import decided_at
from publisher.package.summary import ReleaseSummary
from publisher.package.tree import Tree
from publisher.strict_json import strict_object

MAX_POINTER = 1024
"""Bytes of a pointer of Git LFS, at most."""


@dataclass(frozen=True)
class Verification:
    """The answer."""

    findings: tuple[Finding, ...]
    """Everything that is wrong, sorted by code and path; at most :data:`publisher.package.layout.MAX_FINDINGS`."""
    files: int
    """Files that were looked at, the signature included."""
    key: str
    """sha256 of the public key that was asked for; empty: a certificate or an identity was."""
    summary: ReleaseSummary | None
    """What the package says it is: only if the signature is good and covers the summary."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """Path of each file that is what was signed -> sha256."""
    recomputed: Recomputed = field(default_factory=Recomputed)
    """Numbers of the report that were made again from its evidence."""
    report: ReleaseReport | None = None
    """The release's record; None: something is wrong with the package."""
    decided: datetime | None = None
    """Time that the decision's statement says; None as for ``report``."""
    signer: str = ""
    """Who was asked for, in words for a person: a key, a certificate, an identity."""

    @property
    def ok(self) -> bool:
        """Nothing is wrong."""
        return not self.findings


def verify(
    folder: Path,
    anchor: Path | dsse.Anchor,
    *,
    hub: bool = False,  # noqa: ARG001 - callers of earlier versions give it
    expect_name: str | None = None,
    min_version: str | None = None,
) -> Verification:
    """Check a package against who may have signed it.

    Args:
        folder: the package, also as a hub hands it out (:func:`publisher.package.received.received`).
        anchor: an EC public key in PEM, or one of :class:`publisher.package.dsse.Anchor`; never from the package.
        hub: does nothing any more; what hubs add is always left out.
        expect_name: refuse a release of another name.
        min_version: refuse an older version than this (PEP 440).

    Returns:
        Everything that is wrong.

    Raises:
        UsageError: folder or key cannot be read, or ``min_version`` is none.
    """
    lowest = _version(min_version)
    try:
        key: dsse.Anchor = load_public(anchor) if isinstance(anchor, Path) else anchor
    except WeakKeyError as error:
        return Verification((Finding(Code.WEAK_KEY, "", error.what),), 0, "", None)
    tree = received(folder)
    findings, summary, done = _check(tree, key)
    if summary is not None:
        findings += _expected(summary, expect_name, lowest)
    findings += tree.findings + tree.recheck()
    found = Verification(_listed(findings), len(tree.files), key.hint, summary, tree.digests, done, signer=str(key))
    return found if findings else replace(found, report=_report(tree), decided=_decided(tree))


def _report(tree: Tree) -> ReleaseReport:
    return ReleaseReport.parse(strict_object(_verified(tree, REPORT, MAX_TEXT_BYTES)))


def _decided(tree: Tree) -> datetime | None:
    statement = dsse.statement(dsse.parse(_verified(tree, DECISION, MAX_SIGNATURE_BYTES)).payload)
    return decided_at(statement["predicate"])


def _verified(tree: Tree, path: str, limit: int) -> bytes:
    """Read once more what was verified.

    Raises:
        PublisherError: it changed since.
    """
    data = tree.read(path, limit)
    if data is None or hashlib.sha256(data).hexdigest() != tree.digests[path]:
        raise PublisherError(f"{path} changed during the verification", where=str(tree.root), hint="Verify it again.")
    return data


def _check(tree: Tree, anchor: dsse.Anchor) -> tuple[list[Finding], ReleaseSummary | None, Recomputed]:
    if tree.seen > MAX_FILES:
        return check_names(tree.files), None, Recomputed()  # the rest was not looked at
    signed, problems = check_signature(tree, anchor)
    if not signed:
        return [*check_names(tree.files), *problems], None, Recomputed()
    findings = [*check_names(signed), *problems, *_compare(tree, signed)]
    problems, documents = check_content(tree, signed)
    summary, more, done = check_reports(tree, signed, documents, anchor)
    return findings + problems + more, summary, done


def _compare(tree: Tree, signed: Mapping[str, str]) -> list[Finding]:
    """Hash the files that were signed, and forget those that are not what was signed."""
    for path in sorted(signed.keys() & tree.files):
        if suffix(path) in TEXT_TYPES and tree.size(path) > MAX_TEXT_BYTES:
            tree.findings.append(Finding(Code.LIMIT, path, f"is larger than {MAX_TEXT_BYTES} bytes"))
        else:
            tree.hash(path)
    hashed = {path: digest for path, digest in tree.digests.items() if path != SIGNATURE}
    unhashed = {path: signed[path] for path in signed.keys() & tree.files - hashed.keys()}  # each has a finding
    extra = dict.fromkeys(tree.files - signed.keys() - {SIGNATURE}, "")
    findings = [_explained(tree, one) for one in differences(signed, {**extra, **unhashed, **hashed})]
    for path in [path for path, digest in hashed.items() if digest != signed[path]]:
        del tree.digests[path]
    return findings


def _explained(tree: Tree, finding: Finding) -> Finding:
    """Return the finding; of an added file with what is wrong with its name, so that it stays one finding.

    Of a changed file that Git LFS has left in place of the real one, it says how to get that.
    """
    if finding.code is Code.EXTRA and (problem := name_problem(finding.path)):
        return replace(finding, message=f"{finding.message}, and {problem.message}")
    if finding.code is not Code.CHANGED or tree.size(finding.path) > MAX_POINTER:
        return finding
    if not (tree.read(finding.path, MAX_POINTER) or b"").startswith(POINTER):
        return finding
    return replace(finding, message=f"is a Git LFS pointer in place of what was signed: {PULL}")


def _listed(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return the findings in order, each once, and where there are too many how many are not listed."""
    found = sorted(set(findings), key=lambda finding: finding.order)
    if len(found) <= MAX_FINDINGS:
        return tuple(found)
    more = f"{len(found) - MAX_FINDINGS + 1} more findings are not listed; at most {MAX_FINDINGS} are"
    return (*found[: MAX_FINDINGS - 1], Finding(Code.LIMIT, "", more))


def _expected(summary: ReleaseSummary, name: str | None, lowest: Version | None) -> list[Finding]:
    findings = []
    if name is not None and summary.name != name:
        findings.append(Finding(Code.NOT_EXPECTED, SUMMARY, f"is {summary.name!r}, not {name!r}"))
    if lowest is not None:
        try:
            older = Version(summary.version) < lowest
        except ValueError:  # InvalidVersion, or a number of more digits than Python reads
            older = True
        if older:
            findings.append(
                Finding(Code.NOT_EXPECTED, SUMMARY, f"is version {summary.version!r}, not {lowest} or newer")
            )
    return findings


def _version(text: str | None) -> Version | None:
    try:
        return None if text is None else Version(text)
    except ValueError:
        raise UsageError(f"{text!r} is no version", where="--min-version", hint="Give one such as 1.2.0.") from None
