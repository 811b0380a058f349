"""``publisher membranes``: inspect, merge, convert, as their user meets them."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file

from publisher.api.membranes import (
    Host,
    MembraneEntry,
    MembraneIndex,
    Transport,
    find_hosts,
    membrane_tensors,
    read_membrane,
    weight_change,
)
from publisher.cli import main
from publisher.registry.models import open_model
from publisher_emoji import model_folder
from support.membrane_files import SD1, Headers, random_membrane, save

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def membranes(*words: object) -> Result:
    return CliRunner().invoke(main, ["membranes", *map(str, words)])


@pytest.fixture(scope="module")
def hosts() -> dict[str, Host]:
    return find_hosts(open_model("embedded:emoji"))


@pytest.fixture(scope="module")
def digest() -> str:
    return open_model("embedded:emoji").digest


@pytest.fixture
def files(hosts: dict[str, Host], digest: str, tmp_path: Path) -> list[Path]:
    known = replace(random_membrane(hosts, 0), metadata={"base_model": digest})
    return [
        save(tmp_path / "gun.safetensors", known),
        save(tmp_path / "cat.safetensors", random_membrane(hosts, 1, rank=2, prompts=("cat, small",))),
    ]


def package(folder: Path, files: Mapping[str, Path], **index: Any) -> Path:
    """Write what a package has of its model and its membranes."""
    shutil.copytree(model_folder(), folder)
    (folder / "README.md").write_text("# A signed release\n")
    place = folder / "release" / "membranes"
    place.mkdir(parents=True)
    entries = []
    for concept, file in files.items():
        shutil.copyfile(file, place / file.name)
        entries.append(
            MembraneEntry(
                concept=concept,
                file=file.name,
                sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
                words=(concept,),
                texts=(concept,),
                rank=read_membrane(file).rank,
                strength=0.5,
            )
        )
    (place / "index.json").write_bytes(MembraneIndex(**{"mode": "bundle", **index}, entries=tuple(entries)).as_file())
    return folder


# inspect


def test_inspect_shows_a_file(files: list[Path], digest: str) -> None:
    result = membranes("inspect", files[0], "--json")
    (told,) = json.loads(result.stdout)["files"]
    assert told["sha256"] == hashlib.sha256(files[0].read_bytes()).hexdigest()
    assert told["bytes"] == files[0].stat().st_size
    assert (told["prompts"], told["rank"], told["alpha_over_rank"]) == (["gun"], 1, [1.0])
    assert (told["layers"], told["parameters"], told["dtypes"]) == (84, 26_368, ["F32"])
    assert told["metadata"] == {"base_model": digest}
    assert (told["fits"], told["relative_change"], told["warnings"]) == (None, None, [])


def test_inspect_measures_the_change_against_a_model(files: list[Path], hosts: dict[str, Host]) -> None:
    result = membranes("inspect", files[1], "--model", "embedded:emoji", "--json")
    (told,) = json.loads(result.stdout)["files"]
    weights, branches = load_file(model_folder() / WEIGHTS), read_membrane(files[1]).branches
    change = weight = 0.0
    for stem, host in hosts.items():
        if ".attn2." in host.module:
            change += float(weight_change([(1.0, branches[stem])], host.shape).square().sum())
            weight += float(weights[f"{host.module}.weight"].double().square().sum())
    assert told["fits"] is True
    assert told["change"]["attn2"] == pytest.approx(change**0.5)
    assert told["relative_change"]["attn2"] == pytest.approx((change / weight) ** 0.5)
    assert set(told["change"]) == {"attn1", "attn2", "ff", "proj"}


def test_inspect_says_on_which_model_it_was_trained(files: list[Path]) -> None:
    assert "fits; trained on these very weights" in membranes("inspect", files[0], "--model", "embedded:emoji").stdout
    assert "does not say on what it was trained" in membranes("inspect", files[1], "--model", "embedded:emoji").stdout


def test_inspect_warns_of_a_small_scale_and_of_no_prompts(hosts: dict[str, Host], tmp_path: Path) -> None:
    path = save(tmp_path / "m.safetensors", random_membrane(hosts, rank=32, alpha=1.0, prompts=()))
    text = membranes("inspect", path).stdout
    assert "warning     alpha / rank is only 0.03125" in text
    assert "warning     names no prompts: it cannot open by the prompt" in text


def test_inspect_shows_why_a_file_does_not_fit(tmp_path: Path) -> None:
    path = save(tmp_path / "sd1.safetensors", random_membrane(find_hosts(Headers(SD1))))
    result = membranes("inspect", path, "--model", "embedded:emoji")
    assert (result.exit_code, "does not fit" in result.stdout) == (0, True)
    assert "made for a layer 320 x 320, the model's is" in result.stdout


def test_inspect_shows_a_package_with_its_index(files: list[Path], tmp_path: Path) -> None:
    folder = package(tmp_path / "package", {"gun": files[0], "cat": files[1]}, transport=Transport(threshold=0.5))
    text = membranes("inspect", folder).stdout
    assert text.startswith("2 membranes, bundled: beside untouched weights")
    assert "threshold 0.5" in text
    assert "gun: gun.safetensors, strength 0.5, opens by gun" in text
    told = json.loads(membranes("inspect", folder, "--json").stdout)
    assert [entry["concept"] for entry in told["index"]["entries"]] == ["gun", "cat"]
    assert len(told["files"]) == 2


def test_inspect_writes_out_what_could_play_tricks_on_a_terminal(hosts: dict[str, Host], tmp_path: Path) -> None:
    evil = replace(random_membrane(hosts, prompts=("gun\x1b[2J",)), metadata={"note": "a\nfits\u202e"})
    text = membranes("inspect", save(tmp_path / "m.safetensors", evil)).stdout
    assert "\x1b" not in text
    assert "gun\\x1b[2J" in text
    assert "note: a\\nfits\\u202e" in text


# merge


def test_merge_writes_a_model_and_says_what_was_lost(files: list[Path], hosts: dict[str, Host], tmp_path: Path) -> None:
    words = ("--permeability", 1, "--permeability", 0.5, "--out", tmp_path / "out", "--quiet")
    result = membranes("merge", "embedded:emoji", *files, *words)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"{tmp_path / 'out'}: 84 weights changed by ")
    assert lines[1:] == [f"  {files[0]}: gun, permeability 1", f"  {files[1]}: cat, small, permeability 0.5"]
    old, new = load_file(model_folder() / WEIGHTS), load_file(tmp_path / "out" / WEIGHTS)
    stem, host = next(iter(hosts.items()))
    pairs = [(gamma, read_membrane(file).branches[stem]) for gamma, file in zip((1.0, 0.5), files, strict=True)]
    name = f"{host.module}.weight"
    assert torch.equal(new[name], (old[name].double() + weight_change(pairs, host.shape)).float())


def test_merge_warns_that_permeability_is_constant(files: list[Path], tmp_path: Path) -> None:
    result = membranes("merge", "embedded:emoji", files[0], "--out", tmp_path / "out")
    assert "Warning: permeability is now constant" in result.stderr


def test_merge_of_a_package_takes_its_strengths_and_leaves_the_release_behind(
    files: list[Path], tmp_path: Path
) -> None:
    folder = package(tmp_path / "package", {"gun": files[0]}, transport=Transport(strength=3.0))
    result = membranes("merge", folder, folder, "--out", tmp_path / "out")
    assert "gun, permeability 1.5" in result.stdout
    assert not (tmp_path / "out" / "release").exists()
    assert not (tmp_path / "out" / "README.md").exists()
    assert "left out: release/" in result.stderr


def test_a_membrane_is_not_merged_into_the_model_that_has_it_in_its_weights(files: list[Path], tmp_path: Path) -> None:
    folder = package(tmp_path / "package", {"gun": files[0]}, mode="merge")
    for source in (folder, files[0]):
        result = membranes("merge", folder, source, "--out", tmp_path / "out")
        assert (result.exit_code, "'gun' is in the weights of this model already" in result.stderr) == (2, True)
    assert membranes("merge", "embedded:emoji", folder, "--out", tmp_path / "out", "--quiet").exit_code == 0


def test_merge_into_half_precision_warns_of_what_rounding_takes(
    files: list[Path], hosts: dict[str, Host], tmp_path: Path
) -> None:
    folder = tmp_path / "bf16"
    shutil.copytree(model_folder(), folder)
    tensors = {name: tensor.bfloat16() for name, tensor in load_file(folder / WEIGHTS).items()}
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    result = membranes("merge", folder, files[0], "--permeability", 0.001, "--out", tmp_path / "out")
    assert "Warning: rounding to the stored dtype changed the membranes by" in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--permeability", 1, "--permeability", 1, "--permeability", 1), "3 permeabilities for 2 files"),
        (("--permeability", -1), "a permeability is a number from 0 upwards"),
        (("--permeability", "nan"), "a permeability is a number from 0 upwards"),
    ],
)
def test_permeabilities_that_make_no_sense_are_usage_errors(
    words: tuple[object, ...], message: str, files: list[Path], tmp_path: Path
) -> None:
    result = membranes("merge", "embedded:emoji", *files, *words, "--out", tmp_path / "out")
    assert (result.exit_code, message in result.stderr) == (2, True), result.stderr
    assert not (tmp_path / "out").exists()


def test_the_same_membrane_twice_is_a_usage_error(files: list[Path], tmp_path: Path) -> None:
    shutil.copyfile(files[0], tmp_path / "copy.safetensors")
    result = membranes("merge", "embedded:emoji", files[0], tmp_path / "copy.safetensors", "--out", tmp_path / "out")
    assert (result.exit_code, f"is the same membrane as {files[0]}" in result.stderr) == (2, True)


def test_errors_name_the_file(files: list[Path], hosts: dict[str, Host], tmp_path: Path) -> None:
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(files[0].read_bytes()[:-1])
    text = tmp_path / "text.safetensors"
    tensors = membrane_tensors(random_membrane(hosts))
    save_file(tensors | {"lora_te_text_model_q.alpha": torch.ones(())}, text)
    (tmp_path / "empty").mkdir()
    for path, message in (
        (cut, "cannot be read as safetensors"),
        (text, "changes the text encoder too"),
        (tmp_path / "nowhere", "No such file"),
        (tmp_path / "empty", "is a folder without membranes"),
    ):
        result = membranes("merge", "embedded:emoji", path, "--out", tmp_path / "out")
        assert (result.exit_code, message in result.stderr) == (2, True), result.stderr
        assert f"Error: {path}: " in result.stderr


def test_a_file_of_a_package_that_is_not_the_indexed_one_is_refused(
    files: list[Path], hosts: dict[str, Host], tmp_path: Path
) -> None:
    folder = package(tmp_path / "package", {"gun": files[0]})
    save(folder / "release" / "membranes" / "gun.safetensors", random_membrane(hosts, 7))
    result = membranes("merge", "embedded:emoji", folder, "--out", tmp_path / "out")
    assert (result.exit_code, "is not the membrane that the index names" in result.stderr) == (2, True)


# convert


def test_convert_bundles_files_and_repeats_its_bytes(files: list[Path], hosts: dict[str, Host], tmp_path: Path) -> None:
    words = ("--permeability", 1, "--permeability", 0.5)
    for name in ("one", "two"):
        result = membranes("convert", *files, *words, "--out", tmp_path / name)
        assert result.exit_code == 0, result.stderr
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    bundle = read_membrane(tmp_path / "one")
    assert (bundle.rank, bundle.prompts, bundle.metadata) == (3, ("gun", "cat, small"), {})
    members = list(zip((1.0, 0.5), map(read_membrane, files), strict=True))
    for stem, host in hosts.items():
        pairs = [(gamma, membrane.branches[stem]) for gamma, membrane in members]
        exact = weight_change(pairs, host.shape)
        got = weight_change([(1.0, bundle.branches[stem])], host.shape)
        assert float((got - exact).norm() / exact.norm()) < 1e-6


def test_convert_there_and_back_keeps_prompts_and_metadata(files: list[Path], digest: str, tmp_path: Path) -> None:
    there, back = tmp_path / "there.safetensors", tmp_path / "back.safetensors"
    result = membranes("convert", files[0], "--to", "diffusers", "--model", "embedded:emoji", "--out", there)
    assert result.exit_code == 0, result.stderr
    assert membranes("convert", there, "--out", back).exit_code == 0
    assert back.read_bytes() == files[0].read_bytes()


def test_convert_writes_the_dtype_that_is_asked_for(files: list[Path], tmp_path: Path) -> None:
    assert membranes("convert", files[0], "--dtype", "float16", "--out", tmp_path / "half").exit_code == 0
    assert {tensor.dtype for tensor in load_file(tmp_path / "half").values()} == {torch.float16}


def test_convert_replaces_a_file_only_with_force(files: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text("mine")
    result = membranes("convert", files[0], "--out", out)
    assert (result.exit_code, "Replace it with --force." in result.stderr, out.read_text()) == (2, True, "mine")
    assert membranes("convert", files[0], "--out", out, "--force").exit_code == 0
    assert read_membrane(out).prompts == ("gun",)


def test_convert_to_diffusers_needs_a_model_and_refuses_one_that_does_not_fit(
    files: list[Path], tmp_path: Path
) -> None:
    result = membranes("convert", files[0], "--to", "diffusers", "--out", tmp_path / "out")
    assert (result.exit_code, "Give the model with --model." in result.stderr) == (2, True)
    other = save(tmp_path / "sd1.safetensors", random_membrane(find_hosts(Headers(SD1))))
    result = membranes("convert", other, "--model", "embedded:emoji", "--out", tmp_path / "out")
    assert (result.exit_code, f"{other}: the membrane does not fit this model" in result.stderr) == (2, True)
    assert not (tmp_path / "out").exists()
