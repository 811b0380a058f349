"""Write ``manifest.md`` and ``manifest.schema.json`` beside this file: ``python docs/reference/manifest.py``."""  # noqa: INP001 - a script

from __future__ import annotations

from pathlib import Path

from publisher.manifest.reference import reference_page, schema_text
from publisher.registry import load_registry

if __name__ == "__main__":
    here = Path(__file__).parent
    catalog = load_registry().catalog()
    (here / "manifest.md").write_text(reference_page(catalog), encoding="utf-8")
    (here / "manifest.schema.json").write_text(schema_text(catalog), encoding="utf-8")
