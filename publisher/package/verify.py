"""The strict check of a package: what ``publisher verify`` does, and the last step of every release.

Nothing inside the package is believed before the signature has been checked against the given key, nothing of it is
loaded or run, and all failures are collected. The order: walk and hash, names, signature, content, reports, and once
more a look at every file's time stamps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from packaging.version import InvalidVersion, Version

from publisher.errors import UsageError
from publisher.package.codes import Code, Finding
from publisher.package.content import check_content, check_names
from publisher.package.keys import PublicKey, WeakKeyError, load_public
from publisher.package.layout import SIGNATURE, SUMMARY
from publisher.package.reports import check_reports
from publisher.package.signature import check_signature
from publisher.package.summary import ReleaseSummary
from publisher.package.tree import Tree, read_tree

HUB_FILE = ".gitattributes"
MAX_HUB_FILE = 64 * 1024


@dataclass(frozen=True)
class Verification:
    """The answer."""

    findings: tuple[Finding, ...]
    """Everything that is wrong, sorted by code and path."""
    files: int
    """Files that were looked at, the signature included."""
    key: str
    """sha256 of the public key that was asked for."""
    summary: ReleaseSummary | None
    """What the package says it is: only if the signature is good and covers the summary."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """Path of each file -> sha256, as it was looked at."""

    @property
    def ok(self) -> bool:
        """Nothing is wrong."""
        return not self.findings


def verify(
    folder: Path,
    public_key: Path,
    *,
    hub: bool = False,
    expect_name: str | None = None,
    min_version: str | None = None,
) -> Verification:
    """Check a package against a publisher's key.

    Args:
        folder: the package.
        public_key: EC public key in PEM; from the publisher, never from the package.
        hub: allow the one ``.gitattributes`` that a hub adds, if it holds nothing but filter lines.
        expect_name: refuse a release of another name.
        min_version: refuse an older version than this (PEP 440).

    Returns:
        Everything that is wrong.

    Raises:
        UsageError: folder or key cannot be read, or ``min_version`` is none.
    """
    lowest = _version(min_version)
    try:
        key = load_public(public_key)
    except WeakKeyError as error:
        return Verification((Finding(Code.WEAK_KEY, "", error.what),), 0, "", None)
    tree = read_tree(folder)
    if hub:
        _accept_hub_file(tree)
    findings, summary = _check(tree, key)
    if summary is not None:
        findings += _expected(summary, expect_name, lowest)
    findings += tree.findings + tree.recheck()
    return Verification(
        tuple(sorted(set(findings), key=lambda found: found.order)), len(tree.digests), key.hint, summary, tree.digests
    )


def _check(tree: Tree, key: PublicKey) -> tuple[list[Finding], ReleaseSummary | None]:
    findings = check_names(tree.digests)
    digests = {path: digest for path, digest in tree.digests.items() if path != SIGNATURE}
    signed, problems = check_signature(tree, digests, key)
    findings += problems + check_content(tree)
    if not signed:
        return findings, None  # whoever wrote the reports, it was not shown to be the publisher
    summary, problems = check_reports(tree, digests, key)
    return findings + problems, summary if signed.get(SUMMARY) == digests.get(SUMMARY) else None


def _expected(summary: ReleaseSummary, name: str | None, lowest: Version | None) -> list[Finding]:
    findings = []
    if name is not None and summary.name != name:
        findings.append(Finding(Code.NOT_EXPECTED, SUMMARY, f"is {summary.name!r}, not {name!r}"))
    if lowest is not None:
        try:
            older = Version(summary.version) < lowest
        except InvalidVersion:
            older = True
        if older:
            findings.append(
                Finding(Code.NOT_EXPECTED, SUMMARY, f"is version {summary.version!r}, not {lowest} or newer")
            )
    return findings


def _version(text: str | None) -> Version | None:
    try:
        return None if text is None else Version(text)
    except InvalidVersion:
        raise UsageError(f"{text!r} is no version", where="--min-version", hint="Give one such as 1.2.0.") from None


def _accept_hub_file(tree: Tree) -> None:
    """Forget a root ``.gitattributes`` that holds nothing but filter lines; leave any other in, to be refused."""
    if HUB_FILE not in tree.digests:
        return
    data = tree.read(HUB_FILE, MAX_HUB_FILE)
    if data is not None and all(_is_filter(line) for line in data.decode(errors="replace").splitlines()):
        del tree.digests[HUB_FILE]


def _is_filter(line: str) -> bool:
    pattern, *attributes = line.split() or [""]
    return not pattern or pattern.startswith("#") or attributes == ["filter=lfs", "diff=lfs", "merge=lfs", "-text"]
