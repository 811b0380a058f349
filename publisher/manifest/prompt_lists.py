"""Prompts of checks that lie in a file, such as a published list of attacks: a column of comma-separated values."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path as FilePath

from publisher.api import Check, PromptFile
from publisher.manifest.nearest import suggestion
from publisher.manifest.places import Path, Problems

MOST = 10_000
"""Most prompts of one list."""
LONGEST = 2000
"""Most characters of one prompt."""
_ABSOLUTE = re.compile(r"[/\\~]|[A-Za-z]:")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class _ListError(Exception):
    """Why a list cannot be used, and what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


def with_prompts(check: Check, folder: FilePath, path: Path, problems: Problems) -> Check:
    """Return a check with the prompts of its file in place of the file's name; each prompt once, in their order.

    Args:
        check: as the manifest has it.
        folder: of the manifest.
        path: of the check in the manifest.
        problems: gets what is wrong with the file, and where in it.
    """
    if not isinstance(check.prompts, PromptFile):
        return check
    try:
        found = tuple(dict.fromkeys(_rows(check.prompts, folder)))
    except _ListError as error:
        problems.at_value((*path, "prompts"), error.message, error.hint)
        return check
    if not found:
        problems.at_value((*path, "prompts"), f"'{check.prompts.file}' has no row below its first.")
    return check.model_copy(update={"prompts": found})


def _rows(wanted: PromptFile, folder: FilePath) -> Iterator[str]:
    name = wanted.file
    if _ABSOLUTE.match(name):
        raise _ListError(
            f"a manifest is published with the package, so '{name}' must not be a path of this machine.",
            "Write it as seen from the manifest's folder.",
        )
    try:
        with (folder / name).open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = reader.fieldnames or ()
            if wanted.column not in columns:
                hint = suggestion(wanted.column, [column for column in columns if column], "Its columns")
                raise _ListError(f"{name}:1 has no column '{wanted.column}'.", hint)
            for count, row in enumerate(reader):
                if count >= MOST:
                    raise _ListError(f"'{name}' has more than {MOST:,} rows.", "Take a part of it.")
                yield _prompt(row[wanted.column], f"{name}:{reader.line_num}")
    except csv.Error as error:
        raise _ListError(
            f"'{name}' is no list of comma-separated rows after line {reader.line_num}: {error}."
        ) from error
    except UnicodeDecodeError as error:
        raise _ListError(f"'{name}' is not UTF-8: {error.reason}.", "Save it as UTF-8.") from error
    except (OSError, ValueError) as error:
        raise _ListError(
            f"the list {name!a} cannot be read: {error.strerror if isinstance(error, OSError) else error}."
        ) from error


def _prompt(text: str | None, place: str) -> str:
    found = (text or "").strip()
    if not found:
        raise _ListError(f"{place} has no prompt.", "Every row needs one: delete the row, or fill it in.")
    if len(found) > LONGEST or _CONTROL.search(found):
        what = f"{len(found)} characters, at most {LONGEST} are asked" if len(found) > LONGEST else "control characters"
        raise _ListError(f"the prompt of {place} has {what}.")
    return found
