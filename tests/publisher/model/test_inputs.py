from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import publisher_emoji
from publisher.errors import PrerequisiteError, UsageError
from publisher.model.digest import sha256_file
from publisher.model.inputs import input_digest, locate_input
from support.fake_hub import serving

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_a_file_is_found_beside_the_manifest_and_named_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "sheet.json").write_text("{}")
    found = locate_input("sheet.json", tmp_path, "the scorer 'x'", fetch=False)
    assert found == tmp_path / "sheet.json"
    assert input_digest("sheet.json", found) == sha256_file(found)


def test_of_a_folder_the_files_that_can_be_read_count(tmp_path: Path) -> None:
    for name, text in (("a/config.json", "{}"), ("a/README.md", "one"), ("b/config.json", "{}"), ("b/README.md", "2")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert input_digest("a", tmp_path / "a") == input_digest("b", tmp_path / "b")
    (tmp_path / "b" / "vocab.txt").write_text("cat")
    assert input_digest("a", tmp_path / "a") != input_digest("b", tmp_path / "b")
    before = input_digest("a", tmp_path / "a")
    (tmp_path / "a" / "one.PNG").write_bytes(b"picture")
    assert input_digest("a", tmp_path / "a") != before
    assert input_digest(f"hf:acme/tiny@{COMMIT}", tmp_path / "a") == before


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.json", "which is not there"),
        ("/etc/hostname", "which is no path seen from the manifest"),
        ("~/sheet.json", "which is no path seen from the manifest"),
        ("", "which is no path seen from the manifest"),
        ("weights.bin", "which holds a pickle or the like"),
        ("model", "which holds a pickle or the like"),
        ("hf:acme/tiny@main", "which is no pinned commit of the hub"),
        (f"hf:acme/tiny@{COMMIT}/../other", "which is no pinned commit of the hub"),
        ("package:publisher_emoji", "which is no path in an installed package"),
        ("package:publisher_emoji/../secret", "which is no path in an installed package"),
    ],
)
def test_what_cannot_be_named_or_trusted_is_refused(name: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"\x80\x04")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "pytorch_model.PT").write_bytes(b"\x80\x04")
    with pytest.raises(UsageError, match=f"the scorer 'x' names {name!r}, {reason}"):
        locate_input(name, tmp_path, "the scorer 'x'", fetch=True)


def test_a_plugin_that_can_do_without_pickles_may_look_into_the_folder(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "pytorch_model.bin").write_bytes(b"\x80\x04")
    assert locate_input("model", tmp_path, "step 'x'", fetch=False, pickles=True) == tmp_path / "model"


def test_files_of_installed_packages_are_found_without_importing_them(tmp_path: Path) -> None:
    found = locate_input("package:publisher_emoji/data/scorer", tmp_path, "x", fetch=False)
    assert found == Path(publisher_emoji.__file__).parent / "data" / "scorer"
    for name, reason in (
        ("package:no_such_package/model.onnx", "but no such package is installed"),
        ("package:publisher_emoji/data/missing.onnx", "which is not there"),
    ):
        with pytest.raises(PrerequisiteError, match=f"x names {name!r}, {reason}"):
            locate_input(name, tmp_path, "x", fetch=True)


@pytest.mark.enable_socket
def test_a_model_of_the_hub_is_fetched_once_without_pickles(tmp_path: Path) -> None:
    (tmp_path / "repository" / "onnx").mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "model.bin", "onnx/model.onnx", "README.md"):
        (tmp_path / "repository" / name).write_text(name)
    reference = f"hf:acme/tiny@{COMMIT}"
    with serving(tmp_path / "repository", "acme/tiny", COMMIT) as (address, served):
        code = (
            "from pathlib import Path; from publisher.model.inputs import locate_input as locate; "
            f"print(locate({reference!r}, Path(), 'x', fetch=False)); "
            f"print(locate({reference!r}, Path(), 'x', fetch=True)); "
            f"print(locate({reference!r}, Path(), 'x', fetch=False)); "
            f"print(locate({reference + '/onnx'!r}, Path(), 'x', fetch=False))"
        )
        place = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home"), "NO_PROXY": "127.0.0.1"}
        done = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True, env={**os.environ, **place}
        )
    before, fetched, after, part = done.stdout.split()
    assert (before, fetched) == ("None", after)
    assert part == f"{after}/onnx"
    assert sorted(served) == ["config.json", "model.safetensors", "onnx/model.onnx"]


@pytest.mark.enable_socket
def test_a_folder_or_a_file_of_a_repository_is_fetched_alone(tmp_path: Path) -> None:
    for name in ("unet/config.json", "unet/w.safetensors", "vae/w.safetensors", "w.safetensors"):
        (tmp_path / "repository" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "repository" / name).write_text(name)
    with serving(tmp_path / "repository", "acme/tiny", COMMIT) as (address, served):
        code = (
            "from pathlib import Path; from publisher.model.inputs import locate_input as locate\n"
            f"for inside in ('unet', 'w.safetensors'):\n"
            f"    name = 'hf:acme/tiny@{COMMIT}/' + inside\n"
            "    found = [locate(name, Path(), 'x', fetch=fetch) for fetch in (False, True, False)]\n"
            "    assert found[0] is None and found[1] == found[2] and found[1].name == inside, found\n"
            f"try: locate('hf:acme/tiny@{COMMIT}/nothing', Path(), 'x', fetch=True)\n"
            "except Exception as error: print(error)"
        )
        place = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home"), "NO_PROXY": "127.0.0.1"}
        done = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True, env={**os.environ, **place}
        )
    assert sorted(served) == ["unet/config.json", "unet/w.safetensors", "w.safetensors"]
    assert "has no 'nothing'" in done.stdout
