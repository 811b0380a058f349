"""``publisher init``: a first manifest that can be planned as it is, and nothing lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from publisher.cli.main import main
from publisher.manifest import read
from publisher.registry import load_registry
from publisher_emoji import model_folder

ROOT = Path(__file__).parents[3]


def init(*words: str) -> Result:
    return CliRunner().invoke(main, ["init", *words])


def test_the_embedded_models_first_manifest_is_the_one_in_the_repository(tmp_path: Path) -> None:
    result = init(str(tmp_path / "demo"))
    assert result.exit_code == 0, result.output
    written = (tmp_path / "demo/manifest.yaml").read_text(encoding="utf-8")
    assert written == (ROOT / "manifests/first.yaml").read_text(encoding="utf-8")
    assert len(written.splitlines()) <= 12


def test_the_line_that_is_left_out_can_be_taken_in(tmp_path: Path) -> None:
    init(str(tmp_path))
    path = tmp_path / "manifest.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("# evaluate", "evaluate"), encoding="utf-8")
    found = read(path, load_registry().catalog()).evaluate.red_team
    assert {check.attack for check in found} >= {"word-fuzz", "img2img", "derived-embedding"}


def test_a_folder_is_named_as_the_manifest_sees_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sd").symlink_to(model_folder())
    result = init("demo", "--model", "./sd", "--step", "erase", "--step", "immunize")
    assert result.exit_code == 0, result.output
    text = (tmp_path / "demo/manifest.yaml").read_text(encoding="utf-8")
    assert "evaluate: {scorer: NAME}" in text
    resolved = read(tmp_path / "demo/manifest.yaml", load_registry().catalog())
    assert (tmp_path / "demo" / resolved.model).resolve() == model_folder().resolve()
    assert [step.use for step in resolved.steps] == ["erase", "immunize"]
    assert resolved.scope.concepts[0].prompts[-1] == "a painting by Vincent van Gogh"


def test_a_manifest_that_is_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "manifest.yaml"
    path.write_text("mine", encoding="utf-8")
    result = init(str(tmp_path))
    assert "there is a manifest already" in " ".join(result.stderr.split())
    assert path.read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--step", "erased"], "no plugin provides the step 'erased'"),
        (["--model", "./nowhere"], "there is no such folder"),
        (["--model", "hf:org/name@main"], "40 hex digits"),
    ],
)
def test_what_cannot_be_written_leaves_nothing(tmp_path: Path, words: list[str], message: str) -> None:
    result = init(str(tmp_path / "demo"), *words)
    assert message in " ".join(result.stderr.split())
    assert not (tmp_path / "demo").exists()
