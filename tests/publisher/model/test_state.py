"""A base and a chain of deltas behave as one model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from publisher.api import Anatomy
from publisher.model.digest import sha256_file
from publisher.model.folder import ModelFolder
from publisher.model.state import Delta, State

KEY, VALUE = "attn2.to_k.weight", "attn2.to_v.weight"


def delta(folder: Path, **tensors: torch.Tensor) -> Delta:
    folder.mkdir()
    save_file(dict(tensors), folder / "unet.safetensors")
    return Delta.of(folder, {"unet": sha256_file(folder / "unet.safetensors")})


@pytest.fixture
def base(toy: Path, anatomy: Anatomy, tmp_path: Path) -> State:
    return State(ModelFolder(toy, anatomy), (), tmp_path / "states")


def test_the_last_delta_wins_and_the_base_shows_through(base: State, tmp_path: Path) -> None:
    one = base.after(delta(tmp_path / "d1", **{KEY: torch.full((4, 4), 1.0), VALUE: torch.full((4, 4), 2.0)}))
    two = one.after(delta(tmp_path / "d2", **{KEY: torch.full((4, 4), 3.0)}))
    assert two.read("unet", KEY)[0, 0] == 3
    assert two.read("unet", VALUE)[0, 0] == 2
    assert torch.equal(two.read("unet", "bias"), torch.zeros(4))
    assert torch.equal(base.read("unet", KEY), torch.eye(4))


def test_an_unknown_tensor_is_a_key_error(base: State) -> None:
    with pytest.raises(KeyError, match="no tensor 'nothing'"):
        base.read("unet", "nothing")


def test_the_folder_of_a_state_is_a_whole_model_and_the_base_stays(base: State, tmp_path: Path) -> None:
    before = {name: path.read_bytes() for name, path in base.base.files.items()}
    state = base.after(delta(tmp_path / "d1", **{KEY: torch.full((4, 4), 5.0)}))
    found = load_file(state.folder / "unet" / "diffusion_pytorch_model.safetensors")
    assert found[KEY][0, 0] == 5
    assert torch.equal(found["bias"], torch.zeros(4))
    assert {name: (state.folder / name).exists() for name in before} == dict.fromkeys(before, True)
    assert {name: path.read_bytes() for name, path in base.base.files.items()} == before
    assert base.folder == base.base.path


def test_a_folder_left_by_an_earlier_run_is_not_trusted(base: State, tmp_path: Path) -> None:
    change = delta(tmp_path / "d1", **{KEY: torch.full((4, 4), 5.0)})
    edited = base.after(change).folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({KEY: torch.zeros(4, 4)}, edited)
    again = base.after(change).folder / "unet" / "diffusion_pytorch_model.safetensors"
    assert load_file(again)[KEY][0, 0] == 5


def test_digests_name_the_content_of_the_chain(base: State, tmp_path: Path) -> None:
    one = base.after(delta(tmp_path / "d1", **{KEY: torch.ones(4, 4)}))
    same = base.after(delta(tmp_path / "d2", **{KEY: torch.ones(4, 4)}))
    other = base.after(delta(tmp_path / "d3", **{KEY: torch.zeros(4, 4)}))
    assert one.digest == same.digest
    assert len({base.digest, one.digest, other.digest}) == 3
