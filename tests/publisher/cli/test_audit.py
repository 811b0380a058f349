"""``publisher audit``: both outputs and every exit code."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import get_args

import pytest
from click.testing import CliRunner, Result

from publisher.cli import main
from publisher.cli.audit import _component
from publisher.package import keys
from publisher.safeguards.freeze_mask.audit.records import LIMITS, PROVES, Audit, ComponentAudit, State
from support.auditing import (
    CONV,
    FROZEN,
    TO_K,
    TO_V,
    merged,
    network,
    save,
    write_masked,
    write_package,
    write_pipeline,
)

K, C = f"{TO_K}.weight", f"{CONV}.weight"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli-audit")
    keys.generate(folder / "a.key", folder / "a.pub", None)
    return write_masked(folder / "package", folder / "a.key", network(), FROZEN)


def call(upload: Path, package: Path, *words: object) -> Result:
    key = package.parent / "a.pub"
    return CliRunner().invoke(
        main, ["audit", str(upload), "--against", str(package), "--key", str(key), *map(str, words)]
    )


def test_what_complies_is_exit_0_and_says_what_that_proves(package: Path, tmp_path: Path) -> None:
    upload = save(tmp_path / "m.safetensors", {name: tensor.half() for name, tensor in network().items()})
    result = call(upload, package)
    key = keys.load_public(package.parent / "a.pub").hint[:16]
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (
        f"Complies: {upload}\n"
        f"  against tiny 1.2.0, signed with the key {key}\n"
        "  its mask freezes 3 of 6 tensors of unet, 49.8% of its numbers\n"
        "\n"
        "m.safetensors\n"
        "  frozen: 3 equal after a cast\n"
        "  free: 0 of 3 changed\n"
        "  stored: 6 F32 as F16\n"
        "\n"
        f"What this proves:\n  {PROVES}\n"
        "\n"
        "What an audit cannot say:\n" + "".join(f"  {limit}\n" for limit in LIMITS)
    )


def test_what_does_not_comply_is_exit_1_worst_first(package: Path, tmp_path: Path) -> None:
    tensors = merged(network(), (K, C), 4)
    tensors[K] += tensors[K] - network()[K]
    result = call(save(tmp_path / "m.safetensors", tensors), package)
    assert result.exit_code == 1
    assert result.stdout.startswith("DOES NOT COMPLY: ")
    assert "    like a merged LoRA of rank 4: 2 of 2 changed matrices\n" in result.stdout
    first, second = (result.stdout.index(f"    changed {name}") for name in (K, f"{C} rows 0-15, 32-39"))
    assert first < second
    assert PROVES not in result.stdout


def test_long_lists_end_with_a_count(package: Path, tmp_path: Path) -> None:
    result = call(save(tmp_path / "m.safetensors", merged(network(), (K, C), 4)), package, "--max", 1)
    assert "    and 1 more\n" in result.stdout
    assert result.stdout.count("    changed ") == 1


def test_one_json_document_that_can_be_read_back(package: Path, tmp_path: Path) -> None:
    result = call(save(tmp_path / "m.safetensors", merged(network(), (K,), 2)), package, "--json")
    assert result.exit_code == 1
    data = json.loads(result.stdout)
    assert (data["audit"], data["verdict"]) == (1, "does-not-comply")
    assert [one["name"] for one in data["weights"][0]["frozen"]] == sorted(FROZEN)
    assert Audit.parse(data).weights[0].violations[0].name == K


def test_a_renamed_tensor_and_adapters_are_shown(package: Path, tmp_path: Path) -> None:
    tensors = network()
    tensors["far.weight"] = tensors.pop(K)
    save(tmp_path / "up/m.safetensors", tensors)
    save(tmp_path / "up/lora.safetensors", {f"unet.{TO_K}.lora_A.weight": tensors[C]})
    text = call(tmp_path / "up", package).stdout
    assert f"    renamed {K}: the published bytes are in far.weight\n" in text
    assert f"lora.safetensors: adapters on 1 layer, 1 of them frozen\n  frozen layer {TO_K}\n" in text
    assert "  beside: 1 tensor that the published network does not have\n    far.weight\n" in text


@pytest.mark.parametrize("what", ["upload", "package", "key", "no key"])
def test_what_is_not_there_is_exit_2(package: Path, tmp_path: Path, what: str) -> None:
    upload = save(tmp_path / "m.safetensors", network())
    words = {"upload": upload, "package": package, "key": package.parent / "a.pub"} | {what: tmp_path / "none"}
    key = [] if what == "no key" else ["--key", str(words["key"])]
    result = CliRunner().invoke(main, ["audit", str(words["upload"]), "--against", str(words["package"]), *key])
    assert (result.exit_code, result.stdout) == (2, "")


def test_what_could_not_be_examined_is_exit_3(package: Path, tmp_path: Path) -> None:
    save(tmp_path / "up/m.safetensors", network())
    (tmp_path / "up/a\x1b[2J.bin").write_bytes(b"\0")
    result = call(tmp_path / "up", package)
    assert result.exit_code == 3
    assert (
        "Not examined, so that there is no positive answer:\n  a\\x1b[2J.bin: is data of the type .bin" in result.stdout
    )
    assert "\x1b" not in result.stdout


def test_every_state_of_another_part_has_its_words(package: Path, tmp_path: Path) -> None:
    for state in set(get_args(State)) - {"same"}:
        assert _component(ComponentAudit(name="vae", state=state, tensors_changed=1)).startswith("  vae: ")
    up = write_pipeline(tmp_path / "up", network())
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    (up / "vae/diffusion_pytorch_model.safetensors").write_bytes(pointer)
    result = call(up, package)
    assert result.exit_code == 3
    assert "a Git LFS pointer in place of the weights: run 'git lfs pull'" in result.stdout
    assert "  vae: its weights could not be examined\n" in result.stdout


def test_what_no_pipeline_loads_is_named_and_changes_no_answer(package: Path, tmp_path: Path) -> None:
    save(tmp_path / "up/m.safetensors", network())
    (tmp_path / "up/checkpoint-1").mkdir()
    (tmp_path / "up/checkpoint-1/optimizer.bin").write_bytes(pickle.dumps({"state": {}, "param_groups": []}))
    result = call(tmp_path / "up", package)
    assert result.exit_code == 0
    assert "Left aside, as no pipeline loads it:\n  checkpoint-1/optimizer.bin: the state of a" in result.stdout


def test_a_crash_is_exit_3(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("publisher.auditing.read_upload", lambda _path: 1 / 0)
    result = call(save(tmp_path / "m.safetensors", network()), package)
    assert (result.exit_code, result.stdout) == (3, "")


def test_another_architecture_is_exit_4(package: Path, tmp_path: Path) -> None:
    result = call(save(tmp_path / "m.safetensors", {"a.weight": network()[K]}), package)
    assert result.exit_code == 4
    assert "  not comparable: has 0 of the 6 published names and shapes" in result.stdout


def test_a_package_without_a_mask_is_exit_4(package: Path, tmp_path: Path) -> None:
    base = write_pipeline(tmp_path / "base", network())
    other = write_package(tmp_path / "package", base, package.parent / "a.key", {})
    result = CliRunner().invoke(
        main, ["audit", str(base), "--against", str(other), "--key", str(package.parent / "a.pub")]
    )
    assert (result.exit_code, result.stdout) == (4, "")
    assert "the package has no freeze mask" in result.stderr


def test_a_package_that_does_not_verify_is_exit_1(package: Path, tmp_path: Path) -> None:
    keys.generate(tmp_path / "b.key", tmp_path / "b.pub", None)
    result = CliRunner().invoke(
        main, ["audit", str(package), "--against", str(package), "--key", str(tmp_path / "b.pub")]
    )
    assert (result.exit_code, result.stdout) == (1, "")
    assert "V004" in result.stderr


def test_parts_that_changed_are_shown_as_information(package: Path, tmp_path: Path) -> None:
    upload = write_pipeline(tmp_path / "up", network())
    save(upload / "vae/diffusion_pytorch_model.safetensors", {"decoder.weight": network()[f"{TO_V}.weight"]})
    result = call(upload, package)
    assert result.exit_code == 0
    assert "Other parts, of which a mask does not speak:\n  vae: changed: 1 tensor\n" in result.stdout
