"""A new plugin of every kind works as it is written: it is installed, listed, and its own tests pass."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner, Result

from publisher.cli import main
from publisher.registry import load_registry
from publisher.scaffold import KINDS, REGISTERED, plugin_files
from publisher.testing import installed
from publisher.testing.common import answer_all

NAMES = {kind: f"tried-{kind}" for kind in KINDS}


def new(folder: Path, kind: str, *more: str) -> Result:
    return CliRunner().invoke(main, ["plugins", "new", str(folder), "--kind", kind, *more])


@pytest.fixture(scope="module")
def tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, ModuleType]]:
    """The tests of a new plugin of each kind, while all of them are installed."""
    root, modules = tmp_path_factory.mktemp("new"), {}
    with pytest.MonkeyPatch.context() as patch:
        for kind, name in NAMES.items():
            done = new(root / f"publisher-{name}", kind)
            assert (done.exit_code, "pip install -e" in done.output) == (0, True), done.output
            patch.syspath_prepend(root / f"publisher-{name}")
        modules_of = {name: f"publisher_{name.replace('-', '_')}" for name in NAMES.values()}
        with installed(modules_of, tmp_path_factory.mktemp("site")):
            for kind, name in NAMES.items():
                path = root / f"publisher-{name}" / "tests" / "test_contract.py"
                spec = importlib.util.spec_from_file_location(f"test_of_{kind}", path)
                assert spec is not None
                assert spec.loader is not None
                modules[kind] = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(modules[kind])
            answer_all([module.test_contract.plugin for module in modules.values()])
            yield modules
        for module in modules_of.values():
            sys.modules.pop(module, None)


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_plugin_is_listed_and_keeps_its_contract(kind: str, tests: dict[str, ModuleType]) -> None:
    entry = load_registry().get(REGISTERED.get(kind, kind), NAMES[kind])
    assert entry.origin.module == f"publisher_tried_{kind}:Tried{kind.capitalize()}"
    (mark,) = tests[kind].test_contract.pytestmark
    for case in mark.args[1]:
        tests[kind].test_contract(*case.values)


@pytest.mark.parametrize("kind", KINDS)
def test_its_own_test_of_behaviour_passes(kind: str, tests: dict[str, ModuleType]) -> None:
    own: dict[str, Any] = {
        name: value for name, value in vars(tests[kind]).items() if name.startswith("test_") and name != "test_contract"
    }
    assert len(own) == 1
    for test in own.values():
        test()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    assert new(tmp_path / "dampen", "step").exit_code == 0
    again = new(tmp_path / "dampen", "step")
    assert (again.exit_code, "is there already" in again.output) == (2, True)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Dampen", "cannot be the name of a plugin"),
        ("true", "cannot be the name of a plugin"),
        ("field", "cannot be the name of a plugin"),
        ("../x", "cannot be the name of a plugin"),
        ("erase", "a package 'publisher_erase' is installed already"),
    ],
)
def test_a_name_that_will_not_do_is_refused(name: str, said: str, tmp_path: Path) -> None:
    done = new(tmp_path / "it", "step", "--name", name)
    assert (done.exit_code, said in done.output) == (2, True), done.output
    assert not (tmp_path / "it").exists()


def test_a_name_that_an_installed_plugin_has_is_refused(tmp_path: Path) -> None:
    done = new(tmp_path / "it", "metric", "--name", "concept-rate")
    assert "an installed plugin provides the metric 'concept-rate' already" in done.output


@pytest.mark.parametrize("kind", KINDS)
def test_long_names_leave_no_line_too_long(kind: str) -> None:
    texts = plugin_files(kind, "dampen-more")
    assert max(len(line) for text in texts.values() for line in text.splitlines()) <= 120
