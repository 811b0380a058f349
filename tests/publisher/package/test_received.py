"""Packages as hubs hand them out: what they add is left out, their cache's links are followed, and no others."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from publisher.errors import UsageError
from publisher.package.received import received
from publisher.package.upload import read_upload
from publisher.package.verify import Verification, verify

FILTERS = "*.safetensors filter=lfs diff=lfs merge=lfs -text\n\n# comment\n"
UNET = "unet/model.safetensors"


def codes(found: Verification) -> dict[str, str]:
    return {finding.path: finding.code.value for finding in found.findings}


@pytest.fixture(params=["own store", "shared store"])
def snapshot(signed: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The good package as the hub's client keeps it: in a repository's store, or large files in the cache's own."""
    cache = tmp_path / "hub"
    store = cache / "models--acme--tiny/blobs"
    folder = cache / "models--acme--tiny/snapshots" / ("a" * 40)
    store.mkdir(parents=True)
    for path in sorted(path for path in signed.rglob("*") if path.is_file()):
        link = folder / path.relative_to(signed)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        blob = store / digest
        if request.param == "shared store" and path.suffix == ".safetensors":
            shared = cache / "blobs" / digest[:2] / digest
            shared.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, shared)
            blob.symlink_to(os.path.relpath(shared, store))
        else:
            shutil.copyfile(path, blob)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    (store / "attributes").write_text(FILTERS)
    (folder / ".gitattributes").symlink_to("../../blobs/attributes")
    return folder


def test_a_snapshot_of_a_hubs_cache_verifies(snapshot: Path, public: Path, tmp_path: Path) -> None:
    assert verify(snapshot, public).findings == ()
    (tmp_path / "short").symlink_to(snapshot)
    assert verify(tmp_path / "short", public).ok


def test_a_download_into_a_folder_verifies(package: Path, public: Path) -> None:
    (package / ".gitattributes").write_text(FILTERS)
    notes = package / ".cache/huggingface/download/unet"
    notes.mkdir(parents=True)
    (notes / "model.safetensors.metadata").write_text("a\nb\n1.0\n")
    (package / ".cache/huggingface/.gitignore").write_text("*")
    found = verify(package, public)
    assert found.ok
    assert (
        found.files == len([path for path in package.rglob("*") if path.is_file() and ".cache" not in path.parts]) - 1
    )


@pytest.mark.parametrize("text", ["*.py filter=evil\n", "*.json text\n", "x" * 100_000])
def test_other_attributes_of_git_are_refused(package: Path, public: Path, text: str) -> None:
    (package / ".gitattributes").write_text(text)
    assert codes(verify(package, public)) == {".gitattributes": "V012"}


@pytest.mark.parametrize(
    "name", [".cache/other/x", ".cache/huggingface.txt", "unet/.cache/huggingface/x", "x/.gitattributes"]
)
def test_what_only_looks_like_a_hubs_addition_is_refused(package: Path, public: Path, name: str) -> None:
    (package / name).parent.mkdir(parents=True, exist_ok=True)
    (package / name).write_text(FILTERS)
    assert codes(verify(package, public)) == {name: "V012"}


def out_of_the_cache(snapshot: Path, real: Path, outside: Path) -> str:
    shutil.copyfile(real, outside)
    return str(outside)


def to_another_repository(snapshot: Path, real: Path, outside: Path) -> str:
    store = snapshot.parents[2] / "models--evil--x/blobs"
    store.mkdir(parents=True)
    shutil.copyfile(real, store / "x")
    return "../../../../models--evil--x/blobs/x"


def to_another_snapshot(snapshot: Path, real: Path, outside: Path) -> str:
    (snapshot.parent / "other").mkdir()
    shutil.copyfile(real, snapshot.parent / "other/x")
    return "../../other/x"


def below_a_folder_of_the_store(snapshot: Path, real: Path, outside: Path) -> str:
    (snapshot.parents[1] / "blobs/folder").mkdir()
    shutil.copyfile(real, snapshot.parents[1] / "blobs/folder/x")
    return "../../../blobs/folder/x"


def to_a_link_out_of_the_store(snapshot: Path, real: Path, outside: Path) -> str:
    shutil.copyfile(real, outside)
    (snapshot.parents[1] / "blobs/link").symlink_to(outside)
    return "../../../blobs/link"


def to_a_second_name(snapshot: Path, real: Path, outside: Path) -> str:
    shutil.copyfile(real, outside)
    os.link(outside, snapshot.parents[1] / "blobs/hard")
    return "../../../blobs/hard"


def to_a_pipe(snapshot: Path, real: Path, outside: Path) -> str:
    os.mkfifo(snapshot.parents[1] / "blobs/pipe")
    return "../../../blobs/pipe"


def to_nothing(snapshot: Path, real: Path, outside: Path) -> str:
    return "../../../blobs/nothing"


@pytest.mark.parametrize(
    "kind",
    [
        out_of_the_cache,
        to_another_repository,
        to_another_snapshot,
        below_a_folder_of_the_store,
        to_a_link_out_of_the_store,
        to_a_second_name,
        to_a_pipe,
        to_nothing,
    ],
)
def test_any_other_link_is_refused(
    snapshot: Path, public: Path, tmp_path: Path, kind: Callable[[Path, Path, Path], str]
) -> None:
    link = snapshot / "unet/config.json"
    target = kind(snapshot, link.resolve(), tmp_path / "outside")
    link.unlink()
    link.symlink_to(target)
    found = verify(snapshot, public)
    assert {(one.code.value, one.path) for one in found.findings} == {
        ("V013", "unet/config.json"),
        ("V011", "unet/config.json"),
    }


def test_links_of_a_cache_are_refused_where_the_folder_is_no_snapshot(
    snapshot: Path, public: Path, tmp_path: Path
) -> None:
    for place in ("models--acme--tiny/snapshots/main", "datasets--acme--tiny/snapshots/" + "a" * 40):
        other = tmp_path / "moved" / place
        shutil.copytree(snapshot, other, symlinks=True)
        shutil.copytree(snapshot.parents[1] / "blobs", other.parents[1] / "blobs", symlinks=True)
        assert "V013" in codes(verify(other, public)).values()


def test_a_changed_blob_is_found(snapshot: Path, public: Path) -> None:
    blob = (snapshot / "unet/config.json").resolve()
    blob.write_bytes(blob.read_bytes() + b" ")
    assert codes(verify(snapshot, public)) == {"unet/config.json": "V010"}


def test_a_link_that_is_turned_during_the_verification_is_found(
    snapshot: Path, public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from publisher.package import verify as module

    def turn(*args: object) -> object:
        link = snapshot / "unet/config.json"
        twin = link.resolve().with_name("twin")
        link.resolve().rename(twin)
        link.unlink()
        link.symlink_to("../../../blobs/twin")
        return original(*args)  # type: ignore[arg-type]

    original = module.check_content
    monkeypatch.setattr(module, "check_content", turn)
    assert codes(verify(snapshot, public))["unet/config.json"] == "V016"


def test_a_fine_tuned_model_in_the_cache_is_read(snapshot: Path) -> None:
    upload, tree = read_upload(snapshot)
    assert upload.kind == "pipeline"
    assert UNET in upload.headers
    assert not upload.unexamined
    assert tree.recheck() == []


def test_an_upload_hides_nothing_among_the_notes_of_a_hubs_client(package: Path) -> None:
    notes = package / ".cache/huggingface"
    notes.mkdir(parents=True)
    (notes / "model.safetensors.metadata").write_text("a\nb\n1.0\n")
    assert not read_upload(package)[0].unexamined
    shutil.copy(package / UNET, notes / "hidden.safetensors")
    (notes / "hidden.bin").write_bytes(b"\x80\x02}q\x00.")
    upload, _ = read_upload(package)
    assert ".cache/huggingface/hidden.safetensors" in upload.headers
    assert ".cache/huggingface/hidden.bin" in upload.unexamined


def test_a_missing_folder_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read as a folder"):
        received(tmp_path / "none")
