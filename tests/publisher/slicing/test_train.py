from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from publisher.api import Model, PublisherError, UsageError
from publisher.api.slices import Ledger, read_updates, recompose
from publisher.errors import BusyError, ManifestError
from publisher.package import keys
from publisher.slicing import material, training
from publisher.slicing.audit import open_ledger
from publisher.slicing.make import Finished, Workplace, train
from publisher.slicing.recipe import SliceTraining, read_training
from publisher.slicing.samples import SECRET, _secret
from publisher.slicing.stages import orders_of
from publisher.testing import open_model, save_tiny_model
from support.releasing import publisher
from support.slice_ledgers import draw

IDS = ("artist-a", "artist-b", "artist-c")
FILE: dict[str, Any] = {
    "slices": 1,
    "model": "testing:tiny",
    "data": [{"id": name, "images": [name], "caption": "{a} {name} emoji"} for name in IDS],
    "replay": {"prompts": ["a dog", "a tree"], "images": 2, "steps": 1, "guidance": 1.0},
    "recipe": {"rank": 1, "steps": 3, "lr": 0.01, "batch": 6, "seed": 5},
}
SEQUENCE = FILE | {"mode": "sequence", "orders": 2}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with three slices, and a fourth body of data that none of them has anything to do with."""
    folder = tmp_path_factory.mktemp("data")
    for seed, name in enumerate(IDS):
        draw(folder / name, seed)
    draw(folder / "unrelated", 99, count=2)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return open_model(save_tiny_model(tmp_path_factory.mktemp("base") / "tiny"))


Run = Callable[..., Finished]


@pytest.fixture(scope="module")
def run(data: Path, model: Model, signing_key: keys.PrivateKey) -> Run:
    """Train what a file says; the file lies beside the data."""

    def trained(out: Path, said: dict[str, Any], tell: Any = lambda *_: None, **more: Any) -> Finished:
        path = data / f"{out.name}.yaml"
        path.write_text(json.dumps(said))
        place = Workplace(out, out.with_name(f"{out.name}.private"), "cpu", {"device": "cpu"})
        return train(read_training(path), model, place, signing_key, tell, **more)

    return trained


def without(said: dict[str, Any], name: str, other: str = "") -> dict[str, Any]:
    """Return a file in which a slice has other pictures, or is not there."""
    rows = [one for one in said["data"] if other or one["id"] != name]
    return said | {"data": [one | {"images": [other]} if one["id"] == name else one for one in rows]}


def digests(ledger: Ledger) -> dict[str, str]:
    return {stage.id: stage.sha256 for stage in ledger.stages}


@pytest.fixture(scope="module")
def licensed(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("independent") / "licensed"
    run(out, FILE)
    return out


@pytest.fixture(scope="module")
def ordered(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sequence") / "ordered"
    run(out, SEQUENCE)
    return out


def test_a_stage_that_never_saw_a_slice_has_the_bytes_it_has_without_it(
    ordered: Path, run: Run, tmp_path: Path
) -> None:
    """The leak test: other pictures in a slice, and fewer, change the stages that saw it and not one bit elsewhere."""
    before = open_ledger(ordered, None)
    after = run(tmp_path / "other", without(SEQUENCE, "artist-c", "unrelated")).ledger
    same = {name for name, digest in digests(before).items() if digests(after)[name] == digest}
    assert same == {stage.id for stage in before.stages if "artist-c" not in stage.saw} == {"o1-1", "o1-2", "o2-1"}


def test_a_slice_that_goes_leaves_the_model_that_was_trained_without_it(
    licensed: Path, model: Model, run: Run, tmp_path: Path
) -> None:
    """Independent stages: composing after a deletion and training without the slice give the same bytes."""
    never = tmp_path / "never"
    run(never, without(FILE, "artist-b"))

    def composed(folder: Path, deleted: tuple[str, ...]) -> dict[str, torch.Tensor]:
        ledger = open_ledger(folder, None)
        found = read_updates(folder, ledger, ledger.compose(deleted).stages, model.tensors("unet"))
        return {layer: recompose(model.read("unet", f"{layer}.weight"), added) for layer, added in found.items()}

    left, wanted = composed(licensed, ("artist-b",)), composed(never, ())
    assert left.keys() == wanted.keys()
    assert all(torch.equal(left[layer], wanted[layer]) for layer in wanted)
    whole = composed(licensed, ())
    assert any(not torch.equal(left[layer], whole[layer]) for layer in whole)


def test_a_stage_begins_from_the_stages_before_it_and_changes_layers_of_its_own(ordered: Path, model: Model) -> None:
    ledger = open_ledger(ordered, None)
    sizes = [sum(model.tensors("unet")[f"{one}.weight"].parameters for one in group) for group in ledger.groups]
    assert max(sizes) < 2 * min(sizes)
    assert all(any(one.startswith(end) for one in group) for group in ledger.groups for end in ("down_", "up_"))
    second = next(stage for stage in ledger.stages if stage.id == "o1-2")
    assert second.parents == (digests(ledger)["o1-1"],)
    assert (second.saw, second.group) == (("artist-a", "artist-b"), 1)


def copied(licensed: Path, folder: Path) -> Path:
    """Copy what a training has left, private folder and all."""
    for path in (licensed, licensed.with_name(f"{licensed.name}.private")):
        shutil.copytree(path, folder / path.name)
    return folder / licensed.name


def test_a_killed_training_goes_on_to_the_same_bytes(
    ordered: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "KEPT_EVERY", 1)
    out = copied(ordered, tmp_path)
    (out / "stages" / "o1-2.safetensors").unlink()

    def kill(what: str, done: int, _total: int) -> None:
        if (what, done) == ("stage o1-2", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(out, SEQUENCE, kill)
    steps: list[int] = []
    found = run(out, SEQUENCE, lambda what, done, _: steps.append(done) if what == "stage o1-2" else None)
    assert steps == [2, 3]
    assert found.trained == ("o1-2",)
    assert digests(found.ledger) == digests(open_ledger(ordered, None))


def test_only_what_saw_a_slice_is_trained_again(licensed: Path, run: Run, tmp_path: Path) -> None:
    out = copied(licensed, tmp_path)
    assert run(out, FILE).trained == ()
    file = out / "stages" / "artist-a.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    assert run(out, without(FILE, "artist-c", "unrelated")).trained == ("artist-a", "artist-c")


def test_two_trainings_do_not_share_a_folder(licensed: Path, run: Run, tmp_path: Path) -> None:
    out = copied(licensed, tmp_path)
    (out / "stages" / "artist-b.safetensors").unlink()
    second: list[str] = []

    def interfere(what: str, _done: int, _total: int) -> None:
        if what == "stage artist-b" and not second:
            with pytest.raises(BusyError, match="another training is using this folder") as caught:
                run(out, FILE)
            second.append(caught.value.hint)

    found = run(out, FILE, interfere)
    assert second == ["Wait for it, or give another folder with --private."]
    assert digests(found.ledger) == digests(open_ledger(licensed, None))
    assert not [path for path in out.parent.iterdir() if path.name.endswith(".lock")]


def test_a_withdrawal_trains_what_came_later_from_the_earlier_stage(ordered: Path, run: Run, tmp_path: Path) -> None:
    """And to the bytes of a folder in which the withdrawn slice had other pictures: nothing of hers is left."""
    gone = without(SEQUENCE, "artist-b", "not-there") | {"withdrawn": ["artist-b"]}
    out, other = copied(ordered, tmp_path), tmp_path / "other"
    found = run(out, gone)
    assert found.trained == ("o1-2", "o2-1", "o2-2")
    assert found.removed == ("o1-3", "o2-3")
    assert [one.slices for one in found.ledger.orders] == [("artist-a", "artist-c"), ("artist-c", "artist-a")]
    run(other, without(SEQUENCE, "artist-b", "unrelated"))
    assert digests(run(other, gone).ledger) == digests(found.ledger)
    assert {path.stem for path in (out / "stages").iterdir()} == set(digests(found.ledger))


def test_a_ledger_after_a_withdrawal_names_the_one_before_it(licensed: Path, run: Run, tmp_path: Path) -> None:
    before, out = open_ledger(licensed, None), copied(licensed, tmp_path)
    gone = without(FILE, "artist-b")
    found = run(out, gone)
    assert (found.trained, found.removed) == ((), ("artist-b",))
    ledger = open_ledger(out, None)
    assert (ledger.previous, [one.id for one in ledger.withdrawn]) == (before.digest, ["artist-b"])
    assert ledger.withdrawn[0].root == next(one.root for one in before.slices if one.id == "artist-b")
    kept = out.with_name(f"{out.name}.private") / "ledgers" / f"{before.digest}.json"
    assert kept.read_bytes() == (licensed / "ledger.json").read_bytes()
    assert run(out, gone).ledger == ledger
    assert ledger.compose(["artist-b"]).live == ("artist-a", "artist-c")
    with pytest.raises(UsageError, match="says that artist-b was withdrawn, and its data is back"):
        run(out, FILE)


def test_pictures_of_a_withdrawn_slice_are_refused_under_any_name_and_caption(
    licensed: Path, run: Run, data: Path, broken: Path, tmp_path: Path
) -> None:
    out, gone = copied(licensed, tmp_path), without(FILE, "artist-b")
    renamed = {"id": "artist-x", "images": ["artist-b"], "caption": "{a} {name}"}
    back = "is in the slice artist-x, and was in artist-b, which was withdrawn"
    with pytest.raises(UsageError, match=back) as caught:  # renamed in the very training that drops her
        run(out, gone | {"data": [*gone["data"], renamed]})
    assert (caught.value.where, open_ledger(out, None)) == (
        str(data / "artist-b" / "big-cat_0.png"),
        open_ledger(licensed, None),
    )
    run(out, gone)
    shutil.copy(data / "artist-b" / "big-cat_1.png", broken / "mine.png")
    more = [one | {"images": [*one["images"], "broken"]} if one["id"] == "artist-c" else one for one in gone["data"]]
    with pytest.raises(UsageError, match="is in the slice artist-c, and was in artist-b") as caught:
        run(out, gone | {"data": more})
    assert "name artist-b under 'rest_of' of artist-c" in caught.value.hint
    agreed = renamed | {"images": ["broken"], "rest_of": ["artist-b"]}
    found = run(out, gone | {"data": [*gone["data"], agreed]})
    assert found.trained == ("artist-x",)
    assert [one.rest_of for one in found.ledger.slices] == [(), (), ("artist-b",)]
    with pytest.raises(UsageError, match="artist-x is said to be the rest of artist-a, which no ledger here lists"):
        run(out, gone | {"data": [*gone["data"], agreed | {"rest_of": ["artist-a"]}]})


def test_damaged_marks_of_a_withdrawn_slice_are_no_slice_without_marks(
    licensed: Path, run: Run, tmp_path: Path
) -> None:
    out = copied(licensed, tmp_path)
    marks = out.with_name(f"{out.name}.private") / "marks" / "artist-b.json"
    marks.write_bytes(marks.read_bytes()[:-1])
    with pytest.raises(UsageError, match="cannot be read") as caught:
        run(out, without(FILE, "artist-b"))
    assert (caught.value.where, open_ledger(out, None)) == (str(marks), open_ledger(licensed, None))
    marks.unlink()
    assert run(out, without(FILE, "artist-b")).trained == ()


def test_receipts_of_pictures_that_left_a_slice_are_removed(
    licensed: Path, run: Run, data: Path, broken: Path, tmp_path: Path
) -> None:
    out = copied(licensed, tmp_path)
    folder = out.with_name(f"{out.name}.private") / "receipts" / "artist-c"
    assert len([*folder.iterdir()]) == 3
    shutil.copy(data / "artist-c" / "big-cat_2.png", broken)
    run(out, without(FILE, "artist-c", "broken"))
    assert [path.name for path in folder.iterdir()] == ["00000-big-cat_2.json"]


def test_a_withdrawal_that_no_ledger_knows_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="artist-b is withdrawn, and no ledger here has it"):
        run(tmp_path / "out", FILE | {"withdrawn": ["artist-b"]})


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("artist-a", {2: "bc", 3: "cb"}),
        ("artist-b", {1: "ac", 3: "ca"}),
        ("artist-c", {1: "ab", 2: "ba"}),
    ],
)
def test_of_orders_that_a_withdrawal_makes_equal_the_one_with_more_left_stays(
    name: str, wanted: dict[int, str]
) -> None:
    training = SliceTraining.parse(SEQUENCE | {"orders": 3, "withdrawn": [name]})
    assert {one.id: "".join(one[-1] for one in one.slices) for one in orders_of(training)} == wanted


def test_a_stage_is_trained_again_to_compare(licensed: Path, run: Run, tmp_path: Path) -> None:
    out = copied(licensed, tmp_path)
    assert run(out, FILE, again=["artist-b"]).repeated == ("artist-b",)
    record = out.with_name(f"{out.name}.private") / "stages" / "artist-b.json"
    file, other = out / "stages" / "artist-b.safetensors", out / "stages" / "artist-a.safetensors"
    file.write_bytes(other.read_bytes())  # who cheats writes his own records too
    record.write_text(
        json.dumps(json.loads(record.read_bytes()) | {"sha256": digests(open_ledger(out, None))["artist-a"]})
    )
    with pytest.raises(PublisherError, match="gives other bytes when it is trained again") as caught:
        run(out, FILE, again=["artist-b"])
    assert caught.value.where == "stage artist-b"
    with pytest.raises(UsageError, match="there is no stage 'artist-z'"):
        run(out, FILE, again=["artist-z"])
    assert open_ledger(out, None) == open_ledger(licensed, None)


def test_pictures_of_replay_are_generated_once_and_a_host_that_rounds_otherwise_retrains_nothing(
    licensed: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = material.generate_images, list[int]()

    def elsewhere(settings: Any, requests: Any) -> torch.Tensor:
        calls.append(len(requests))
        found = real(settings, requests).clone()
        found[0, 0, 0, 0] = 1 - found[0, 0, 0, 0].round()
        return found

    monkeypatch.setattr(material, "generate_images", elsewhere)
    before, out = open_ledger(licensed, None), copied(licensed, tmp_path)
    again = run(out, FILE)
    assert (again.trained, again.ledger.replay, calls) == ((), before.replay, [])
    (pictures,) = (out.with_name(f"{out.name}.private") / "replay").glob("*.safetensors")
    pictures.write_bytes(pictures.read_bytes()[:-1])
    with pytest.raises(UsageError, match="what is kept of the replay pictures is damaged") as caught:
        run(out, FILE)
    assert (caught.value.where, calls) == (str(pictures.parent), [])
    shutil.rmtree(pictures.parent)
    other = run(out, FILE)
    assert (other.trained, calls) == (IDS, [2])
    assert other.ledger.replay != before.replay
    assert run(out, FILE | {"replay": FILE["replay"] | {"guidance": 2.0}}).trained == IDS
    assert calls == [2, 2]


@pytest.mark.parametrize(("other", "what"), [(b"other", "has changed since"), (None, "cannot be read any more")])
def test_a_ledger_is_of_the_bytes_that_the_stages_saw(
    run: Run, data: Path, tmp_path: Path, other: bytes | None, what: str
) -> None:
    picture = next((data / "artist-a").glob("*.png"))
    seen = picture.read_bytes()

    def change(stage: str, *_: int) -> None:
        if stage == "stage artist-c":
            picture.unlink(missing_ok=True)
            if other:
                picture.write_bytes(other)

    try:
        with pytest.raises(UsageError, match=what) as caught:
            run(tmp_path / "out", FILE, change)
    finally:
        picture.write_bytes(seen)
    assert caught.value.where == str(picture)
    assert not (tmp_path / "out" / "ledger.json").exists()
    assert run(tmp_path / "out", FILE).trained == ()


def test_checkpoints_of_stages_whose_names_begin_alike_are_apart(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And none is left of a stage that was withdrawn before it was finished."""
    monkeypatch.setattr(training, "KEPT_EVERY", 1)
    names = {"artist": "artist-a", "artist-2": "artist-b"}
    said = FILE | {"data": [{"id": one, "images": [of], "caption": "{a} emoji"} for one, of in names.items()]}

    def kill(what: str, done: int, _total: int) -> None:
        if (what, done) == ("stage artist-2", 2):
            raise KeyboardInterrupt

    out, private = tmp_path / "out", tmp_path / "out.private"
    with pytest.raises(KeyboardInterrupt):
        run(out, said, kill)
    assert [path.name for path in (private / "work").rglob("*.safetensors")] == ["stage-1.safetensors"]
    (out / "stages" / "artist.safetensors").unlink()
    steps: list[tuple[str, int]] = []
    run(out, said, lambda what, done, _: steps.append((what, done)))
    assert ("stage artist", 1) in steps
    assert ("stage artist-2", 1) not in steps
    with pytest.raises(KeyboardInterrupt):
        run(out, without(said, "artist-2", "unrelated"), kill)
    assert (private / "work").is_dir()
    gone = run(out, said | {"withdrawn": ["artist-2"]})
    assert gone.removed == ("artist-2",)
    assert [path.stem for path in (private / "stages").iterdir()] == ["artist"]
    assert not (private / "work").exists()


def test_a_secret_is_there_complete_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("publisher.model.files.os.fsync", full)
        with pytest.raises(PublisherError, match="No space left"):
            _secret(tmp_path / "artist-a")
    assert not [*tmp_path.iterdir()]
    assert len(_secret(tmp_path / "artist-a")) == SECRET
    assert (tmp_path / "artist-a").stat().st_mode & 0o777 == 0o600
    assert _secret(tmp_path / "artist-a") == (tmp_path / "artist-a").read_bytes()


def test_another_seed_gives_another_stage(licensed: Path, run: Run, tmp_path: Path) -> None:
    only = without(without(FILE, "artist-b"), "artist-c")
    other = run(tmp_path / "other", only | {"recipe": FILE["recipe"] | {"seed": 6}}).ledger
    assert digests(other)["artist-a"] != digests(open_ledger(licensed, None))["artist-a"]


def test_a_folder_of_another_base_is_refused(licensed: Path, run: Run, tmp_path: Path, model: Model) -> None:
    ledger = open_ledger(licensed, None)
    other = ledger.base.model_copy(update={"weights": ledger.base.weights | {"unet": "0" * 64}})
    stages = tuple(one.model_copy(update={"weights_in": _started(other)}) for one in ledger.stages)
    from support.signing import new_key
    from support.slice_ledgers import sign

    (tmp_path / "out").mkdir()
    sign(tmp_path / "out", ledger.model_copy(update={"base": other, "stages": stages}).statement(), new_key(tmp_path))
    with pytest.raises(UsageError, match="is of another base model"):
        run(tmp_path / "out", FILE)


def _started(base: Any) -> str:
    from publisher.api.slices import chain

    return chain(base, ())


def test_a_training_that_diverges_names_stage_and_rate(run: Run, tmp_path: Path) -> None:
    recipe = FILE["recipe"] | {"lr": 1.0, "clip": 1e6, "steps": 200}
    with pytest.raises(UsageError, match=r"is (nan|inf) after \d+ steps") as caught:
        run(tmp_path / "wild", FILE | {"recipe": recipe})
    assert caught.value.where == "stage artist-a"
    assert "smaller learning rate than 1" in caught.value.hint
    assert not (tmp_path / "wild" / "ledger.json").exists()


@pytest.fixture
def broken(data: Path) -> Iterator[Path]:
    """Folder for a slice that is not as it should be, beside the others."""
    folder = data / "broken"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def test_bad_slices_are_refused_by_name(broken: Path, data: Path, run: Run, tmp_path: Path) -> None:
    said = without(FILE, "artist-c", "broken")
    with pytest.raises(UsageError, match="the slice artist-c is empty"):
        run(tmp_path / "out", said)
    shutil.copy(data / "artist-a" / "big-cat_1.png", broken / "mine.png")
    with pytest.raises(UsageError, match=r"is in the slice artist-c and, as .*big-cat_1.png, in artist-a"):
        run(tmp_path / "out", said)
    bare = said | {"data": [{"id": "artist-c", "images": ["broken"]}]}
    with pytest.raises(UsageError, match="a picture of the slice artist-c has no caption") as caught:
        run(tmp_path / "out", bare)
    assert "mine.txt" in caught.value.hint
    (broken / "mine.txt").write_text(" \n")
    with pytest.raises(UsageError, match="is empty"):
        run(tmp_path / "out", bare)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": [FILE["data"][0], FILE["data"][0]]}, "the slice 'artist-a' is there twice."),
        ({"orders": 2}, "independent stages have no orders"),
        ({"mode": "sequence", "orders": 4}, "3 slices have 3 rotations"),
        ({"recipe": {"batch": 1}}, "no room for every share"),
        ({"replay": {"prompts": ["a dog"], "names": ["cat"]}}, "no prompt has {name} in it."),
        ({"data": [{"id": "a", "images": ["b"], "caption": "{style}"}]}, "{style} is no placeholder of captions"),
        ({"withdrawn": ["artist-z"]}, "the slice 'artist-z' is not under 'data'"),
        ({"withdrawn": ["artist-a", "artist-a"]}, "the slice 'artist-a' is there twice."),
        ({"withdrawn": list(IDS)}, "every slice was withdrawn"),
    ],
)
def test_a_file_that_cannot_be_is_refused_at_its_line(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "slices.yaml"
    path.write_text(json.dumps(FILE | change, indent=1))
    with pytest.raises(ManifestError) as caught:
        read_training(path)
    (problem,) = caught.value.problems
    assert message in problem.message
    assert problem.line > 1


def test_replay_is_never_generated_from_refused_prompts(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is never generated"):
        run(tmp_path / "out", FILE | {"replay": {"prompts": ["a nude child"], "images": 1, "steps": 1}})


def test_the_command_trains_and_its_receipts_prove_a_picture(
    data: Path, model: Any, tmp_path: Path, signing_key: keys.PrivateKey
) -> None:
    path = data / "command.yaml"
    said = without(FILE, "artist-b") | {"model": os.path.relpath(model.folder, data)}
    path.write_text(json.dumps(said | {"recipe": FILE["recipe"] | {"steps": 1}}))
    assert signing_key.path is not None
    out, key = tmp_path / "licensed", signing_key.path
    found = publisher("slices", "train", path, "--out", out, "--key", key, "--quiet", "--json")
    assert json.loads(found.output)["trained"] == ["artist-a", "artist-c"]
    assert json.loads(found.output)["steps"] == {"most": 2, "trained": 2}
    again = publisher("slices", "train", path, "--out", out, "--key", key)
    assert again.stderr.splitlines()[0] == "2 stages, 1 steps each: 2 at most, as finished ones are kept"
    left = publisher("slices", "delete", out, "--slice", "artist-a", "--json")
    assert json.loads(left.output)["stages"] == ["artist-c"]
    (receipt,) = (tmp_path / "licensed.private" / "receipts" / "artist-a").glob("*-big-cat_1.json")
    words = ("slices", "prove", out, "--receipt", receipt, "--key", key.with_suffix(".pub"))
    caption = ("--caption", "a big cat 1 emoji")
    assert publisher(*words, *caption, "--image", data / "artist-a" / "big-cat_1.png").exit_code == 0
    assert publisher(*words, *caption, "--image", data / "artist-c" / "big-cat_1.png").exit_code == 1
    secret = tmp_path / "licensed.private" / "secrets" / "artist-a"
    assert secret.stat().st_mode & 0o077 == 0
