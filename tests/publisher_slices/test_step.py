from __future__ import annotations

import json
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch

from publisher.api import Model, ModelError, Scope, UsageError
from publisher.api.slices import read_updates, recompose, update_bytes
from publisher.model.state import State
from publisher.package import keys
from publisher.package.verify import verify
from publisher.release.make import Outcome
from publisher.slicing.audit import audit, open_ledger, recomposed
from publisher.testing import SCOPE, open_model, release, save_tiny_model
from publisher.testing.running import context_of
from publisher_slices import publisher_register_attacks, publisher_register_steps
from publisher_slices.params import SliceParams
from publisher_slices.step import ComposeSlices
from support.evaluating import release_again
from support.releasing import publisher
from support.slice_ledgers import IDS, draw, save_ledger, sign

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
    "other files",
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
    note, unsigned = step.plan(params, SCOPE, model).notes
    assert note.startswith("order 2, stages o2-1, o2-2: 2 of 3 slices stay")
    assert unsigned.startswith("the ledger's signature is not checked")


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
        (
            {"deleted": ["artist-a"], "words": {"artist-a": "cigarette", "artist-b": "cigarette"}},
            "'cigarette' asks for artist-a, which was withdrawn, and for artist-b, which stays",
        ),
    ],
)
def test_bad_parameters_are_refused_at_plan(
    params: dict[str, Any], message: str, licensed: Path, model: Any, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        ran(licensed, model, tmp_path, **params)


def test_a_missing_or_changed_stage_is_named_at_plan(licensed: Path, model: Any, tmp_path: Path) -> None:
    copy = shutil.copytree(licensed, tmp_path / "copy")
    step, params = ComposeSlices(), SliceParams.parse({"ledger": "licensed"})
    step.files = {"licensed": copy}
    file = copy / "stages" / "o1-2.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(ModelError, match="stage o1-2 is not the file that the ledger names"):
        step.plan(params, SCOPE, model)
    file.unlink()
    with pytest.raises(UsageError, match="stage o1-2 cannot be read: No such file"):
        step.plan(params, SCOPE, model)


def test_a_stage_that_does_not_fit_the_model_is_named_at_plan(
    model: Any, tmp_path: Path, signing_key: keys.PrivateKey
) -> None:
    """Of another rank than the ledger says, of other layers, and for a layer that the model has not."""
    folder = tmp_path / "licensed"
    ledger = save_ledger(folder, model, signing_key, "independent")
    first = ledger.stages[0]
    step, params = ComposeSlices(), SliceParams.parse({"ledger": "licensed"})
    step.files = {"licensed": folder}

    def refused(groups: Any, **changes: Any) -> ModelError:
        stages = (first.model_copy(update=changes), *ledger.stages[1:])
        changed = ledger.model_copy(update={"stages": stages, "groups": (groups,)})
        sign(folder, changed.statement(), signing_key)
        with pytest.raises(ModelError) as caught:
            step.plan(params, SCOPE, model)
        return caught.value

    layer, group = ledger.groups[0][0], ledger.groups[0]
    info = model.tensors("unet")[f"{layer}.weight"]
    wide = refused(group, rank=3)
    assert wide.where.startswith("stage artist-a, ")
    assert f"(2, {info.parameters // info.shape[0]}) and ({info.shape[0]}, 2) for the layer {layer}; " in wide.what
    assert f"its rank 3 and the model's weight of {info.shape} ask for (3, " in wide.what
    assert refused(("mid.other", *group)).what == "holds other layers than its group has, such as mid.other.A"
    matrices = {name: one[0] for name, one in read_updates(folder, ledger, [first], model.tensors("unet")).items()}
    data = update_bytes({"mid.other" if name == layer else name: one for name, one in matrices.items()})
    (folder / first.file).write_bytes(data)
    other = refused(tuple("mid.other" if one == layer else one for one in group), sha256=sha256(data).hexdigest())
    assert other.what == "adapts the layer mid.other, of which the model has no matrix"


def test_the_plan_names_kept_concepts_that_words_take_out_of_what_is_kept(licensed: Path, model: Any) -> None:
    step, here = ComposeSlices(), SCOPE.keep[0]
    step.files = {"licensed": licensed}
    params = SliceParams.parse({"ledger": "licensed", "key": "k", "words": {"artist-a": here.id}})
    _, note = step.plan(params, SCOPE, model).notes
    assert note.startswith(f"{here.name}: not among what stays as in the base model")
    kept = next(one for one in step.claims(params, SCOPE) if one.id == "kept")
    assert here.id not in kept.checks[0].concepts


def test_a_ledger_must_be_signed_with_the_key_that_the_manifest_names(
    licensed: Path, tmp_path: Path, signing_key: keys.PrivateKey
) -> None:
    shutil.copytree(licensed, tmp_path / "licensed")
    keys.generate(tmp_path / "other.key", tmp_path / "other.pub", None)
    (tmp_path / "trainer.pub").write_bytes(signing_key.public.pem)
    (step,) = MANIFEST["steps"]

    def refused(key: str) -> UsageError:
        with pytest.raises(UsageError) as caught:
            release(json.dumps(MANIFEST | {"steps": [step | {"with": step["with"] | {"key": key}}]}), folder=tmp_path)
        return caught.value

    file = tmp_path / "licensed" / "ledger.json"
    found = refused("other.pub")
    assert (found.what, found.where) == ("is not signed with other.pub: was made with another key", str(file))
    bundle = json.loads(file.read_bytes())
    bundle["dsseEnvelope"]["signatures"][0]["sig"] = "AAAA"
    file.write_text(json.dumps(bundle))
    assert "is not signed with trainer.pub: the signature does not fit" in refused("trainer.pub").what
    file.unlink()
    assert refused("trainer.pub").what.startswith("cannot be read")


def test_without_a_key_the_claim_says_that_nobody_checked_the_signature() -> None:
    def limits(**more: str) -> str:
        return " ".join(ComposeSlices().claims(SliceParams.parse({"ledger": "licensed", **more}), SCOPE)[0].limits)

    assert "Nobody checked who signed the ledger" in limits()
    assert "signed the ledger" not in limits(key="trainer.pub")


def test_nothing_is_promised_of_a_slice_that_is_lost_with_another(
    licensed: Path, model: Any, tmp_path: Path, signing_key: keys.PrivateKey
) -> None:
    ledger = open_ledger(licensed, None)
    one = ledger.model_copy(update={"orders": ledger.orders[:1], "stages": ledger.stages[:3]})
    folder = shutil.copytree(licensed, tmp_path / "one")
    sign(folder, one.statement(), signing_key)
    gone, here, lost = SCOPE.concepts[0], SCOPE.keep[0], SCOPE.keep[1]
    words = {"artist-a": here.id, "artist-b": gone.id, "artist-c": lost.id}
    step, params = ComposeSlices(), SliceParams.parse({"ledger": "one", "deleted": ["artist-b"], "words": words})
    step.files = {"one": folder}
    found = {claim.id for claim in step.claims(params, SCOPE)}
    assert {"artist-a.stays", "artist-b.withdrawn"} <= found
    assert not [name for name in found if name.startswith("artist-c")]
    assert "nothing is promised of the words of artist-c, as no stage" in " ".join(
        step.plan(params, SCOPE, model).notes
    )


def test_words_of_a_slice_that_the_ledger_lost_need_it_under_deleted(
    model: Any, tmp_path: Path, signing_key: keys.PrivateKey
) -> None:
    ledger = save_ledger(tmp_path / "licensed", model, signing_key, "independent")
    first, *rest = ledger.slices
    later = {"slices": tuple(rest), "withdrawn": (first,), "stages": ledger.stages[1:], "previous": ledger.digest}
    sign(tmp_path / "licensed", ledger.model_copy(update=later).statement(), signing_key)
    step, words = ComposeSlices(), {"ledger": "licensed", "words": {"artist-a": SCOPE.concepts[0].id}}
    step.files = {"licensed": tmp_path / "licensed"}
    with pytest.raises(UsageError, match="the ledger says that artist-a was withdrawn, so it does not stay") as caught:
        step.plan(SliceParams.parse(words), SCOPE, model)
    assert "under 'deleted' too" in caught.value.hint
    params = SliceParams.parse(words | {"deleted": ["artist-a"]})
    assert len(step.plan(params, SCOPE, model).artifacts) == 4
    exact, withdrawn, *_ = step.claims(params, SCOPE)
    assert (exact.deletes, withdrawn.id) == ((SCOPE.concepts[0].id,), "artist-a.withdrawn")


def test_steps_in_an_order_that_cannot_be_are_refused_at_plan(licensed: Path, tmp_path: Path) -> None:
    shutil.copytree(licensed, tmp_path / "licensed")
    erase = {"use": "erase", "with": {"targets": {"cigarette": "cat"}}}
    (slices,) = MANIFEST["steps"]
    keep = {"concepts": [{"id": "cat", "name": "cat", "prompts": ["a cat"]}]}

    def refused(*steps: Any) -> UsageError:
        with pytest.raises(UsageError) as caught:
            release(json.dumps(MANIFEST | {"keep": keep, "steps": steps}), folder=tmp_path)
        return caught.value

    early, late = refused(erase, slices), refused(slices, erase)
    assert early.what.startswith("'erase' changes weights before 'slices': stages were trained on")
    assert early.hint == "Put 'slices' before 'erase'."
    assert late.what.startswith("'erase' changes weights after 'slices': it promises that nothing but its stages")
    assert "'last: false'" in late.what


def test_withdrawn_slices_are_compared_with_the_base_and_others_must_be_drawn() -> None:
    gone, here = SCOPE.concepts[0], SCOPE.keep[0]
    words = {"artist-a": gone.id, "artist-b": here.id}
    params = SliceParams.parse({"ledger": "licensed", "deleted": ["artist-a"], "words": words})
    found = {claim.id: claim.checks[0] for claim in ComposeSlices().claims(params, SCOPE)}
    assert (found["artist-a.withdrawn"].metric, found["artist-b.stays"].metric) == ("rate-above-base", "generated-rate")
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


def test_before_a_withdrawal_nothing_is_called_deleted() -> None:
    """With no concept to go the kept ones' prompts show that nothing but the stages is in the weights."""
    here = SCOPE.keep[0]
    params = SliceParams.parse({"ledger": "licensed", "deleted": [], "words": {"artist-a": here.id}})
    exact, stays, *_ = ComposeSlices().claims(params, Scope(concepts=(), keep=SCOPE.keep))
    assert exact.sentence.startswith("nothing but the ledger's stages is in the weights")
    assert (exact.deletes, exact.checks[0].concepts) == ((), tuple(one.id for one in SCOPE.keep))
    assert stays.id == "artist-a.stays"


def test_words_must_name_a_concept() -> None:
    params = SliceParams.parse({"ledger": "licensed", "words": {"artist-a": "nothing"}})
    with pytest.raises(UsageError, match="names the concept 'nothing'") as caught:
        ComposeSlices().claims(params, Scope(concepts=SCOPE.concepts))
    assert caught.value.where == "words.artist-a"


@pytest.fixture(scope="module")
def outcome(licensed: Path, tmp_path_factory: pytest.TempPathFactory, signing_key: keys.PrivateKey) -> Outcome:
    """A release with pictures of the withdrawn slice; the model's adapters are random, so its gates are wide."""
    folder = tmp_path_factory.mktemp("release")
    shutil.copytree(licensed, folder / "licensed")
    draw(folder / "pictures", 3, count=10)
    (folder / "trainer.pub").write_bytes(signing_key.public.pem)
    (step,) = MANIFEST["steps"]
    words = {
        "key": "trainer.pub",
        "words": {"artist-b": "cigarette"},
        "more_than_base": 1,
        "head_start": 1,
        "attack_params": {"images": 1},
    }
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
    (exact,) = (claim for claim in outcome.report.claims if claim.id == "slices.exact")
    assert not [one for one in exact.limits if "signed the ledger" in one]
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


def test_a_tensor_that_no_prompt_shows_fails_the_release(
    licensed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row of the token embedding that nobody asks for: all images are equal, and the weights are not."""
    place = ("text_encoder", "embeddings.token_embedding.weight")
    run, plan = ComposeSlices.run, ComposeSlices.plan

    def leaky(self: Any, params: Any, ctx: Any) -> None:
        run(self, params, ctx)
        weight = ctx.model.read(*place).clone()
        weight[5] += 1.0
        ctx.write(*place, weight)

    def said(self: Any, *given: Any) -> Any:
        found = plan(self, *given)
        return replace(found, changes={**found.changes, place[0]: [place[1]]})

    monkeypatch.setattr(ComposeSlices, "run", leaky)
    monkeypatch.setattr(ComposeSlices, "plan", said)
    shutil.copytree(licensed, tmp_path / "licensed")
    found = release(json.dumps(MANIFEST), folder=tmp_path)
    (exact,) = (one for claim in found.report.claims for one in claim.checks if one.id == "slices.exact")
    assert exact.measurement is not None
    assert (exact.verdict, exact.measurement.hardened.value, found.package) == ("failed", 0.0, None)
    assert exact.reason == f"neither the base model's tensor nor that with the stages that stay: {'/'.join(place)}"


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
    trainer = ("--ledger-key", tmp_path / "trainer.pub")
    second = json.loads(publisher(*words, *trainer, "--earlier", package).output)
    assert [one["detail"] for one in second["found"] if one["question"] == "earlier ledger"] == [
        "the same one; still without artist-b"
    ]
    assert second["ok"]


def test_the_audit_sees_that_a_withdrawn_slice_is_back(
    outcome: Outcome, package: Path, licensed: Path, model: Any, signing_key: keys.PrivateKey, tmp_path: Path
) -> None:
    """Withdrawn by the step alone, she is in no ledger's list: a later release from the same ledger can have her."""
    before = outcome.package
    assert before is not None
    keys.generate(tmp_path / "own.key", tmp_path / "own.pub", None)
    overwrite(package / "release" / "slices" / "deleted.json", b'{"deleted":[],"stages":["o1-1","o1-2","o1-3"]}')
    release_again(package, tmp_path / "own.key")
    own, trainer = keys.load_public(tmp_path / "own.pub"), signing_key.public

    def asked(earlier: Path) -> str:
        found = audit(package, model, own, trainer, earlier).answers
        return next((one.detail for one in found if one.question == "earlier ledger" and not one.ok), "")

    back = "artist-b was withdrawn from the earlier release, and is back"
    assert (asked(before / "release" / "slices"), asked(before / "release" / "slices" / "ledger.json")) == (back, back)
    assert asked(before).startswith("its package: ")
    assert (asked(licensed), asked(package)) == ("", "")


def audited(package: Path, model: State) -> dict[str, str]:
    """Return the questions that were answered with no, and what was said."""
    ledger = open_ledger(package / "release" / "slices", None)
    return {one.question: one.detail for one in recomposed(package, model, ledger, ()).answers if not one.ok}


def overwrite(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)  # the copy may share its bytes with the original
    path.write_bytes(data)


@pytest.fixture
def package(outcome: Outcome, tmp_path: Path) -> Path:
    """A copy of the package without artist-b, to be tampered with."""
    assert outcome.package is not None
    return shutil.copytree(outcome.package, tmp_path / "package")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (b"", "does not say what was withdrawn"),
        (b'{"deleted": "artist-b", "stages": ["o3-1", "o3-2"]}', "does not say what was withdrawn"),
        (b'{"deleted": [1], "stages": [2]}', "does not say what was withdrawn"),
        (b'{"deleted": ["artist-z"], "stages": ["o3-1", "o3-2"]}', "there is no slice 'artist-z'"),
        (b'{"deleted": ["artist-a"], "stages": ["o3-1", "o3-2"]}', "says that o3-1, o3-2 stay, and o2-1, o2-2 should"),
        (b'{"deleted": ["artist-a", "artist-b", "artist-c"], "stages": ["o3-1"]}', "no stage is left"),
    ],
)
def test_the_audit_refuses_what_a_package_says_of_its_stages(
    said: bytes, message: str, package: Path, model: Any
) -> None:
    overwrite(package / "release" / "slices" / "deleted.json", said)
    (answer,) = audited(package, model).values()
    assert message in answer


def test_the_audit_refuses_another_base(package: Path, tmp_path: Path) -> None:
    other = open_model(save_tiny_model(tmp_path / "tiny", text_effect=3.0))
    assert audited(package, other) == {"base model": "unet is another one"}


def test_the_audit_sees_the_stage_of_a_withdrawn_slice(package: Path, licensed: Path, model: Any) -> None:
    """Her stage as a file beside the others, and, hidden, in the weights alone."""
    from safetensors.torch import load_file, save_file

    stray = package / "release" / "slices" / "o1-2.safetensors"
    shutil.copy(licensed / "stages" / "o1-2.safetensors", stray)
    assert "o1-2.safetensors: is neither ledger nor a stage that stays" in audited(package, model)["stages that stay"]
    stray.unlink()
    ledger, file = open_ledger(licensed, None), package / "unet" / "diffusion_pytorch_model.safetensors"
    stage = next(one for one in ledger.stages if one.id == "o1-2")
    weights = load_file(file)
    for layer, added in read_updates(licensed, ledger, [stage], model.tensors("unet")).items():
        weights[f"{layer}.weight"] = recompose(weights[f"{layer}.weight"], added)
    file.unlink()
    save_file(weights, file)
    assert f"{len(ledger.groups[stage.group])} differ" in audited(package, model)["weights composed again"]


def test_the_audit_sees_a_bit_that_is_not_the_stages(package: Path, model: Any) -> None:
    file = package / "unet" / "diffusion_pytorch_model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    overwrite(file, bytes(data))
    assert "1 differ, such as unet/" in audited(package, model)["weights composed again"]


def hide(package: Path, where: str, stage: Path) -> None:
    """Put a withdrawn slice's stage, or another number, where an audit may not look."""
    file = package / where
    file.parent.mkdir(exist_ok=True)
    overwrite(file, stage.read_bytes() if file.suffix == ".safetensors" else file.read_bytes().replace(b"1", b"2"))


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("unet/diffusion_pytorch_model.ema.safetensors", "is not of the base model"),
        ("unet/pytorch_lora_weights.safetensors", "is not of the base model"),
        ("unet/more/diffusion_pytorch_model.safetensors", "is not of the base model"),
        ("release/hidden.safetensors", "has no place in a release"),
        ("vae/config.json", "is not the base model's"),
        ("scheduler/scheduler_config.json", "is not the base model's"),
        ("model_index.json", "is not the base model's"),
    ],
)
def test_the_audit_sees_what_a_publisher_hides_and_signs_again(
    where: str, said: str, package: Path, licensed: Path, model: Any, tmp_path: Path
) -> None:
    hide(package, where, licensed / "stages" / "o1-2.safetensors")
    keys.generate(tmp_path / "own.key", tmp_path / "own.pub", None)
    release_again(package, tmp_path / "own.key")
    assert verify(package, tmp_path / "own.pub").ok
    assert audited(package, model) == {"other files": f"{where} {said}"}


@pytest.mark.parametrize(
    "where", ["unet/diffusion_pytorch_model.fp16.safetensors", "lora/pytorch_lora_weights.safetensors"]
)
def test_verification_sees_a_variant_of_other_weights_and_a_folder_of_its_own(
    where: str, package: Path, licensed: Path, tmp_path: Path
) -> None:
    hide(package, where, licensed / "stages" / "o1-2.safetensors")
    keys.generate(tmp_path / "own.key", tmp_path / "own.pub", None)
    release_again(package, tmp_path / "own.key")
    assert where.startswith(verify(package, tmp_path / "own.pub").findings[0].path)


def test_the_audit_misses_no_file_of_the_model_and_asks_for_none_of_its_card(package: Path, model: Any) -> None:
    (package / "NOTICE.md").write_text("Thanks to all artists.")
    assert audited(package, model) == {}
    (package / "tokenizer" / "tokenizer_config.json").unlink()
    assert audited(package, model) == {"other files": "tokenizer/tokenizer_config.json is not the base model's"}
