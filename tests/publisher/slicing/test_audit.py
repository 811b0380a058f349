from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from publisher.api import Model, ModelError, PublisherError, UsageError
from publisher.api.slices import LEDGER, Ledger, read_updates, recompose
from publisher.package import keys
from publisher.slicing.audit import open_ledger, proves
from publisher.testing import open_model, save_tiny_model
from support.releasing import publisher
from support.slice_ledgers import IDS, leaves, rotated, save_ledger, sign


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return open_model(save_tiny_model(tmp_path_factory.mktemp("base") / "tiny"))


@pytest.fixture
def folder(tmp_path: Path, model: Model, signing_key: keys.PrivateKey) -> Path:
    save_ledger(tmp_path / "licensed", model, signing_key)
    return tmp_path / "licensed"


def composed(model: Model, ledger: Ledger, folder: Path, deleted: tuple[str, ...]) -> dict[str, torch.Tensor]:
    stages = ledger.compose(deleted).stages
    found = read_updates(folder, ledger, stages, model.tensors("unet"))
    return {layer: recompose(model.read("unet", f"{layer}.weight"), added) for layer, added in found.items()}


@pytest.mark.parametrize("name", IDS)
def test_a_deletion_leaves_the_longest_prefix_that_never_saw_it(name: str, folder: Path) -> None:
    ledger = open_ledger(folder, None)
    found = ledger.compose([name])
    order = next(n + 1 for n in range(3) if rotated(n)[-1] == name)
    assert (found.order, len(found.stages), found.lost) == (order, 2, ())
    assert all(name not in stage.saw for stage in found.stages)


def test_two_deletions_leave_one_slice_or_name_what_is_lost(folder: Path) -> None:
    ledger = open_ledger(folder, None)
    found = ledger.compose(["artist-a", "artist-b"])
    assert (found.order, found.live, found.lost) == (3, ("artist-c",), ())
    alone = ledger.model_copy(update={"orders": ledger.orders[:1], "stages": ledger.stages[:3]})
    found = alone.compose(["artist-b"])
    assert (found.live, found.lost) == (("artist-a",), ("artist-c",))


def test_all_orders_used_up_say_what_to_train_again(folder: Path) -> None:
    with pytest.raises(UsageError, match="no stage is left") as caught:
        open_ledger(folder, None).compose(IDS)
    assert "release the base model" in caught.value.hint
    ledger = open_ledger(folder, None)
    first = ledger.model_copy(update={"orders": ledger.orders[:1], "stages": ledger.stages[:3]})
    with pytest.raises(UsageError) as caught:
        first.compose(["artist-a"])
    assert "Train artist-b, artist-c again, with artist-a under 'withdrawn'" in caught.value.hint
    assert "about 20 steps" in caught.value.hint


def test_deleting_gives_the_earlier_stages_weights_byte_by_byte(folder: Path, model: Model) -> None:
    ledger = open_ledger(folder, None)
    found = composed(model, ledger, folder, ("artist-c",))
    stages = [stage for stage in ledger.stages if stage.order == 1][:2]
    wanted: dict[str, torch.Tensor] = {}
    for stage in stages:  # the earlier model: stage after stage, each on layers of its own
        for layer, added in read_updates(folder, ledger, [stage], model.tensors("unet")).items():
            wanted[layer] = recompose(model.read("unet", f"{layer}.weight"), added)
    assert set(found) == set(wanted)
    assert all(torch.equal(found[layer], wanted[layer]) for layer in wanted)


def test_independent_stages_lose_one_slice_alone(tmp_path: Path, model: Model, signing_key: keys.PrivateKey) -> None:
    ledger = save_ledger(tmp_path / "alone", model, signing_key, "independent")
    found = ledger.compose(["artist-b"])
    assert (found.order, found.live, found.lost) == (0, ("artist-a", "artist-c"), ())


def test_sums_are_rounded_once_and_unmerging_is_not_deleting(
    tmp_path: Path, model: Model, signing_key: keys.PrivateKey
) -> None:
    ledger = save_ledger(tmp_path / "alone", model, signing_key, "independent")
    tensors = model.tensors("unet")
    (layer, added), *_ = read_updates(tmp_path / "alone", ledger, ledger.stages, tensors).items()
    base = model.read("unet", f"{layer}.weight")
    both = recompose(base, added[:2])
    unmerged = (both.double() - (added[1].up.double() @ added[1].down.double()).reshape(base.shape)).float()
    assert not torch.equal(unmerged, recompose(base, added[:1]))
    wanted = base.double().flatten(1)
    for update in added[:2]:
        wanted = wanted + update.up.double() @ update.down.double()
    torch.testing.assert_close(both, wanted.reshape(base.shape).float())


def changed(folder: Path, signing_key: keys.PrivateKey, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Change a ledger's predicate and sign it again: as a trainer could who lies."""
    statement = open_ledger(folder, None).statement()
    statement = json.loads(json.dumps(statement))
    change(statement["predicate"])
    files = {stage["file"]: stage["sha256"] for stage in statement["predicate"]["stages"]}
    statement["subject"] = [{"name": name, "digest": {"sha256": digest}} for name, digest in sorted(files.items())]
    sign(folder, statement, signing_key)
    return folder


LIES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "saw": (lambda one: one["stages"][2].update(saw=["artist-a", "artist-b"]), "says that it saw artist-a, artist-b"),
    "parents": (lambda one: one["stages"][2].update(parents=[]), "does not name the files of the stages before"),
    "weights in": (lambda one: one["stages"][1].update(weights_in="0" * 64), "did not start from the base model"),
    "overlap": (lambda one: one["groups"][1].append(one["groups"][0][0]), "has the layer"),
    "group": (lambda one: one["stages"][1].update(group=0), "trains the layers of a stage before it"),
    "equal slices": (lambda one: one["slices"][1].update(root=one["slices"][0]["root"]), "has the Merkle root"),
    "slice twice": (lambda one: one["orders"][0].update(slices=["artist-a"] * 3), "does not have every slice once"),
    "gap": (lambda one: one["stages"].pop(0), "lacks a stage before it"),
    "recipe": (lambda one: one["recipes"].clear(), "recipe that the ledger does not hold"),
    "withdrawn and there": (
        lambda one: one.update(withdrawn=one["slices"][:1], previous="0" * 64),
        "has the slice artist-a twice",
    ),
    "withdrawn by another name": (
        lambda one: one.update(withdrawn=[one["slices"][0] | {"id": "artist-z"}], previous="0" * 64),
        "has the Merkle root",
    ),
    "withdrawn from nothing": (
        lambda one: one.update(withdrawn=[one["slices"][0] | {"id": "artist-z", "root": "0" * 64}]),
        "artist-z was withdrawn, and names no ledger before it",
    ),
    "withdrawn and seen": (
        lambda one: one.update(withdrawn=[one["slices"].pop(0)], previous="0" * 64),
        "order 1 does not have every slice once",
    ),
    "rest of what is there": (
        lambda one: one["slices"][0].update(rest_of=["artist-b"]),
        "says that artist-a is the rest of artist-b, which was not withdrawn",
    ),
    "infinite scale": (
        lambda one: one["stages"][1].update(scale="1e999"),
        "stage o1-2 has the scale 1e999, which is no finite number",
    ),
    "unknown sum": (
        lambda one: one["composition"].update(rule="ordered-float64/2"),
        "is for the sum ordered-float64/2, which is not known",
    ),
    "no sum": (lambda one: one.pop("composition"), "no ledger of slices"),
    "unknown field": (lambda one: one.update(more=1), "no ledger of slices"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_ledger_that_contradicts_itself_is_refused_by_name(
    name: str, folder: Path, signing_key: keys.PrivateKey
) -> None:
    change, message = LIES[name]
    with pytest.raises(ModelError, match=message):
        open_ledger(changed(folder, signing_key, change), signing_key.public)


def successor(ledger: Ledger, **changes: Any) -> Ledger:
    """Return a ledger after the withdrawal of artist-b, whose stages nobody looks at."""
    live = tuple(one for one in ledger.slices if one.id != "artist-b")
    gone = tuple(one for one in ledger.slices if one.id == "artist-b")
    return ledger.model_copy(update={"slices": live, "withdrawn": gone, "previous": ledger.digest} | changes)


def test_a_ledger_follows_from_the_one_that_it_replaced(folder: Path) -> None:
    before = open_ledger(folder, None)
    (gone,) = successor(before).withdrawn
    assert not [*successor(before).breaks_with(before)]
    assert not [*before.breaks_with(before)]
    for changes, message in (
        ({"previous": "0" * 64}, "does not name"),
        ({"withdrawn": ()}, "artist-b is missing, and not among the withdrawn ones"),
        ({"withdrawn": (gone.model_copy(update={"root": "0" * 64}),)}, "artist-b has another Merkle root"),
        ({"base": before.base.model_copy(update={"weights": {"unet": "0" * 64}})}, "of another base model"),
    ):
        (problem,) = successor(before, **changes).breaks_with(before)
        assert message in problem
    later = successor(before)
    (problem,) = before.model_copy(update={"previous": later.digest}).breaks_with(later)
    assert problem == "the slice artist-b was withdrawn, and is back"


@pytest.mark.parametrize("subject", ["stages", [1], [{"name": "stages/o1-1.safetensors"}]])
def test_a_ledger_whose_subject_names_no_files_is_refused(subject: Any, folder: Path) -> None:
    with pytest.raises(ModelError, match="subject that names no files"):
        Ledger.of(open_ledger(folder, None).statement() | {"subject": subject}, "ledger")


def test_a_ledger_is_known_by_what_is_signed(folder: Path, signing_key: keys.PrivateKey) -> None:
    ledger = open_ledger(folder, signing_key.public)
    envelope = json.loads((folder / LEDGER).read_bytes())["dsseEnvelope"]
    assert ledger.digest == hashlib.sha256(base64.b64decode(envelope["payload"])).hexdigest()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.unlink(), "cannot be read"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\x01"), "its digest is another"),
    ],
    ids=["missing", "changed"],
)
def test_a_stage_that_is_not_the_ledgers_is_refused_by_name(
    change: Callable[[Path], Any], message: str, folder: Path, model: Model
) -> None:
    change(folder / "stages" / "o1-2.safetensors")
    with pytest.raises(ModelError, match=message) as caught:
        composed(model, open_ledger(folder, None), folder, ("artist-c",))
    assert "stage o1-2" in caught.value.where


def test_a_stage_with_nan_or_of_other_layers_is_refused(folder: Path, model: Model) -> None:
    from publisher.api.slices import LayerUpdate, update_bytes

    ledger = open_ledger(folder, None)
    layer, *_ = ledger.groups[0]
    good = read_updates(folder, ledger, ledger.stages[:1], model.tensors("unet"))
    bad = {name: added[0] for name, added in good.items()}
    broken = bad | {layer: LayerUpdate(bad[layer].down * torch.nan, bad[layer].up, 1.0)}
    for matrices, message in (({layer: bad[layer]}, "other layers"), (broken, "NaN or infinity")):
        data = update_bytes(matrices)
        (folder / ledger.stages[0].file).write_bytes(data)
        stage = ledger.stages[0].model_copy(update={"sha256": hashlib.sha256(data).hexdigest()})
        with pytest.raises(ModelError, match=message):
            read_updates(folder, ledger, [stage], model.tensors("unet"))


def test_a_holder_proves_his_picture_and_no_other(folder: Path, tmp_path: Path, signing_key: keys.PrivateKey) -> None:
    from publisher.api.slices import leaf_of, receipts, salt_of

    ledger = open_ledger(folder, signing_key.public)
    name, picture = "artist-b", b"artist-b" + b"two"
    receipt = receipts(name, leaves(name))[1][leaf_of(salt_of(name.encode(), 1), picture, "a cat")]
    assert proves(ledger, receipt, picture, "a cat")
    assert not proves(ledger, receipt, picture, "a dog")
    (tmp_path / "mine.json").write_text(json.dumps(receipt.as_json()))
    (tmp_path / "cat.png").write_bytes(picture)
    (tmp_path / "a.pub").write_bytes(signing_key.public.pem)
    words = ("slices", "prove", folder, "--receipt", tmp_path / "mine.json", "--image", tmp_path / "cat.png")
    good = publisher(*words, "--caption", "a cat", "--key", tmp_path / "a.pub")
    assert (good.exit_code, good.output[:3]) == (0, "yes")
    later = successor(ledger, orders=(), groups=ledger.groups[:1], mode="independent", stages=ledger.stages[:1])
    (alone,) = later.stages
    alone = alone.model_copy(update={"order": 0, "saw": ("artist-a",)})
    sign(folder, later.model_copy(update={"stages": (alone,)}).statement(), signing_key)
    after = publisher(*words, "--caption", "a cat", "--key", tmp_path / "a.pub")
    assert "was in artist-b, which was withdrawn" in after.output
    assert publisher(*words, "--caption", "a dog", "--key", tmp_path / "a.pub").exit_code == 1


def test_a_ledger_signed_with_another_key_proves_nothing(
    folder: Path, tmp_path: Path, signing_key: keys.PrivateKey
) -> None:
    keys.generate(tmp_path / "b.key", tmp_path / "b.pub", None)
    from publisher.package.dsse import KeyHintError

    with pytest.raises(KeyHintError):
        open_ledger(folder, keys.load_public(tmp_path / "b.pub"))
    data = bytearray((folder / LEDGER).read_bytes())
    data[200] ^= 1
    (folder / LEDGER).write_bytes(bytes(data))
    with pytest.raises((PublisherError, ValueError)):
        open_ledger(folder, signing_key.public)


def test_delete_says_what_would_be_left(folder: Path) -> None:
    found = publisher("slices", "delete", folder, "--slice", "artist-b", "--json")
    assert json.loads(found.output) == {
        "deleted": ["artist-b"],
        "order": 3,
        "stages": ["o3-1", "o3-2"],
        "live": ["artist-a", "artist-c"],
        "lost": [],
    }
    wrong = publisher("slices", "delete", folder, "--slice", "artist-z")
    assert wrong.exit_code == 2
    assert "there is no slice 'artist-z'" in wrong.output
