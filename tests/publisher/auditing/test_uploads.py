"""Audits of whatever else an upload may hold: what training leaves behind, and hostile files."""

from __future__ import annotations

import json
import os
import pickle
import random
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from publisher.auditing import Auditor
from publisher.errors import UsageError
from support.auditing import (
    TO_V,
    UNET,
    Check,
    K,
    merged,
    network,
    reasons,
    save,
    trained,
)

# What training leaves behind


def leave_logs(folder: Path) -> None:
    """Write what the example scripts, accelerate, TensorBoard and a model hub put into an output folder."""
    event = b"\x09" + bytes(8) + b"\x10\x01"
    record = struct.pack("<QI", len(event), 7) + event + bytes(4)
    files = {
        "logs/run/events.out.tfevents.1764280000.host.4242.0": record * 3 + record[:9],
        "logs/run/hparams.yml": b"lr: 1e-4\n",
        "run.log": b"\x1b[32m 10%\x1b[0m\r 20%\n",
        "README.md": "Ünï".encode(),
        "LICENSE": "§ 1".encode("latin-1"),
        "notes.txt": "log".encode("utf-16"),
        "image_0.png": b"\x89PNG\r\n\x1a\n\0",
        "photo.JPG": b"\xff\xd8\xff\xe0\0",
        "clip.mp4": b"\0\0\0\x20ftypisom\0",
        "data.parquet": b"PAR1\x15\x04\0PAR1",
        ".gitattributes": b"*.safetensors filter=lfs\n",
        ".DS_Store": b"\0\0\0\1Bud1\0",
        "spiece.model": b"\x0a\x0e\x0a\x05<unk>\x15\0\0\0\0\x18\2\x12\2\x18\1",
        ".cache/huggingface/download/a.metadata": b"0\n",
    }
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / "latest.log").symlink_to("run.log")


def leave_checkpoint(folder: Path) -> Path:
    """Write what accelerate saves of an optimizer, a schedule and generators."""
    layer = torch.nn.Linear(3, 3)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(3)).sum().backward()
    optimizer.step()
    folder.mkdir(parents=True)
    torch.save(optimizer.state_dict(), folder / "optimizer.bin")
    torch.save({"base_lrs": [0.1], "last_epoch": 3}, folder / "scheduler.bin")
    torch.save({"random_state": random.getstate(), "torch": torch.get_rng_state()}, folder / "random_states_0.pkl")
    return folder


def test_the_output_folder_of_a_training_is_decided(pipeline: Path, check: Check) -> None:
    leave_logs(pipeline)
    state = leave_checkpoint(pipeline / "checkpoint-500")
    save(state / "unet/diffusion_pytorch_model.safetensors", trained())
    save(state / "vae/diffusion_pytorch_model.safetensors", {"decoder.weight": torch.ones(4, 4)})
    found = check(pipeline)
    assert reasons(found) == {}
    assert found.verdict == "complies"
    assert [weights.files[0] for weights in found.weights] == [f"checkpoint-500/{UNET}", UNET]
    names = ("optimizer.bin", "random_states_0.pkl", "scheduler.bin")
    assert [one.path for one in found.aside] == [f"checkpoint-500/{name}" for name in names]
    save(state / "unet/diffusion_pytorch_model.safetensors", merged(network(), (K,), 2))
    assert check(pipeline).verdict == "does-not-comply"


def test_weights_under_the_name_of_an_optimizer_are_not_left_aside(pipeline: Path, check: Check) -> None:
    state = leave_checkpoint(pipeline / "checkpoint-500")
    torch.save(network(), state / "optimizer.bin")
    found = check(pipeline)
    assert (found.verdict, list(reasons(found))) == ("undecided", ["checkpoint-500/optimizer.bin"])


def test_the_store_of_git_is_left_aside_and_a_folder_of_that_name_is_not(pipeline: Path, check: Check) -> None:
    (pipeline / ".git/objects").mkdir(parents=True)
    (pipeline / ".git/objects/pack").write_bytes(b"PACK\0\0")
    assert list(reasons(check(pipeline))) == [".git/objects/pack"]
    (pipeline / ".git/HEAD").write_text("ref: refs/heads/main\n")
    found = check(pipeline)
    assert (found.verdict, [one.path for one in found.aside]) == ("complies", [".git/"])


# What may hold weights


@pytest.mark.parametrize("name", ["weights", ".hidden", "unet/.cache/x.txt", "tokenizer.model"])
def test_what_was_not_looked_at_is_named_and_then_it_is_undecided(pipeline: Path, check: Check, name: str) -> None:
    (pipeline / name).parent.mkdir(exist_ok=True)
    (pipeline / name).write_bytes(pickle.dumps(1))
    found = check(pipeline)
    assert (found.verdict, list(reasons(found))) == ("undecided", [name])


def test_packed_weights_beside_good_ones_leave_it_undecided(pipeline: Path, check: Check) -> None:
    (pipeline / "x.gguf").write_bytes(b"GGUF\3\0\0\0")
    found = check(pipeline)
    assert (found.verdict, [one.comparable for one in found.weights]) == ("undecided", [False, True])


def test_weights_without_a_suffix_are_compared(pipeline: Path, check: Check) -> None:
    save(pipeline / "unet/.backup", merged(network(), (K,), 2))
    found = check(pipeline)
    assert (found.verdict, found.weights[0].files) == ("does-not-comply", ("unet/.backup",))


def test_a_pointer_of_git_lfs_is_told_from_a_file(pipeline: Path, check: Check) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    for name in ("unet/model.bin", "image.png"):
        (pipeline / name).write_text(pointer)
    found = check(pipeline)
    assert (found.verdict, list(reasons(found))) == ("undecided", ["unet/model.bin"])
    assert "Git LFS pointer in place of the file: run 'git lfs pull'" in reasons(found)["unet/model.bin"]


# Hostile files


class Exploit:
    """Runs a command when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.witness}",)


@pytest.mark.parametrize("name", ["unet/diffusion_pytorch_model.bin", "unet/x.safetensors", "learned_embeds.pt"])
def test_a_pickle_is_never_opened_and_never_waved_through(
    pipeline: Path, tmp_path: Path, check: Check, name: str
) -> None:
    (pipeline / name).write_bytes(pickle.dumps(Exploit(tmp_path / "witness")))
    found = check(pipeline)
    assert found.verdict == "undecided"
    assert name in reasons(found)
    assert not (tmp_path / "witness").exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        struct.pack("<Q", 1 << 40) + b"{}",
        struct.pack("<Q", 2) + b"{}" + b"x",
        struct.pack("<Q", 60) + b'{"../x":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}   ',
    ],
    ids=["empty", "header bomb", "extended", "path in a name"],
)
def test_a_malformed_file_is_refused(pipeline: Path, check: Check, data: bytes) -> None:
    (pipeline / UNET).write_bytes(data)
    found = check(pipeline)
    assert found.verdict == "undecided"
    assert "no well-formed safetensors file" in reasons(found)[UNET]


def test_a_violation_is_one_whatever_else_cannot_be_examined(pipeline: Path, check: Check) -> None:
    save(pipeline / UNET, merged(network(), (K,), 2))
    (pipeline / "unet/more.bin").write_bytes(b"x")
    assert check(pipeline).verdict == "does-not-comply"


def test_links_are_not_followed(pipeline: Path, tmp_path: Path, check: Check) -> None:
    secret = save(tmp_path / "secret.safetensors", network())
    (pipeline / UNET).unlink()
    (pipeline / UNET).symlink_to(secret)
    assert UNET in reasons(check(pipeline))
    link = tmp_path / "link.safetensors"
    link.symlink_to(secret)
    with pytest.raises(UsageError, match="is a link"):
        check(link)


def test_an_index_that_leads_outside_is_refused(pipeline: Path, check: Check) -> None:
    index = {"weight_map": {K: "../../outside.safetensors"}}
    (pipeline / "unet/diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    found = check(pipeline)
    assert (found.verdict, list(reasons(found))) == (
        "undecided",
        ["unet/diffusion_pytorch_model.safetensors.index.json"],
    )


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("unet/config.json", '{"auto_map": {"AutoModel": "evil.Model"}}', "loads code"),
        ("model_index.json", '{"_class_name": "P", "unet": ["evil", "UNet"]}', "no class of diffusers"),
        ("pipeline.py", "import os", "program code"),
        ("vae/config.json", '{"a": 1, "a": 2}', "key twice"),
    ],
    ids=["auto_map", "foreign class", "script", "duplicate key"],
)
def test_code_is_neither_run_nor_waved_through(pipeline: Path, check: Check, name: str, text: str, reason: str) -> None:
    (pipeline / name).write_text(text)
    found = check(pipeline)
    assert found.verdict == "undecided"
    assert reason in reasons(found)[name]


def test_nan_in_a_free_tensor_is_refused(tmp_path: Path, check: Check) -> None:
    found = check(save(tmp_path / "m.safetensors", trained(**{f"{TO_V}.bias": torch.full((48,), torch.nan)})))
    assert found.verdict == "undecided"
    assert "NaN" in reasons(found)["m.safetensors"]


def test_a_tensor_in_two_shards_or_under_two_names_is_refused(tmp_path: Path, check: Check) -> None:
    save(tmp_path / "two/model-00001-of-00002.safetensors", network())
    save(tmp_path / "two/model-00002-of-00002.safetensors", {K: network()[K] + 1})
    assert check(tmp_path / "two").unexamined
    save(tmp_path / "names/m.safetensors", {**network(), f"unet.{K}": network()[K] + 1})
    assert "two tensors that stand for" in reasons(check(tmp_path / "names"))["m.safetensors"]


def test_a_file_that_changes_meanwhile_is_noticed(
    pipeline: Path, check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Auditor.run

    def swap(auditor: Auditor) -> None:
        run(auditor)
        save_file(merged(network(), (K,), 2), pipeline / UNET)

    monkeypatch.setattr(Auditor, "run", swap)
    found = check(pipeline)
    assert found.verdict == "undecided"
    assert UNET in reasons(found)
