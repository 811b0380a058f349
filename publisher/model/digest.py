"""sha256 of files and of folders, and seeds that are made of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def sha256_file(path: Path) -> str:
    """Return the sha256 of a file's content, in lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(data: Any) -> str:
    """Return the sha256 of JSON data, whatever the order of its keys."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_list(digests: Mapping[str, str]) -> str:
    """Return one digest for a set of files: sha256 of the lines ``<hex>  <path>``, sorted by path."""
    lines = "".join(f"{digests[path]}  {path}\n" for path in sorted(digests))
    return hashlib.sha256(lines.encode()).hexdigest()


def seed_of(*names: str | int) -> int:
    """Return a seed in [0, 2**60) for what ``names`` name."""
    return int(sha256_json(list(names))[:15], 16)
