from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from publisher.api import ModelError, PrerequisiteError
from publisher.builtin.sources import Folder, Hub
from publisher_emoji import model_folder

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REFERENCE = f"hf:acme/tiny@{COMMIT}"


def write_model(folder: Path) -> None:
    (folder / "unet").mkdir(parents=True)
    (folder / "unet" / "config.json").write_text("{}")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"weights")
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text("{}")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
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


def test_a_snapshot_in_the_cache_is_found_without_network(snapshot: Path, tmp_path: Path) -> None:
    write_model(snapshot)
    assert Hub().locate(REFERENCE, tmp_path) == snapshot
    assert Hub().fetch(REFERENCE, tmp_path) == snapshot


@pytest.mark.parametrize(
    "missing", ["unet/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json", "model_index.json"]
)
def test_a_half_fetched_snapshot_is_not_taken_for_the_model(snapshot: Path, tmp_path: Path, missing: str) -> None:
    write_model(snapshot)
    (snapshot / missing).unlink()
    assert Hub().locate(REFERENCE, tmp_path) is None


def test_a_snapshot_without_one_of_its_shards_is_not_taken_for_the_model(snapshot: Path, tmp_path: Path) -> None:
    write_model(snapshot)
    index = {"weight_map": {"a": "diffusion_pytorch_model.safetensors", "b": "second.safetensors"}}
    (snapshot / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    assert Hub().locate(REFERENCE, tmp_path) is None
    (snapshot / "unet" / "second.safetensors").write_bytes(b"weights")
    assert Hub().locate(REFERENCE, tmp_path) == snapshot


def test_what_is_not_in_the_cache_is_a_prerequisite_when_offline(snapshot: Path, tmp_path: Path) -> None:
    assert not snapshot.exists()
    assert Hub().locate(REFERENCE, tmp_path) is None
    with pytest.raises(PrerequisiteError) as caught:
        Hub().fetch(REFERENCE, tmp_path)
    assert caught.value.where == REFERENCE
    assert "hf download" in caught.value.hint


def test_only_weights_and_texts_are_fetched_at_the_pinned_commit(
    snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {}

    def download(repository: str, *, revision: str, allow_patterns: list[str], local_files_only: bool) -> str:
        if local_files_only:
            from huggingface_hub.errors import LocalEntryNotFoundError

            raise LocalEntryNotFoundError("not here")
        asked[repository] = (revision, tuple(allow_patterns))
        write_model(snapshot)
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert Hub().fetch(REFERENCE, tmp_path) == snapshot
    assert asked == {"acme/tiny": (COMMIT, ("*.safetensors", "*.json", "*.txt"))}


def test_sources_load_no_hub_until_one_is_asked_for() -> None:
    code = (
        "import sys, publisher.builtin.sources as s; s.Hub().check('hf:a/b'); print('huggingface_hub' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "False\n"
