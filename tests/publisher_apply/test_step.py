from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from apply_cases import KEY, Context, made, noise, saved, weights

from publisher.api import Concept, Credit, Model, Scope, UsageError
from publisher.engine.run import Hardened, harden
from publisher.model.state import State
from publisher.release.prepare import prepare
from publisher.testing.running import Silent
from publisher_apply import publisher_register_steps
from publisher_apply.params import ApplyParams
from publisher_apply.step import Apply
from support.releasing import MANIFEST, write

ERASE = MANIFEST["steps"][0]


def hardened(folder: Path, *steps: dict[str, Any]) -> Hardened:
    """Run a manifest's steps, and nothing else of a release."""
    gates = {"scorer": "emoji", "sampling": MANIFEST["evaluate"]["sampling"]}
    prepared = prepare(write(folder / "m.yaml", steps=list(steps), evaluate=gates), folder / "work", fetch=True)
    assert prepared.model is not None
    base = State(prepared.model.folder, (), folder / "work" / "states")
    return harden(base, prepared.steps, folder / "work", Silent(), lambda *_: None)


def bytes_of(state: State) -> dict[str, str]:
    return {
        path.relative_to(state.folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in state.folder.rglob("*")
        if path.is_file()
    }


def test_the_plugin_registers_the_step() -> None:
    assert publisher_register_steps() == (Apply,)


def test_a_hardened_model_applied_to_its_base_gives_the_same_bytes(tmp_path: Path) -> None:
    first = hardened(tmp_path / "first", ERASE).final
    shutil.copytree(first.folder, tmp_path / "second" / "theirs")
    source = {"name": "ours", "method": "UCE"}
    found = hardened(tmp_path / "second", {"use": "apply", "with": {"from": "theirs", "source": source}})
    assert bytes_of(found.final) == bytes_of(first)
    (record,) = (one.record for one in found.results)
    assert record.credits == (Credit(name="ours", method="UCE"),)
    assert list(record.inputs) == ["theirs"]


def test_it_composes_with_other_steps_but_never_overwrites_them(tmp_path: Path, embedded: Model) -> None:
    theirs = {KEY: noise(embedded.read("unet", KEY))}
    saved(tmp_path / "theirs.safetensors", theirs)
    step = {"use": "apply", "with": {"from": "theirs.safetensors"}}
    after = hardened(tmp_path, step, ERASE).final
    assert not torch.equal(after.read("unet", KEY), theirs[KEY])
    with pytest.raises(UsageError, match="would overwrite what an earlier step did") as caught:
        hardened(tmp_path, ERASE, step)
    assert "Put apply first" in caught.value.hint


def test_an_exchanged_input_is_found_out(tmp_path: Path, embedded: Model) -> None:
    from publisher.api import PublisherError

    path = saved(tmp_path / "theirs.safetensors", {KEY: noise(embedded.read("unet", KEY))})
    prepared = prepare(
        write(tmp_path / "m.yaml", steps=[{"use": "apply", "with": {"from": path.name}}], evaluate={"scorer": "emoji"}),
        tmp_path / "work",
        fetch=True,
    )
    saved(path, {KEY: noise(embedded.read("unet", KEY), seed=1)})
    assert prepared.model is not None
    base = State(prepared.model.folder, (), tmp_path / "work" / "states")
    with pytest.raises(PublisherError, match="changed meanwhile"):
        harden(base, prepared.steps, tmp_path / "work", Silent(), lambda *_: None)


def test_the_claims_are_those_of_an_eraser_and_say_that_nobody_knows_how() -> None:
    gun = Concept(
        id="gun", name="gun", prompts=("a gun",), synonyms=("pistol",), paraphrases=("a pistol",), label="gun"
    )
    claims = Apply().claims(ApplyParams.parse({"from": "x"}), Scope(concepts=(gun,), keep=()))
    assert [claim.id for claim in claims] == ["gun.plain", "gun.paraphrase", "unconditional"]
    assert all(claim.binds == "in-weights" for claim in claims)
    assert "not checked" in claims[0].limits[0]


@pytest.mark.parametrize("given", ["w", {"path": "w"}, ["w"], [{"path": "w"}]])
def test_short_forms_mean_the_same(given: Any) -> None:
    params = ApplyParams.parse({"from": given})
    assert params.as_json()["from"] == [{"path": "w", "component": None, "scale": 1.0}]
    assert ApplyParams.parse(params.as_json()) == params


def test_numbers_say_how_much_was_written(embedded: Model, tmp_path: Path) -> None:
    old = weights(embedded)[KEY]
    file = saved(tmp_path / "w.safetensors", {KEY: 2 * old})
    step, params = made({"w": file}, "w")
    ctx = Context(embedded)
    step.run(params, ctx)  # type: ignore[arg-type]
    assert ctx.numbers["tensors from elsewhere"] == 1
    assert ctx.numbers["relative change of the tensors written"] == pytest.approx(1.0)
