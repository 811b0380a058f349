"""The page for plugin authors is true: its code is installed as a package of its own and released with."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace

import pytest

from publisher.api import CheckEnd
from publisher.registry.load import build_registry
from publisher.scaffold import plugin_files

ROOT = Path(__file__).parents[2]
NAMED = (("publisher_dampen/__init__", "py"), ("pyproject", "toml"), ("tests/test_contract", "py"))
"""Path without its ending, and the ending, of what the page prints."""
MANIFEST = """
manifest: 1
release: {name: dampened, version: 1.0.0, license: CC-BY-4.0}
model: embedded:emoji
prompts: {object: ["{a} {name} emoji"]}
concepts: [cigarette]
keep: {concepts: [pizza]}
steps:
  - {use: dampen, with: {strength: STRENGTH}}
evaluate: {scorer: emoji, sampling: {steps: 6, guidance: 3.0, images: 8}}
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment of a process in which the example is installed; ``SOURCE`` is its folder."""
    target = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source")
    for path, text in plugin_files("step", "dampen").items():
        (source / path).parent.mkdir(exist_ok=True)
        (source / path).write_text(text)
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--target", str(target), str(source)], check=True, capture_output=True)
    return {**os.environ, "PYTHONPATH": str(target), "OMP_NUM_THREADS": "2", "SOURCE": str(source)}


def blocks() -> list[str]:
    """Return the page's blocks of code, in order."""
    page = (ROOT / "docs" / "plugins" / "write-a-step.md").read_text()
    return re.findall(r"```(?:python|toml)\n(.*?)```", page, re.DOTALL)


def publisher(env: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "publisher", *words], env=env, capture_output=True, text=True, check=False
    )


def test_the_page_prints_the_code_that_is_run() -> None:
    files = plugin_files("step", "dampen")
    assert blocks()[:3] == [files[f"{name}.{kind}"] for name, kind in NAMED]


@pytest.mark.slow
def test_the_tests_that_were_written_pass_where_it_is_installed(installed: dict[str, str]) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", installed["SOURCE"]]
    done = subprocess.run(
        [*command, "tests"], cwd=installed["SOURCE"], env=installed, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "14 passed" in done.stdout


def test_the_observer_of_the_page_hears_of_a_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "page_observer.py").write_text(blocks()[3])
    monkeypatch.syspath_prepend(tmp_path)
    registry = build_registry([EntryPoint("page_observer", "page_observer", "publisher")])
    record = SimpleNamespace(id="gun.plain", verdict="passed")
    event = CheckEnd("gun", record, 1.25)  # type: ignore[arg-type]
    assert registry.notify("publisher_on_check_end", event) == []
    assert capsys.readouterr().out == "gun: gun.plain passed after 1.2 s\n"


def test_an_installed_step_shows_up_with_its_origin_and_parameters(installed: dict[str, str]) -> None:
    found = json.loads(publisher(installed, "plugins", "show", "dampen", "--json").stdout)
    assert found[0]["origin"]["distribution"] == "publisher-dampen"
    assert found[0]["parameters"]["properties"]["strength"]["maximum"] == 1


def test_its_parameters_are_checked_in_the_manifest(installed: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "manifest.yaml").write_text(MANIFEST.replace("STRENGTH", "2"))
    result = publisher(installed, "plan", str(tmp_path / "manifest.yaml"))
    assert (result.returncode, "manifest.yaml:9:" in result.stderr) == (2, True), result.stderr


@pytest.mark.slow
def test_a_release_runs_it_and_refuses_what_it_does_not_achieve(installed: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "manifest.yaml").write_text(MANIFEST.replace("STRENGTH", "0.0"))
    words = ("release", str(tmp_path / "manifest.yaml"), "--out", str(tmp_path / "out"), "--throwaway-key", "--json")
    result = publisher(installed, *words)
    assert result.returncode == 1, result.stderr
    told = json.loads(result.stdout)
    assert (told["decision"], told["package"]) == ("failed", None)
    report = json.loads((tmp_path / "out" / "dampened-1.0.0.report" / "report.json").read_text())
    assert report["steps"][0]["origin"]["distribution"] == "publisher-dampen"
