"""Rules of the house that no single module can keep."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

PLUGINS = Path(__file__).parent.parent / "plugins"
HEAVY = {"torch", "diffusers", "transformers", "scipy"}


ATTACKS = """
from publisher.builtin import publisher_register_attacks as found
from publisher.api import Concept, Sampling, SearchAttack
cat = Concept(id='cat', name='cat', label='cat', prompts=('a cat',))
asked = {attack.name: attack().requests(attack.Params(), cat, Sampling()) for attack in found()}
searches = {attack.name for attack in found() if issubclass(attack, SearchAttack)}
assert {name for name, requests in asked.items() if not requests} == {'paraphrase', *searches}
assert {'derived-embedding', 'concept-inversion', 'img2img'} <= searches
"""
WITHOUT: dict[str, set[str]] = {
    "import publisher; publisher.load; publisher.guard": HEAVY,
    "import publisher.cli.verify, publisher.cli.keygen": {"torch", "model_signing", "sigstore", "cyclonedx"},
    "import publisher.cli.audit, publisher.auditing": {"torch"},
    "import publisher.manifest, publisher.manifest.reference, publisher.cli.schema": HEAVY,
    "import publisher.evaluate.plan, publisher.evaluate.context": {"torch"},
    "import publisher.builtin.reports": {"torch", "jinja2", "junitparser"},
    "import publisher.builtin.metrics.curves": {"torch", "scipy", "numpy"},
    "import publisher.builtin.sources as found; found.Hub().check('hf:a/b')": {"huggingface_hub"},
    ATTACKS: {"torch", "peft", "diffusers"},
    "import publisher_emoji as found; found.EmojiScorer().labels()": {"torch"},
    "import publisher_freeze_mask as found, publisher_freeze_mask.step; found.publisher_register_steps()": {"torch"},
    "import publisher_immunize as found, publisher_immunize.claims; found.publisher_register_steps()": {"torch"},
}
"""Code -> what it must leave unloaded."""
FORKING = """
import importlib, json, os, sys
import publisher.api
assert not {'torch', 'scipy', 'numpy', 'huggingface_hub', 'jinja2'} & set(sys.modules)
for number, (code, unwanted) in enumerate(json.load(sys.stdin)):
    child = os.fork()
    if not child:
        exec(code, {})
        print(*sorted(set(unwanted) & set(sys.modules)), flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, code
"""


def test_what_needs_no_torch_loads_none() -> None:
    """One process has imported what all of them share, and forks for each."""
    modules = sorted(point.module for point in entry_points(group="publisher"))
    assert modules, "no plugin is installed: is the project installed?"
    entries = f"import importlib; [importlib.import_module(name) for name in {['publisher.cli', *modules]}]"
    cases = [(code, sorted(unwanted)) for code, unwanted in {entries: HEAVY, **WITHOUT}.items()]
    command = [sys.executable, "-c", FORKING]
    done = subprocess.run(command, input=json.dumps(cases), check=True, capture_output=True, text=True)
    loaded = {code: line for (code, _), line in zip(cases, done.stdout.splitlines(), strict=True) if line}
    assert loaded == {}


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
