"""Rules of the house that no single module can keep."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

PLUGINS = Path(__file__).parent.parent / "plugins"
HEAVY = {"torch", "diffusers", "transformers", "scipy"}


def test_the_command_and_every_entry_point_import_without_torch() -> None:
    modules = ["publisher.cli", *sorted(point.module for point in entry_points(group="publisher"))]
    assert len(modules) > 1, "no plugin is installed: is the project installed?"
    code = f"import sys, importlib; [importlib.import_module(m) for m in {modules}]; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert HEAVY.isdisjoint(loaded)


def test_plugins_import_of_publisher_only_the_api() -> None:
    found = {str(source.relative_to(PLUGINS)): beyond_the_api(source) for source in sorted(PLUGINS.rglob("*.py"))}
    assert len(found) > 50
    assert {source: names for source, names in found.items() if names} == {}


def beyond_the_api(source: Path) -> set[str]:
    imported: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module or "")
    ours = {name for name in imported if name == "publisher" or name.startswith("publisher.")}
    return {name for name in ours if not name.startswith("publisher.api")}
