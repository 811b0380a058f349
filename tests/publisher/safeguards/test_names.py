"""The rooms of a release name no safeguard: a third one would be a folder, and a name in one tuple."""

from __future__ import annotations

import re
from pathlib import Path

from publisher import safeguards
from publisher.safeguards.base import Safeguard

ROOT = Path(safeguards.__file__).parents[1]
NAMES = re.compile(r"freeze.?mask|membrane", re.IGNORECASE)
MAY = ("safeguards/", "api/", "builtin/", "cli/membranes.py")
"""The safeguards themselves; the public data types; the publisher's own plugins, which see the public record alone, as
anybody's do; and the command whose subject one safeguard is."""
KEY = "a public key or its words: a check's membranes: on or off, or a table of the record"
DOOR = "one of the doors of those who use a package: what it serves is its name"
EXCEPTIONS = {
    "auditing.py": DOOR,
    "guarding.py": DOOR,
    "loading.py": DOOR,
    "cli/audit.py": DOOR,
    "cli/export.py": DOOR,
    "cli/main.py": "the list of commands",
    "cli/plan.py": KEY,
    "comparison/non_inferiority.py": KEY,
    "comparison/table.py": KEY,
    "cli/release.py": "says how to load the package",
    "exporting.py": "what becomes of a safeguard that no single file can hold",
    "evaluate/finetune/trials.py": "attackers who honour a mask train under the very guard that users train under",
    "evaluate/measure.py": KEY,
    "evaluate/pairs.py": KEY,
    "evaluate/permeabilities.py": KEY,
    "manifest/messages.py": "an old key in a manifest is told its new name",
    "manifest/schema.py": "documentation of a public key",
    "package/summary.py": KEY,
    "release/existing.py": KEY,
    "release/replay.py": KEY,
    "report/access.py": "says which numbers hold only with which safeguard",
    "testing/of_attacks.py": "attackers who honour a mask are a rule of the contract",
    "report/wording.py": "the words of two public keys, in one place",
}
"""File that names a safeguard -> why it may."""


def naming() -> set[str]:
    files = {path.relative_to(ROOT).as_posix(): path for path in ROOT.rglob("*.py")}
    return {name for name, path in files.items() if not name.startswith(MAY) and NAMES.search(path.read_text("utf-8"))}


def test_no_room_names_a_safeguard_without_a_reason() -> None:
    assert sorted(naming() - EXCEPTIONS.keys()) == []


def test_every_exception_is_still_one() -> None:
    assert sorted(EXCEPTIONS.keys() - naming()) == []


def test_each_safeguard_has_files_of_its_own() -> None:
    assert all(isinstance(one, Safeguard) for one in safeguards.ALL)
    files = [one.file for one in safeguards.ALL]
    assert len(set(files)) == len(files)
    assert all([other.owns(one.file) for other in safeguards.ALL].count(True) == 1 for one in safeguards.ALL)
