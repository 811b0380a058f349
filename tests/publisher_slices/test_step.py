from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from publisher.api import Model, Scope, UsageError
from publisher.api.slices import read_updates, recompose
from publisher.package import keys
from publisher.release.make import Outcome
from publisher.slicing.audit import open_ledger
from publisher.testing import SCOPE, open_model, release, save_tiny_model
from publisher.testing.running import context_of
from publisher_slices import publisher_register_attacks, publisher_register_steps
from publisher_slices.params import SliceParams
from publisher_slices.step import ComposeSlices
from support.releasing import publisher
from support.slice_ledgers import IDS, draw, save_ledger

MANIFEST: dict[str, Any] = {
    "manifest": 1,
    "release": {"name": "licensed", "version": "1.0.0", "license": "CC-BY-4.0", "date": "2026-11-29"},
    "model": "testing:tiny",
    "concepts": [{"id": "cigarette", "name": "cigarette", "prompts": ["a cigarette"], "label": "cigarette"}],
    "steps": [
        {
            "use": "slices",
            "with": {"ledger": "licensed", "deleted": ["artist-b"]},
        }
    ],
    "evaluate": {"scorer": "fake", "sampling": {"steps": 2, "guidance": 3.0, "images": 40}},
}


QUESTIONS = [
    "signature of the package",
    "ledger",
    "base model",
    "stages that stay",
    "weights composed again",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return open_model(save_tiny_model(tmp_path_factory.mktemp("base") / "tiny"))


@pytest.fixture(scope="module")
def licensed(tmp_path_factory: pytest.TempPathFactory, model: Model, signing_key: keys.PrivateKey) -> Path:
    folder = tmp_path_factory.mktemp("licensed") / "licensed"
    save_ledger(folder, model, signing_key)
    return folder


def ran(licensed: Path, model: Any, tmp_path: Path, **params: Any) -> Any:
    step, given = ComposeSlices(), SliceParams.parse({"ledger": "licensed", **params})
    step.files = {"licensed": licensed}
    plan = step.plan(given, SCOPE, model)
    ctx = context_of(ComposeSlices, given, model, SCOPE, tmp_path)
    step.run(given, ctx)
    assert {part: list(names) for part, names in plan.changes.items()} == ctx.changed()
    assert sorted(plan.artifacts) == sorted(ctx.artifacts)
    return ctx


def test_the_plugin_registers_step_and_attack() -> None:
    assert publisher_register_steps() == (ComposeSlices,)
    assert [one.name for one in publisher_register_attacks()] == ["take-out-slices"]


def test_a_withdrawal_gives_the_earlier_stages_model_byte_by_byte(licensed: Path, model: Any, tmp_path: Path) -> None:
    ctx = ran(licensed, model, tmp_path, deleted=["artist-c"])
    ledger = open_ledger(licensed, None)
    added = read_updates(licensed, ledger, ledger.stages[:2], model.tensors("unet"))
    wanted = {
        ("unet", f"{layer}.weight"): recompose(model.read("unet", f"{layer}.weight"), one)
        for layer, one in added.items()
    }
    assert set(ctx.tensors) == set(wanted)
    assert all(torch.equal(ctx.tensors[place], wanted[place]) for place in wanted)
    packed = [name for name in ctx.artifacts if name.endswith(".safetensors")]
    assert sorted(packed) == ["slices/o1-1.safetensors", "slices/o1-2.safetensors"]


def test_the_plan_names_stages_and_what_is_lost(licensed: Path, model: Any, signing_key: keys.PrivateKey) -> None:
    step = ComposeSlices()
    step.files = {"licensed": licensed}
    params = SliceParams.parse({"ledger": "licensed", "deleted": ["artist-a"]})
    (note,) = step.plan(params, SCOPE, model).notes
    assert note.startswith("order 2, stages o2-1, o2-2: 2 of 3 slices stay")


def test_a_ledger_of_another_base_is_refused_at_plan(licensed: Path, tmp_path: Path) -> None:
    other = open_model(save_tiny_model(tmp_path / "tiny", text_effect=3.0))
    with pytest.raises(UsageError, match="is of another base model: its unet"):
        ran(licensed, other, tmp_path)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"deleted": ["artist-z"]}, "there is no slice 'artist-z'"),
        ({"deleted": list(IDS)}, "no stage is left"),
        ({"words": {"artist-z": "cigarette"}}, "there is no slice 'artist-z'"),
    ],
)
def test_bad_parameters_are_refused_at_plan(
    params: dict[str, Any], message: str, licensed: Path, model: Any, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        ran(licensed, model, tmp_path, **params)


def test_a_missing_stage_is_named_at_plan(licensed: Path, model: Any, tmp_path: Path) -> None:
    copy = shutil.copytree(licensed, tmp_path / "copy")
    (copy / "stages" / "o1-2.safetensors").unlink()
    with pytest.raises(UsageError, match="stage o1-2 is missing"):
        ran(copy, model, tmp_path)


def test_withdrawn_slices_are_compared_with_the_base_and_others_must_be_drawn() -> None:
    gone, here = SCOPE.concepts[0], SCOPE.keep[0]
    words = {"artist-a": gone.id, "artist-b": here.id}
    params = SliceParams.parse({"ledger": "licensed", "deleted": ["artist-a"], "words": words})
    found = {claim.id: claim.checks[0] for claim in ComposeSlices().claims(params, SCOPE)}
    assert (found["artist-a.withdrawn"].metric, found["artist-b.stays"].metric) == ("rate-above-base", "drawn-rate")
    assert "exact" in found
    assert here.id not in found["kept"].concepts if "kept" in found else len(SCOPE.keep) == 1
    later = ComposeSlices().claims(params.model_copy(update={"last": False}), SCOPE)
    assert "exact" not in {claim.id for claim in later}


def test_pictures_of_a_withdrawn_slice_are_held_against_a_model_that_never_saw_them() -> None:
    shown = SCOPE.concepts[0].model_copy(update={"images": ("a.png",)})
    scope = SCOPE.model_copy(update={"concepts": (shown, *SCOPE.concepts[1:])})
    words = {"ledger": "licensed", "words": {"artist-a": shown.id}}
    gone = SliceParams.parse(words | {"deleted": ["artist-a"], "attack": "lora", "attack_params": {"images": 2}})
    found = {claim.id: claim.checks[0] for claim in ComposeSlices().claims(gone, scope)}
    check = found["artist-a.pictures"]
    assert (check.metric, check.attack, check.attack_params["controls"]) == ("head-start", "lora", ["base"])
    assert (check.attack_params["images"], check.gate and check.gate.upper_at_most) == (2, gone.head_start)
    here = {claim.id for claim in ComposeSlices().claims(SliceParams.parse(words), scope)}
    assert "artist-a.pictures" not in here
    assert "artist-a.pictures" not in {claim.id for claim in ComposeSlices().claims(gone, SCOPE)}


def test_words_must_name_a_concept() -> None:
    params = SliceParams.parse({"ledger": "licensed", "words": {"artist-a": "nothing"}})
    with pytest.raises(UsageError, match="names the concept 'nothing'") as caught:
        ComposeSlices().claims(params, Scope(concepts=SCOPE.concepts))
    assert caught.value.where == "words.artist-a"


@pytest.fixture(scope="module")
def outcome(licensed: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A release with pictures of the withdrawn slice; the model's adapters are random, so its gates are wide."""
    folder = tmp_path_factory.mktemp("release")
    shutil.copytree(licensed, folder / "licensed")
    draw(folder / "pictures", 3, count=10)
    (step,) = MANIFEST["steps"]
    words = {"words": {"artist-b": "cigarette"}, "more_than_base": 1, "head_start": 1, "attack_params": {"images": 1}}
    concept = MANIFEST["concepts"][0] | {"images": ["pictures"]}
    given = {"concepts": [concept], "steps": [step | {"with": step["with"] | words}]}
    return release(json.dumps(MANIFEST | given), folder=folder)


def checks(outcome: Outcome) -> dict[str, str]:
    return {check.id: check.verdict for claim in outcome.report.claims for check in claim.checks}


def test_a_release_proves_that_nothing_of_the_slice_is_in_the_weights(outcome: Outcome) -> None:
    assert checks(outcome) == dict.fromkeys(
        ("slices.exact", "slices.artist-b.withdrawn", "slices.artist-b.pictures"), "passed"
    )
    assert outcome.package is not None
    measured = {check.id: check.measurement for claim in outcome.report.claims for check in claim.checks}
    found = measured["slices.artist-b.pictures"]
    assert found is not None
    assert (found.hardened.n, found.hardened.method) == (3, "Student's t over trials 95%")
    losses = found.details["before_training"]["cigarette"]
    assert losses["hardened"] != losses["base"]


def test_an_update_of_a_withdrawn_slice_fails_the_release(
    licensed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step adds a stage of another order, and says nothing of it."""
    import publisher_slices.step as module

    def leaky(folder: Path, ledger: Any, stages: Any, tensors: Any) -> Any:
        found = read_updates(folder, ledger, stages, tensors)
        late = read_updates(folder, ledger, [one for one in ledger.stages if one.id == "o1-1"], tensors)
        return found | {layer: [*found[layer], *added] for layer, added in late.items()}

    monkeypatch.setattr(module, "read_updates", leaky)
    shutil.copytree(licensed, tmp_path / "licensed")
    found = release(json.dumps(MANIFEST), folder=tmp_path)
    assert checks(found)["slices.exact"] == "failed"
    assert found.package is None


def test_the_audit_composes_the_package_again(
    outcome: Outcome, model: Any, signing_key: keys.PrivateKey, tmp_path: Path
) -> None:
    package = outcome.package
    assert package is not None
    public = next(package.parent.glob("*.pub"))
    (tmp_path / "trainer.pub").write_bytes(signing_key.public.pem)
    words = ("slices", "audit", package, "--base", model.folder, "--key", public, "--json")
    found = json.loads(publisher(*words, "--ledger-key", tmp_path / "trainer.pub").output)
    assert [one["question"] for one in found["found"] if one["ok"]] == QUESTIONS
    assert (found["ok"], found["deleted"], found["stages"]) == (True, ["artist-b"], ["o3-1", "o3-2"])
    other = publisher(*words)
    assert other.exit_code == 1
    assert [one["question"] for one in json.loads(other.output)["found"] if not one["ok"]] == ["ledger"]


def test_the_audit_sees_a_bit_that_is_not_the_stages(
    outcome: Outcome, model: Any, signing_key: keys.PrivateKey, tmp_path: Path
) -> None:
    from publisher.slicing.audit import recomposed

    assert outcome.package is not None
    package = shutil.copytree(outcome.package, tmp_path / "package")
    file = package / "unet" / "diffusion_pytorch_model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.unlink()
    file.write_bytes(bytes(data))
    found = recomposed(package, model, open_ledger(package / "release" / "slices", signing_key.public), ())
    assert [one.question for one in found.answers if not one.ok] == ["weights composed again"]
    assert "1 differ, such as unet/" in found.answers[-1].detail
