"""A manifest for small releases of the embedded model, and how to run a command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from publisher.cli import main

MANIFEST: dict[str, Any] = {
    "manifest": 1,
    "release": {"name": "small", "version": "1.0.0", "license": "CC-BY-4.0", "date": "2026-11-22"},
    "model": "embedded:emoji",
    "prompts": {"object": ["{a} {name} emoji", "{a} {name} emoji in noto style", "{a} {name} emoji in blob style"]},
    "concepts": [{"id": "cigarette", "synonyms": ["smoke", "cig"]}],
    "keep": {"concepts": ["pizza", "dog", "pencil", "rocket"]},
    "steps": [{"use": "erase", "with": {"targets": {"cigarette": "pizza"}}}],
    "evaluate": {
        "scorer": "emoji",
        "sampling": {"steps": 4, "guidance": 3.0, "images": 9, "kept_images": 3},
        "gates": {
            "erase.cigarette.plain": {"upper_at_most": 0.5},
            "erase.cigarette.paraphrase": {"upper_at_most": 0.5},
            "erase.kept": {"lower_at_least": -0.5},
        },
    },
}


def write(path: Path, **sections: Any) -> Path:
    """Write the manifest, some sections replaced, as a file (JSON is YAML)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(MANIFEST | sections))
    return path


def publisher(*words: object) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(main, [str(word) for word in words])
