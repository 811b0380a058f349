"""The first files of a plugin: they work as they are, and their tests pass."""

from __future__ import annotations

import importlib.util
import keyword
import re
from collections.abc import Mapping
from importlib.resources import files
from string import Template
from types import MappingProxyType

from publisher.errors import UsageError

KINDS: Mapping[str, str] = MappingProxyType(
    {
        "step": "A hardening step for publisher: dampen cross-attention",
        "attack": "An attack for publisher: ask in capitals",
        "scorer": "A scorer for publisher: light or dark",
        "metric": "A metric for publisher: whether a concept appears at all",
        "family": "A family of models for publisher",
        "report": "A form of the report for publisher: the decision on one line",
    }
)
"""Kind of plugin -> description of the distribution that is written."""
REGISTERED: Mapping[str, str] = MappingProxyType({"report": "report_format"})
"""Kind -> what the registry calls it, where that is another word."""
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
USED = ("Field",)
"""Names that the modules import, so that no class can have them."""


def name_of(folder: str) -> str:
    """Return the name of a plugin that is written into a folder of this name: ``publisher-dampen`` is ``dampen``."""
    return folder.lower().replace("_", "-").removeprefix("publisher-")


def module_of(name: str) -> str:
    """Return the import name of a plugin's package."""
    return f"publisher_{name.replace('-', '_')}"


def plugin_files(kind: str, name: str) -> dict[str, str]:
    """Return the files of a new plugin: path -> text.

    Args:
        kind: one of :data:`KINDS`.
        name: what a manifest will call it: lower case with dashes.

    Raises:
        UsageError: the name cannot be one, or another installed package has the name of its package.
    """
    class_name = "".join(part.capitalize() for part in name.split("-"))
    if not NAME.fullmatch(name) or keyword.iskeyword(class_name) or class_name in USED:
        raise UsageError(
            f"{name!r} cannot be the name of a plugin",
            where="--name",
            hint="Lower case and digits, a letter first, with dashes in between: dampen, dampen-more.",
        )
    module = module_of(name)
    if importlib.util.find_spec(module) is not None:
        raise UsageError(f"a package {module!r} is installed already", where="--name", hint="Choose another name.")
    values = {"name": name, "module": module, "class_name": class_name, "description": KINDS[kind]}
    texts = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        f"{module}/__init__.py": f"{kind}.py",
        "tests/test_contract.py": f"{kind}.test",
    }
    folder = files(__package__) / "templates"
    return {
        path: Template((folder / f"{template}.txt").read_text(encoding="utf-8")).substitute(values)
        for path, template in texts.items()
    }
