"""Signing a finished package: attestations, then ``model.sig`` over everything.

Order, so that nothing refers to itself: ``SHA256SUMS`` lists the payload; attestations are about ``SHA256SUMS`` and
the payload; ``model.sig`` covers all of these. All are signed by one :class:`publisher.package.dsse.Signer`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from publisher.api import ReleaseReport
from publisher.errors import PublisherError, UsageError
from publisher.model.files import write_atomic
from publisher.package import dsse, oms, sums
from publisher.package.build import PackageError, refuse_exchanged
from publisher.package.layout import ATTESTATIONS, REPORT, SIGNATURE, SUMS
from publisher.package.statements import statements

LAST_SECOND = 253_402_300_799
"""Last second of the year 9999."""


def sign(
    folder: Path, signer: dsse.Signer, *, created: datetime | None = None, expected: Mapping[str, str] | None = None
) -> None:
    """Sign a package that :func:`publisher.package.build.finish` has completed.

    The digests are those of ``SHA256SUMS``; verify the package afterwards, as everybody else will.

    Args:
        folder: the package.
        signer: the publisher's.
        created: the time in the decision's statement; default ``SOURCE_DATE_EPOCH``, or now.
        expected: the digests that :func:`publisher.package.build.finish` returned; nothing else is signed.

    Raises:
        PackageError: not finished, signed already, or not what was expected.
        PublisherError: signing or writing failed; the package is unsigned as before.
    """
    if not (folder / SUMS).is_file():
        raise PackageError("is not finished: there is no list of digests", where=str(folder / SUMS))
    if (folder / SIGNATURE).exists() or (folder / ATTESTATIONS).exists():
        raise PackageError("is signed already", where=str(folder))
    try:
        _sign(folder, signer, created or now(), expected)
    except BaseException as error:
        shutil.rmtree(folder / ATTESTATIONS, ignore_errors=True)
        (folder / SIGNATURE).unlink(missing_ok=True)
        if isinstance(error, PublisherError) or not isinstance(error, Exception):
            raise
        raise PackageError(f"cannot be signed: {type(error).__name__}: {error}", where=str(folder)) from error


def _sign(folder: Path, signer: dsse.Signer, created: datetime, expected: Mapping[str, str] | None) -> None:
    listed, record = (folder / SUMS).read_bytes(), (folder / REPORT).read_bytes()
    digests = sums.parse(listed)
    refuse_exchanged(folder, digests if expected is None else expected, {**digests, REPORT: _sha256(record)})
    digests_signed = {**digests, SUMS: _sha256(listed)}
    report = ReleaseReport.model_validate_json(record)
    for path, statement in statements(report, digests_signed[SUMS], digests, created).items():
        data = attest(statement, signer)
        write_atomic(folder / path, data)
        digests_signed[path] = _sha256(data)
    write_atomic(folder / SIGNATURE, _sign_model(f"{report.name}-{report.version}", digests_signed, signer))


def attest(statement: Mapping[str, Any], signer: dsse.Signer) -> bytes:
    """Sign a statement. With a key in memory equal statements give equal bytes."""
    return signer.bundle(dsse.canonical(dict(statement)))


def _sign_model(name: str, digests: Mapping[str, str], signer: dsse.Signer) -> bytes:
    """Return the bytes of ``model.sig``: signed and written as all other bundles are."""
    return attest(oms.statement(name, digests), signer)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def now() -> datetime:
    """Return the time that a signature states where the manifest names none: ``SOURCE_DATE_EPOCH``, or the clock's.

    Raises:
        UsageError: the variable holds no such time.
    """
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if epoch is None:
        return datetime.now(UTC)
    if epoch.isascii() and epoch.isdigit() and len(epoch) <= 12 and int(epoch) <= LAST_SECOND:
        return datetime.fromtimestamp(int(epoch), UTC)
    digits = epoch.lstrip("-").isdigit()
    raise UsageError(
        "is a time outside of the years 1970 to 9999" if digits else "is no whole number of seconds since 1970",
        where=f"SOURCE_DATE_EPOCH={epoch[:40]!r}",
        hint="Set it to a number such as 1767323045, unset it, or give the manifest a release.date.",
    )
