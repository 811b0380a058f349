"""A release with membranes beside untouched weights: with and without them, after each step, into the package."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from publisher.api import Model
from publisher.api.membranes import FOLDER
from support.released_membranes import artifacts
from support.releasing import publisher, write

Manifest = Callable[..., Path]
RATES = {"upper_at_most": 0.5}
GATES = {
    "erase.cigarette.plain": RATES,
    "erase.cigarette.paraphrase": RATES,
    "membrane-bundle.cigarette.plain": RATES,
    "membrane-bundle.cigarette.paraphrase": RATES,
    "membrane-bundle.kept": {"lower_at_least": -0.5},
    "membrane-bundle.kept-distance": {"upper_at_most": 1.0},
    "membrane-bundle.unconditional": {"upper_at_most": 0.1},
}


def steps(folder: Path, model: Model) -> list[dict[str, Any]]:
    """Return one step: a random membrane, strong, and shut for every prompt without its words."""
    data = artifacts(model, ("cigarette",))[f"{FOLDER}/cigarette.safetensors"]
    (folder / "old.safetensors").write_bytes(data)
    transport = {"score": "overlap", "threshold": 0.5, "strength": 6.0}
    params = {
        "from": {"cigarette": "old.safetensors"},
        "aliases": {"cigarette": ["smoke", "cig"]},
        "transport": transport,
    }
    return [{"use": "membrane-bundle", "with": params}]


def evaluate(**changes: Any) -> dict[str, Any]:
    gates = {name: gate for name, gate in GATES.items() if name.startswith("membrane-bundle")}
    sampling = {"steps": 4, "guidance": 3.0, "images": 9, "kept_images": 3}
    return {"scorer": "emoji", "sampling": sampling, "gates": gates, **changes}


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory, embedded: Model) -> tuple[Path, Result]:
    """A release whose weights are the base model's. Do not change it."""
    folder = tmp_path_factory.mktemp("membranes")
    path = write(folder / "manifest.yaml", steps=steps(folder, embedded), evaluate=evaluate(after_each_step=True))
    return folder / "out", publisher("release", path, "--out", folder / "out", "--throwaway-key", "--json")


def report(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "small-1.0.0.report" / "report.json").read_text())
    return found


def checks(out: Path) -> dict[str, Any]:
    return {check["id"]: check for claim in report(out)["claims"] for check in claim["checks"]}


def test_membranes_keep_the_concept_back_and_the_weights_alone_do_not(released: tuple[Path, Result]) -> None:
    out, result = released
    assert result.exit_code == 0, result.stderr
    found = checks(out)
    assert found["membrane-bundle.cigarette.plain"]["measurement"]["hardened"]["value"] < 0.2
    without = found["membrane-bundle.cigarette.without"]
    assert (without["membranes"], without["measurement"]["seen"]) == ("off", without["measurement"]["base"])
    assert without["measurement"]["hardened"]["value"] > 0.8


def test_prompts_that_open_nothing_give_the_base_models_image(released: tuple[Path, Result]) -> None:
    details = checks(released[0])["membrane-bundle.kept-distance"]["measurement"]["details"]
    assert details["unchanged"]["value"] == 1.0
    assert [row["permeability"] for row in details["by_permeability"]] == ["0"]


def test_the_report_has_the_permeabilities_and_the_images_without(released: tuple[Path, Result]) -> None:
    found = report(released[0])
    table = found["permeabilities"]
    assert table["membranes"] == ["cigarette"]
    assert {(row["kept"], *row["permeability"]) for row in table["rows"]} == {(False, 6.0), (True, 0.0)}
    assert any(pair["without_png"] for pair in found["pairs"])
    page = (released[0] / "small-1.0.0.report" / "index.html").read_text()
    assert "How far prompts open the membranes" in page


def test_the_card_says_how_to_load_with_membranes_and_what_happens_without(released: tuple[Path, Result]) -> None:
    card = (released[0] / "small-1.0.0" / "README.md").read_text()
    assert 'publisher.load("small-1.0.0", verify_key="publisher.pub")' in card
    assert "| membrane-bundle.cigarette.without (without membranes) |" in card.replace("\\", "")


def test_the_plan_says_which_checks_are_made_without_membranes(
    manifest: Manifest, embedded: Model, tmp_path: Path
) -> None:
    path = manifest(steps=steps(tmp_path, embedded), evaluate=evaluate())
    text = publisher("plan", path, "--out", tmp_path / "out").stdout
    (line,) = [line for line in text.splitlines() if "membrane-bundle.cigarette.without   " in line]
    assert line.endswith("9 images of 3 prompts, without membranes")
    assert "9 of them without membranes, where the package has some" in text
    plan = json.loads(publisher("plan", path, "--out", tmp_path / "out", "--json").stdout)
    used = {check["id"]: check["membranes"] for claim in plan["claims"] for check in claim["checks"]}
    assert (used["membrane-bundle.cigarette.without"], used["membrane-bundle.cigarette.plain"]) == ("off", "on")


def test_the_matrix_sees_the_membranes_only_after_their_step(released: tuple[Path, Result]) -> None:
    cells = {(cell["claim"], cell["after"]): cell for cell in report(released[0])["matrix"]}
    plain = "membrane-bundle.cigarette.plain"
    assert [cells[plain, after]["verdict"] for after in ("base", "membrane-bundle")] == ["failed", "passed"]


@pytest.mark.slow
def test_a_later_step_is_measured_with_the_membranes_that_the_steps_before_left(
    released: tuple[Path, Result], manifest: Manifest, embedded: Model, tmp_path: Path
) -> None:
    both = [*steps(tmp_path, embedded), {"use": "erase", "with": {"targets": {"cigarette": "pizza"}}}]
    gates = GATES | {"erase.kept": {"lower_at_least": -0.5}}
    path = manifest(steps=both, evaluate=evaluate(after_each_step=True, gates=gates))
    words = ("--out", tmp_path / "out", "--work", released[0] / ".work", "--throwaway-key")
    result = publisher("release", path, *words)
    assert result.exit_code == 0, result.stderr
    cells = {(cell["claim"], cell["after"]): cell for cell in report(tmp_path / "out")["matrix"]}
    without, plain = "membrane-bundle.cigarette.without", "membrane-bundle.cigarette.plain"
    values = [cells[without, after]["value"] for after in ("base", "membrane-bundle", "erase")]
    assert values[0] == values[1] > 0.8
    assert values[2] < 0.2
    assert cells[plain, "base"]["value"] > 0.8
    assert cells[plain, "membrane-bundle"]["value"] < 0.2


@pytest.mark.slow
def test_an_index_that_lies_about_its_files_is_never_signed(
    released: tuple[Path, Result],
    manifest: Manifest,
    embedded: Model,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from publisher.package import build

    finish = build.finish

    def exchange(folder: Path, **parts: Any) -> None:
        other = artifacts(embedded, ("pizza", "cigarette"))[f"{FOLDER}/cigarette.safetensors"]
        (folder / "release" / FOLDER / "cigarette.safetensors").write_bytes(other)
        finish(folder, **parts)

    monkeypatch.setattr(build, "finish", exchange)
    path = manifest(steps=steps(tmp_path, embedded), evaluate=evaluate())
    words = ("--out", tmp_path / "out", "--work", released[0] / ".work", "--throwaway-key")
    result = publisher("release", path, *words)
    assert (result.exit_code, "changed the package while it was being made" in result.stderr) == (3, True)
    assert "release/membranes/cigarette.safetensors" in result.stderr
    assert not (tmp_path / "out" / "small-1.0.0").exists()
