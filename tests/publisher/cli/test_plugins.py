"""``publisher plugins``: what is installed, and what was set aside."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from publisher.api import Origin
from publisher.cli import main
from publisher.cli import plugins as command
from publisher.registry import Broken, Registry, load_registry


def test_the_table_names_every_contribution_with_its_origin() -> None:
    output = CliRunner().invoke(main, ["plugins"]).output
    assert "step " in output
    assert any(line.split()[:2] == ["step", "erase"] and "model-publisher" in line for line in output.splitlines())
    assert "set aside" not in output


def test_json_holds_the_same_as_one_document() -> None:
    data = json.loads(CliRunner().invoke(main, ["plugins", "--json"]).output)
    assert {(entry["kind"], entry["name"]) for entry in data["plugins"]} >= {("step", "erase"), ("scorer", "emoji")}
    assert all(len(entry["origin"]["digest"]) == 64 for entry in data["plugins"])


def test_show_describes_the_parameters() -> None:
    output = CliRunner().invoke(main, ["plugins", "show", "erase"]).output
    assert 'method (default: "' in output
    assert "publisher_erase.step:Erase" in output


def test_show_of_an_unknown_name_lists_all() -> None:
    result = CliRunner().invoke(main, ["plugins", "show", "erased"])
    assert (result.exit_code, "nothing is called 'erased'. Installed: " in result.output) == (2, True)


def test_a_plugin_that_was_set_aside_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    good = load_registry()
    origin = Origin(distribution="x", version="1", module="bad")
    registry = Registry(good.observers, good.contributions, (Broken("bad", origin, "ImportError: no"),))
    monkeypatch.setattr(command, "load_registry", lambda: registry)
    assert "set aside: bad (bad of x): ImportError: no" in CliRunner().invoke(main, ["plugins"]).output
