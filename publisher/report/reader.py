"""Read a report strictly, from a package or file that nobody vouches for. Runs nothing of the package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from publisher.api import ReleaseReport
from publisher.errors import UsageError
from publisher.report.wording import visible
from publisher.strict_json import JsonError, strict_json

PLACES = ("release/reports/report.json", "reports/report.json", "report.json")
"""Where a folder keeps its report: a package, its ``release`` folder, a report folder."""
TIMINGS = "timings.json"
"""Name of the file with the times of a release, beside its report."""
MAX_BYTES = 256 * 1024 * 1024
SHOWN = 5
"""Problems that the message lists."""


def load(path: Path) -> ReleaseReport:
    """Return the release report of a package folder, a report folder, or a JSON file.

    The signature is not checked: ``publisher verify`` does.

    Raises:
        UsageError: there is none, it is too large, no strict JSON, or no release report of this version.
    """
    file = find(path)
    data = _parse(_read(file), file)
    version = data.get("report") if isinstance(data, dict) else None
    if type(version) is not int or version != 1:
        raise UsageError(
            f'no release report that this version reads: it says "report": {json.dumps(version)[:40]}, expected 1',
            where=str(file),
        )
    try:
        return ReleaseReport.parse(data)
    except ValidationError as error:
        raise UsageError("not a valid release report", where=str(file), hint=_problems(error)) from None


def seconds_of_steps(path: Path) -> dict[str, float]:
    """Return the check of each attack by training -> seconds of one training step, from the times beside a report.

    A report folder has them, a package never does.

    Returns:
        Empty: there are none.

    Raises:
        UsageError: they cannot be read.
    """
    return _times(path, "relearning")


def seconds_of_checks(path: Path) -> dict[str, float]:
    """Return each check -> seconds of its trainings and from its images to its verdict, as beside a report.

    Returns:
        Empty: there are none.

    Raises:
        UsageError: they cannot be read.
    """
    return _times(path, "checks")


def _times(path: Path, key: str) -> dict[str, float]:
    file = find(path).with_name(TIMINGS)
    if not file.is_file():
        return {}
    data = _parse(_read(file), file)
    found = data.get(key, {}) if isinstance(data, dict) else None
    if not isinstance(found, dict) or not all(isinstance(one, int | float) and one >= 0 for one in found.values()):
        raise UsageError("not the times of a release", where=str(file), hint="Delete it: the report does without.")
    return {str(name): float(one) for name, one in found.items()}


def find(path: Path) -> Path:
    """Return the file that holds the report.

    Raises:
        UsageError: there is none.
    """
    if path.is_file():
        return path
    found = next((path / place for place in PLACES if (path / place).is_file()), None)
    if found:
        return found
    if path.is_dir():
        raise UsageError(
            "this folder holds no release report",
            where=str(path),
            hint=f"Looked for {', '.join(PLACES)}. Give a package, a report folder, or the JSON file itself.",
        )
    raise UsageError(
        "no such package or file" if not path.exists() else "neither a folder nor a regular file",
        where=str(path),
        hint="A release that was refused has no package: give the report folder that the release named instead.",
    )


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror or error}", where=str(file)) from error
    if len(data) > MAX_BYTES:
        raise UsageError(f"larger than {MAX_BYTES // 1024**2} MiB, which no report is", where=str(file))
    return data


def _parse(data: bytes, file: Path) -> Any:
    try:
        return strict_json(data)
    except JsonError as error:
        raise UsageError(visible(str(error)), where=str(file)) from None


def _problems(error: ValidationError) -> str:
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    lines = [f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in problems[:SHOWN]]
    if len(problems) > SHOWN:
        lines.append(f"and {len(problems) - SHOWN} more")
    return "\n".join(visible(line)[:300] for line in lines)
