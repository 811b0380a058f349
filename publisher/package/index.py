"""The publisher's index of a package's versions: which is the latest, which were revoked and why, until when it holds.

It is a signed statement outside of the packages. Its subjects are the lists of digests of the versions that exist. A
package that is not among them, or is named as revoked, does not verify against it; nor does an index that has expired,
because who serves an old one hides what was revoked since.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator

from publisher.api import Params
from publisher.codes import Code, Finding
from publisher.package import dsse
from publisher.package.signature import code_of
from publisher.package.statements import TOOL
from publisher.package.witness import read_bundle

PREDICATE_TYPE = f"{TOOL}#index/v1"
_TIME = "%Y-%m-%dT%H:%M:%SZ"


class Revoked(Params):
    """A version that nobody is to use any more."""

    version: str
    reason: str = Field(min_length=1)


class Index(Params):
    """What the index says."""

    name: str
    """Of the package, in all its versions."""
    latest: str
    """Version to use."""
    revoked: tuple[Revoked, ...] = ()
    expires: str
    """Time after which it says nothing, UTC: ``2027-03-01T00:00:00Z``."""

    @field_validator("expires")
    @classmethod
    def _time(cls, text: str) -> str:
        datetime.strptime(text, _TIME)  # noqa: DTZ007 - read as UTC where it is compared
        return text

    @property
    def ends(self) -> datetime:
        """The time, as such."""
        return datetime.strptime(self.expires, _TIME).replace(tzinfo=UTC)


@dataclass(frozen=True)
class Verified:
    """A package that is verified: what the index is compared with."""

    name: str
    version: str
    sums: str
    """sha256 of its list of digests."""


def index_statement(index: Index, versions: Mapping[str, str]) -> dict[str, Any]:
    """Return the statement.

    Args:
        index: what it says.
        versions: each version that exists -> sha256 of its package's ``release/SHA256SUMS``.
    """
    subjects = [
        {"name": f"{index.name}-{version}", "digest": {"sha256": digest}}
        for version, digest in sorted(versions.items())
    ]
    return {
        "_type": dsse.STATEMENT_TYPE,
        "subject": subjects,
        "predicateType": PREDICATE_TYPE,
        "predicate": index.as_json(),
    }


def check_index(path: Path, anchor: dsse.Anchor, package: Verified, now: datetime) -> list[Finding]:
    """Compare a package with the publisher's index.

    Args:
        path: of the index.
        anchor: who signed the package.
        package: that was verified with it.
        now: the time.

    Raises:
        UsageError: the file cannot be read.
    """
    name = path.name
    try:
        statement = dsse.open_statement(read_bundle(path), anchor)
    except dsse.BundleError as error:
        return [Finding(code_of(error), name, str(error))]
    try:
        index = Index.parse(statement["predicate"])
    except ValidationError:
        return [Finding(Code.STATEMENT, name, "is no index of versions")]
    if statement.get("predicateType") != PREDICATE_TYPE:
        return [Finding(Code.STATEMENT, name, "is no index of versions")]
    return [Finding(Code.NOT_EXPECTED, name, problem) for problem in _problems(index, statement, package, now)]


def _problems(index: Index, statement: Mapping[str, Any], package: Verified, now: datetime) -> Iterator[str]:
    if index.name != package.name:
        yield f"is the index of {index.name!r}, not of {package.name!r}"
        return
    if now >= index.ends:
        yield f"has expired on {index.expires}: get a newer one from the publisher"
    for one in index.revoked:
        if one.version == package.version:
            yield f"says that version {one.version} is revoked: {one.reason}; the latest is {index.latest}"
    subjects = statement.get("subject")
    listed = [one for one in subjects if isinstance(one, dict)] if isinstance(subjects, list) else []
    known = {one.get("name"): one.get("digest") for one in listed}
    mine = f"{package.name}-{package.version}"
    if mine not in known:
        yield f"does not know version {package.version}"
    elif known[mine] != {"sha256": package.sums}:
        yield f"names another package as version {package.version}"
