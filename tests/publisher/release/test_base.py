"""Base models that no package can be made of, and packages as base models: said at plan."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from publisher.api.membranes import INDEX
from publisher_emoji import model_folder
from support.releasing import MANIFEST, publisher

Manifest = Callable[..., Path]


def copied(source: Path, folder: Path) -> Path:
    shutil.copytree(source, folder)
    return folder


def test_a_name_that_no_package_can_hold_is_said_before_any_step(manifest: Manifest, tmp_path: Path) -> None:
    odd = copied(model_folder(), tmp_path / "model") / "unet" / "config copy.json"
    shutil.copy(odd.with_name("config.json"), odd)
    result = publisher("plan", manifest(model="./model"))
    assert result.exit_code == 2
    assert f"{odd}: has a name that is not allowed" in result.stderr
    odd.rename(odd.with_name("Config.json"))
    assert "are one name to some file systems" in publisher("plan", manifest(model="./model")).stderr


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("text_encoder/config.json", '{"attn_implementation": "org/kernel"}', "may make loaders fetch a kernel"),
        ("text_encoder/adapter_config.json", "{}", "makes loaders fetch another model"),
        ("tokenizer/more.json", '{"a": 1, "a": 2}', "has a key twice"),
    ],
)
def test_a_configuration_that_no_verifier_accepts_is_said_before_any_step(
    manifest: Manifest, tmp_path: Path, file: str, content: str, message: str
) -> None:
    odd = copied(model_folder(), tmp_path / "model") / file
    config = json.loads(odd.read_text()) if odd.exists() else {}
    odd.write_text(json.dumps(config | json.loads(content)) if config else content)
    result = publisher("plan", manifest(model="./model"))
    assert result.exit_code == 2
    assert message in result.stderr
    assert str(odd) in result.stderr


def test_a_scheduler_whose_library_is_missing_is_said_at_plan(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied(model_folder(), tmp_path / "model")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"scheduler": ["diffusers", "DPMSolverSDEScheduler"]}))
    monkeypatch.setattr("publisher.model.libraries.find_spec", lambda _name: None)
    result = publisher("plan", manifest(model="./model"))
    assert result.exit_code == 3
    assert "DPMSolverSDEScheduler needs torchsde, which is not installed\n  pip install torchsde" in result.stderr


@pytest.fixture
def package(released: tuple[Path, Result], tmp_path: Path) -> Path:
    """A package with a membrane by name, a mask and a base model's card."""
    folder = copied(released[0] / "small-1.0.0", tmp_path / "package")
    (folder / "release" / INDEX).parent.mkdir()
    (folder / "release" / INDEX).write_text(json.dumps({"entries": [{"concept": "skull\u202e"}]}))
    (folder / "release" / "freeze-mask.json").write_text("{}")
    (folder / "release" / "base-model-card.md").write_text("# The base")
    return folder


def test_a_package_as_base_is_refused_with_all_that_would_get_lost(package: Path, manifest: Manifest) -> None:
    result = publisher("plan", manifest(model="./package"))
    assert result.exit_code == 2
    assert f"{package}: the base model is the released package small 1.0.0" in result.stderr
    for safeguard in ("membranes for skull\\u202e", "a freeze mask", "the claim: cigarette is not generated"):
        assert f"It has {safeguard}" in result.stderr
    assert "base_safeguards: drop" in result.stderr


@pytest.mark.parametrize("left", ["release/release.json", "release/freeze-mask.json", f"release/{INDEX}"])
def test_a_part_of_a_package_is_enough_to_be_refused(package: Path, manifest: Manifest, left: str) -> None:
    kept = (package / left).read_bytes()
    shutil.rmtree(package / "release")
    (package / left).parent.mkdir(parents=True)
    (package / left).write_bytes(kept)
    assert publisher("plan", manifest(model="./package")).exit_code == 2


@pytest.mark.slow
def test_dropped_safeguards_are_named_by_plan_and_report_and_no_old_paper_goes_along(
    package: Path, manifest: Manifest, tmp_path: Path
) -> None:
    gates = {"erase.bomb.plain": {"upper_at_most": 0.5}, "erase.kept": {"lower_at_least": -0.5}}
    path = manifest(
        model="./package",
        base_safeguards="drop",
        release={"name": "next", "version": "1", "license": "x"},
        concepts=["bomb"],
        steps=[{"use": "erase", "with": {"targets": {"bomb": "pizza"}}}],
        evaluate=MANIFEST["evaluate"] | {"gates": gates},
    )
    planned = publisher("plan", path).stdout
    assert "Dropped on purpose, and not checked again: a freeze mask." in planned
    result = publisher("release", path, "--out", tmp_path / "out", "--throwaway-key")
    assert result.exit_code == 0, result.stderr
    made = tmp_path / "out" / "next-1"
    report = json.loads((made / "release" / "reports" / "report.json").read_text())
    assert sum("Dropped on purpose" in limit for limit in report["limits"]) == planned.count("Dropped on purpose")
    card = (made / "README.md").read_text()
    assert ("Dropped on purpose" in card, "# small 1.0.0" in card) == (True, False)
    assert (made / "release" / "base-model-card.md").read_text() == "# The base"
    assert not (made / "release" / "freeze-mask.json").exists()
    assert not (made / "release" / INDEX).exists()
