"""Training membranes without a release, with a step that makes them at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from publisher import api
from publisher.api.membranes import find_hosts, membrane_bytes, read_membrane
from publisher.cli import main
from publisher.registry import Registry, load_registry
from support.membrane_files import random_membrane

Manifest = Callable[..., Path]
RUNS: list[str] = []


class ToyParams(api.Params):
    """What the toy can be told."""

    fail: bool = False
    """Crash instead."""


class Toy(api.Step[ToyParams]):
    """A membrane for each concept, of random numbers."""

    name, version = "membrane-bundle", "1"

    def claims(self, params: ToyParams, scope: api.Scope) -> list[api.Claim]:
        return []

    def plan(self, params: ToyParams, scope: api.Scope, model: api.ModelInfo) -> api.StepPlan:
        names = [f"membranes/{concept.id}.safetensors" for concept in scope.concepts]
        return api.StepPlan({}, ("membranes/index.json", "other.json", *names))

    def run(self, params: ToyParams, ctx: api.StepContext) -> None:
        RUNS.append(",".join(concept.id for concept in ctx.scope.concepts))
        if params.fail:
            raise RuntimeError("no luck")
        for concept in ctx.scope.concepts:
            data = membrane_bytes(random_membrane(find_hosts(ctx.model), prompts=(concept.name,)))
            ctx.artifact(f"membranes/{concept.id}.safetensors", data)
        ctx.artifact("membranes/index.json", b"{}\n")
        ctx.artifact("other.json", b"{}\n")
        ctx.curve("erase loss", [1, 2, 3], [0.5, 0.25, 0.125])
        ctx.record("residual", 0.125)
        ctx.warn("only a toy")


@pytest.fixture(autouse=True)
def _toy_step(monkeypatch: pytest.MonkeyPatch) -> None:
    RUNS.clear()
    real = load_registry()
    entries = tuple(
        replace(entry, cls=Toy) if (entry.kind, entry.name) == ("step", Toy.name) else entry
        for entry in real.contributions
    )
    registry = Registry(real.observers, entries, ())
    monkeypatch.setattr(import_module("publisher.release.prepare"), "load_registry", lambda: registry)


def step(*concepts: str, **params: Any) -> dict[str, Any]:
    return {"use": "membrane-bundle", "concepts": list(concepts), "with": params}


def sections(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"concepts": ["cigarette", "bomb"], "steps": list(steps), "evaluate": {"scorer": "emoji"}}


def train(manifest: Path, out: Path, *words: str) -> Result:
    command = ["membranes", "train", str(manifest), "--out", str(out), "--work", str(out.parent / "work")]
    return CliRunner().invoke(main, [*command, *words])


def test_the_membranes_and_a_summary_are_written_and_nothing_is_said_to_be_verified(
    manifest: Manifest, tmp_path: Path
) -> None:
    result = train(manifest(**sections(step("cigarette", "bomb"))), tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "bomb.safetensors",
        "cigarette.safetensors",
        "training.json",
    ]
    assert read_membrane(tmp_path / "out" / "bomb.safetensors").prompts == ("bomb",)
    told = json.loads((tmp_path / "out" / "training.json").read_text())
    assert told["verified"] is False
    assert told["curves"][0]["y"] == [0.5, 0.25, 0.125]
    assert told["warnings"] == ["only a toy"]
    assert "nothing was verified" in result.stderr
    assert "  residual: 0.125" in result.stdout
    assert not (tmp_path / "releases").exists()


def test_one_json_document_says_the_same(manifest: Manifest, tmp_path: Path) -> None:
    result = train(manifest(**sections(step("cigarette"))), tmp_path / "out", "--json", "--quiet")
    told = json.loads(result.stdout)
    assert told["files"] == [str(tmp_path / "out" / name) for name in ("cigarette.safetensors", "training.json")]
    assert told["steps"] == [json.loads((tmp_path / "out" / "training.json").read_text())]
    assert result.stderr == ""


def test_steps_after_the_last_membrane_step_do_not_run_and_those_before_do(manifest: Manifest, tmp_path: Path) -> None:
    erase = {"use": "erase", "concepts": ["bomb"], "with": {"targets": {"bomb": "pizza"}}}
    result = train(manifest(**sections(erase, step("cigarette"), erase | {"id": "later"})), tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    base = json.loads((tmp_path / "out" / "training.json").read_text())["input"]
    assert len(list((tmp_path / "work" / "steps").iterdir())) == 2
    alone = train(manifest(**sections(step("cigarette"))), tmp_path / "alone")
    assert alone.exit_code == 0
    assert json.loads((tmp_path / "alone" / "training.json").read_text())["input"] != base


def test_a_finished_step_comes_from_the_work_folder(manifest: Manifest, tmp_path: Path) -> None:
    path = manifest(**sections(step("cigarette")))
    train(path, tmp_path / "one")
    again = train(path, tmp_path / "two")
    assert RUNS == ["cigarette"]
    assert "membrane-bundle, taken from the cache" in again.stdout
    for name in ("cigarette.safetensors", "training.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_several_steps_get_a_folder_each(manifest: Manifest, tmp_path: Path) -> None:
    steps = (step("cigarette") | {"id": "first"}, step("bomb") | {"id": "second"})
    assert train(manifest(**sections(*steps)), tmp_path / "out").exit_code == 0
    files = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.safetensors")}
    assert files == {"first/cigarette.safetensors", "second/bomb.safetensors"}


def test_a_step_that_fails_leaves_no_output(manifest: Manifest, tmp_path: Path) -> None:
    result = train(manifest(**sections(step("cigarette", fail=True))), tmp_path / "out")
    assert (result.exit_code, "crashed: RuntimeError: no luck" in result.stderr) == (3, True)
    assert not list(tmp_path.glob("*out*"))


def test_an_existing_output_and_a_manifest_without_the_step_are_refused_before_anything_runs(
    manifest: Manifest, tmp_path: Path
) -> None:
    (tmp_path / "there").mkdir()
    result = train(manifest(**sections(step("cigarette"))), tmp_path / "there")
    assert (result.exit_code, "is there already" in result.stderr) == (2, True)
    result = train(manifest(), tmp_path / "out")
    assert (result.exit_code, "has no step 'membrane-bundle'" in result.stderr) == (2, True)
    assert RUNS == []


def test_a_file_where_the_output_would_go_is_said_before_anything_runs(manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = train(manifest(**sections(step("cigarette"))), tmp_path / "file" / "out")
    assert (result.exit_code, f"{tmp_path / 'file'}: is no folder" in result.stderr) == (2, True), result.stderr
