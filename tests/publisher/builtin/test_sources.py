from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from publisher.api import ModelError, PrerequisiteError
from publisher.builtin.sources import Folder, Hub
from publisher_emoji import model_folder
from support.fake_hub import serving

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REFERENCE = f"hf:acme/tiny@{COMMIT}"
WANTED = {
    "LICENSE.md",
    "README.md",
    "model_index.json",
    "scheduler/scheduler_config.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
}
NOT_WANTED = (
    "tiny.safetensors",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "unet/diffusion_pytorch_model.bin",
    "unet/._config.json",
    ".gitattributes",
    "sample.png",
    "vae_1_0/config.json",
    "vae_1_0/diffusion_pytorch_model.safetensors",
    "logs.json",
)


def write_model(folder: Path) -> None:
    """Write a model, and what its repository holds besides."""
    (folder / "unet").mkdir(parents=True)
    (folder / "unet" / "config.json").write_text('{"in_channels": 4}')
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"weights")
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text("{}")
    for name in NOT_WANTED:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"not wanted")
    (folder / "LICENSE.md").write_text("A licence.")
    (folder / "README.md").write_text("# A card")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "scheduler": ["diffusers", "DDIMScheduler"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": [None, None],
    }
    (folder / "model_index.json").write_text(json.dumps(index))


@pytest.fixture
def snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the hub's cache would have the snapshot; the cache is empty, and there is no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "models--acme--tiny" / "snapshots" / COMMIT


def test_a_folder_is_found_relative_to_the_manifest(tmp_path: Path) -> None:
    write_model(tmp_path / "models" / "tiny")
    for reference in ("models/tiny", "./models/tiny", "folder:models/tiny"):
        assert Folder().locate(reference, tmp_path) == tmp_path / "models" / "tiny"
    assert Folder().fetch(str(model_folder()), tmp_path) == model_folder().resolve()


@pytest.mark.parametrize(("make", "what"), [(False, "no such folder"), (True, "no model_index.json")])
def test_a_folder_that_is_no_model_is_refused_with_its_path(tmp_path: Path, make: bool, what: str) -> None:  # noqa: FBT001
    if make:
        (tmp_path / "models").mkdir()
    for look in (Folder().locate, Folder().fetch):
        with pytest.raises(ModelError, match=what) as caught:
            look("models", tmp_path)
        assert caught.value.where == str(tmp_path / "models")


@pytest.mark.parametrize("reference", ["", "folder:", "  ", "a\0b"])
def test_an_empty_path_is_malformed(reference: str) -> None:
    assert Folder().check(reference)


def test_a_pinned_reference_is_well_formed() -> None:
    assert Hub().check(REFERENCE) is None


@pytest.mark.parametrize(
    "reference",
    [
        "hf:acme/tiny",
        "hf:acme/tiny@main",
        f"hf:tiny@{COMMIT}",
        f"hf:acme/tiny@{COMMIT[:-1]}",
        f"hf:acme/tiny@{COMMIT.upper()}",
        f"hf:acme/../tiny@{COMMIT}",
        f"{REFERENCE}\n",
    ],
)
def test_anything_that_could_move_or_lead_elsewhere_is_refused(reference: str) -> None:
    assert "40 hex digits" in (Hub().check(reference) or "")


def write_tree(snapshot: Path, *missing: str) -> None:
    """Write what the hub's client notes of a repository's files, as it does at every download."""
    found = [path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()]
    tree = {"format_version": 1, "files": {name: {"size": 1, "blob_id": "0" * 40} for name in (*found, *missing)}}
    path = snapshot.parents[1] / "trees" / f"{COMMIT}.json"
    path.parent.mkdir()
    path.write_text(json.dumps(tree))


def test_a_snapshot_in_the_cache_is_found_without_network(snapshot: Path, tmp_path: Path) -> None:
    write_model(snapshot)
    write_tree(snapshot)
    assert Hub().locate(REFERENCE, tmp_path) == snapshot
    assert Hub().fetch(REFERENCE, tmp_path) == snapshot


@pytest.mark.parametrize("missing", sorted(WANTED))
def test_a_snapshot_without_a_file_that_a_package_would_hold_is_not_taken_for_the_model(
    snapshot: Path, tmp_path: Path, missing: str
) -> None:
    write_model(snapshot)
    write_tree(snapshot)
    (snapshot / missing).unlink()
    assert Hub().locate(REFERENCE, tmp_path) is None


def test_a_snapshot_is_complete_without_what_no_package_would_hold(snapshot: Path, tmp_path: Path) -> None:
    write_model(snapshot)
    write_tree(snapshot)
    for name in NOT_WANTED:
        (snapshot / name).unlink()
    assert Hub().locate(REFERENCE, tmp_path) == snapshot


def test_a_snapshot_whose_repository_nobody_listed_may_lack_files_and_is_not_taken(
    snapshot: Path, tmp_path: Path
) -> None:
    write_model(snapshot)
    assert Hub().locate(REFERENCE, tmp_path) is None


def test_a_snapshot_without_one_of_its_shards_is_not_taken_for_the_model(snapshot: Path, tmp_path: Path) -> None:
    write_model(snapshot)
    index = {"weight_map": {"a": "diffusion_pytorch_model.safetensors", "b": "second.safetensors"}}
    (snapshot / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    write_tree(snapshot, "unet/second.safetensors")
    assert Hub().locate(REFERENCE, tmp_path) is None
    (snapshot / "unet" / "second.safetensors").write_bytes(b"weights")
    assert Hub().locate(REFERENCE, tmp_path) == snapshot


def test_of_a_package_on_the_hub_what_it_promises_is_wanted_too_and_its_card_is_not(
    snapshot: Path, tmp_path: Path
) -> None:
    write_model(snapshot)
    (snapshot / "release").mkdir()
    (snapshot / "release" / "freeze-mask.json").write_text("{}")
    write_tree(snapshot)
    (snapshot / "README.md").unlink()
    assert Hub().locate(REFERENCE, tmp_path) == snapshot
    (snapshot / "release" / "freeze-mask.json").unlink()
    assert Hub().locate(REFERENCE, tmp_path) is None


def test_a_part_with_weights_in_a_pickle_is_said_before_anything_else_is_fetched(
    snapshot: Path, tmp_path: Path
) -> None:
    write_model(snapshot)
    (snapshot / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    write_tree(snapshot)
    with pytest.raises(ModelError, match=r"only diffusion_pytorch_model\.bin") as caught:
        Hub().locate(REFERENCE, tmp_path)
    assert caught.value.where == f"{REFERENCE}/unet"


def test_what_is_not_in_the_cache_is_a_prerequisite_when_offline(snapshot: Path, tmp_path: Path) -> None:
    assert not snapshot.exists()
    assert Hub().locate(REFERENCE, tmp_path) is None
    with pytest.raises(PrerequisiteError) as caught:
        Hub().fetch(REFERENCE, tmp_path)
    assert caught.value.where == REFERENCE
    assert "hf download" in caught.value.hint


@pytest.mark.enable_socket
def test_the_hub_is_asked_for_the_files_of_the_package_and_for_no_other(tmp_path: Path) -> None:
    write_model(tmp_path / "repository")
    with serving(tmp_path / "repository", "acme/tiny", COMMIT) as (address, served):
        code = (
            f"from pathlib import Path; from publisher.builtin.sources import Hub; "
            f"print(Hub().fetch({REFERENCE!r}, Path())); assert Hub().locate({REFERENCE!r}, Path())"
        )
        place = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home"), "NO_PROXY": "127.0.0.1"}
        done = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True, env={**os.environ, **place}
        )
    folder = Path(done.stdout.strip())
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == WANTED
    assert sorted(served) == sorted(WANTED)


@pytest.mark.parametrize(
    ("reference", "what", "hint"),
    [
        ("acme/tiny", "no such folder", r"write hf:acme/tiny@ and the 40 hex digits"),
        ("tiny.ckpt", "this is a file", r"from_single_file\('tiny.ckpt'\).save_pretrained"),
    ],
)
def test_what_people_write_in_place_of_a_folder_gets_a_way_on(
    tmp_path: Path, reference: str, what: str, hint: str
) -> None:
    (tmp_path / "tiny.ckpt").write_bytes(b"pickle")
    with pytest.raises(ModelError, match=f"{what}(.|\n)*{hint}"):
        Folder().locate(reference, tmp_path)
