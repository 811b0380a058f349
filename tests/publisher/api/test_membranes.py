"""Membrane files and their arithmetic."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from publisher.api import ModelError
from publisher.api.membranes import (
    Branch,
    Host,
    MembraneFileError,
    MembraneIndex,
    bundled,
    find_hosts,
    membrane_bytes,
    membrane_tensors,
    misfits,
    parse_membrane,
    parse_membrane_bytes,
    read_membrane,
    read_sizes,
    require_fit,
    sizes_of,
    weight_change,
)
from support.membrane_files import SD1, SD2, SDXL, Headers, random_membrane, save

HOSTS = {
    host.stem: host
    for host in (Host("mid_block.attentions.0.proj_in", (6, 4, 1, 1)), Host("mid_block.attentions.0.ff", (5, 4)))
}
STEM = "lora_unet_mid_block_attentions_0_ff"


@pytest.fixture(scope="module")
def sd1() -> dict[str, Host]:
    return find_hosts(Headers(SD1))


@pytest.mark.parametrize(
    ("config", "layers", "parameters"),
    [(SD1, 192, 423_936), (SD2, 192, 432_128), (SDXL, 722, 2_659_840)],
    ids=["SD1", "SD2", "SDXL"],
)
def test_the_hosts_of_the_real_architectures(config: dict[str, object], layers: int, parameters: int) -> None:
    hosts = find_hosts(Headers(config))
    assert len(hosts) == layers
    assert sum(host.shape[0] + host.shape[1] for host in hosts.values()) == parameters


def test_stems_are_those_of_the_published_files(sd1: dict[str, Host]) -> None:
    assert list(sd1) == sorted(sd1)
    assert {
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k",
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0",
        "lora_unet_mid_block_attentions_0_transformer_blocks_0_ff_net_0_proj",
        "lora_unet_up_blocks_3_attentions_2_transformer_blocks_0_ff_net_2",
        "lora_unet_up_blocks_3_attentions_2_proj_out",
    } <= set(sd1)
    assert sum(len(host.shape) == 4 for host in sd1.values()) == 32


def test_a_model_with_layers_under_other_names_is_refused() -> None:
    odd = Headers(SD1, without="mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight")
    with pytest.raises(
        ModelError, match="has 191 layers that can carry a membrane; 16 transformers of 16 blocks have 192"
    ):
        find_hosts(odd)


def test_a_file_of_the_authors_loads(sd1: dict[str, Host], tmp_path: Path) -> None:
    tensors = {}
    for stem, host in sd1.items():
        tail = host.shape[2:]
        tensors[f"{stem}.alpha"] = torch.tensor(1.0)
        tensors[f"{stem}.lora_down.weight"] = torch.ones(1, host.shape[1], *tail)
        tensors[f"{stem}.lora_up.weight"] = torch.zeros(host.shape[0], 1, *tail)
    assert len(tensors) == 576
    path = tmp_path / "snoopy_last.safetensors"
    save_file(tensors, path, {"prompts": "snoopy,charlie brown", "rank": "1", "alpha": "1.0"})
    membrane = read_membrane(path)
    assert (len(membrane.branches), membrane.parameters, membrane.rank) == (192, 423_936, 1)
    assert membrane.prompts == ("snoopy", "charlie brown")
    assert membrane.metadata == {}
    require_fit(membrane, sd1, "it")
    assert path.stat().st_size == pytest.approx(1_778_264, abs=200)
    assert read_sizes(path) == sizes_of(membrane)


def test_what_was_written_is_read_and_written_to_the_same_bytes(tmp_path: Path) -> None:
    membrane = replace(random_membrane(HOSTS, rank=2, alpha=0.5, prompts=("a",)), metadata={"base_model": "ab"})
    path = save(tmp_path / "m.safetensors", membrane)
    found = read_membrane(path)
    assert membrane_bytes(found) == path.read_bytes()
    assert parse_membrane_bytes(path.read_bytes(), "it").metadata == found.metadata == {"base_model": "ab"}
    assert [(b.alpha, b.rank, b.scale, b.conv) for b in found.branches.values()] == [
        (0.5, 2, 0.25, False),
        (0.5, 2, 0.25, True),
    ]


def test_a_file_has_the_layout_of_the_authors() -> None:
    data = membrane_bytes(random_membrane(HOSTS))
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    assert list(header) == ["__metadata__", *sorted(membrane_tensors(random_membrane(HOSTS)))]
    assert [name.removeprefix(STEM) for name in list(header)[1:4]] == [".alpha", ".lora_down.weight", ".lora_up.weight"]
    conv = "lora_unet_mid_block_attentions_0_proj_in"
    assert [header[f"{conv}.{part}"]["shape"] for part in ("alpha", "lora_down.weight", "lora_up.weight")] == [
        [],
        [1, 4, 1, 1],
        [6, 1, 1, 1],
    ]


def test_prompts_with_commas_survive_and_the_authors_code_still_reads_one_a_prompt(tmp_path: Path) -> None:
    prompts = ("gun, small", 'say "x"', "käse")
    path = save(tmp_path / "m.safetensors", random_membrane(HOSTS, prompts=prompts))
    assert read_membrane(path).prompts == prompts
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    assert metadata["prompts"].split(",") == ["gun small", 'say "x"', "käse"]
    assert (metadata["rank"], metadata["alpha"]) == ("1", "1.0")


def test_an_alpha_of_zero_means_the_rank() -> None:
    tensors = membrane_tensors(random_membrane(HOSTS, rank=3, alpha=0.0))
    assert {branch.scale for branch in parse_membrane(tensors, {}, "it").branches.values()} == {1.0}


def broken(**changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor | None] = {**membrane_tensors(random_membrane(HOSTS))}
    tensors |= {f"{STEM}.{name.replace('__', '.')}": tensor for name, tensor in changes.items()}
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "holds no tensor"),
        (broken(alpha=None), f"'{STEM}.alpha' is missing"),
        (broken(lora_up__weight=None), f"'{STEM}.lora_up.weight' is missing"),
        (broken(dora_scale=torch.ones(1)), f"'{STEM}.dora_scale' is none of its tensors"),
        (broken(lora_up__weight=torch.full((5, 1), torch.nan)), "NaN, infinity"),
        (broken(lora_down__weight=torch.full((1, 4), torch.inf)), "NaN, infinity"),
        (broken(alpha=torch.tensor(torch.nan)), "NaN, infinity"),
        (broken(alpha=torch.ones(2)), "an alpha that is no number"),
        (broken(lora_up__weight=torch.ones(5, 2)), "do not go together"),
        (broken(lora_up__weight=torch.ones(0, 1)), "do not go together"),
        (broken(lora_down__weight=torch.ones(4)), "do not go together"),
        (broken(lora_down__weight=torch.ones(1, 4, 3, 3), lora_up__weight=torch.ones(5, 1, 1, 1)), "only 1x1"),
        (broken(lora_up__weight=torch.ones(5, 1, dtype=torch.int64)), "stored as torch.int64"),
        (broken(lora_up__weight=torch.ones(5, 1).to(torch.float8_e4m3fn)), "stored as torch.float8_e4m3fn"),
        ({"lora_te_text_model_x.alpha": torch.ones(())}, "changes the text encoder too"),
        ({"unet.mid_block.x.lora_A.weight": torch.ones(1, 4)}, "publisher membranes convert"),
        ({"lora_unet_\x1b[31m.alpha": torch.ones(())}, r"'lora_unet_\x1b[31m.alpha' is none of its tensors"),
    ],
)
def test_what_is_no_membrane_is_refused_with_the_name_of_its_file(
    tensors: dict[str, torch.Tensor], message: str
) -> None:
    with pytest.raises(MembraneFileError) as caught:
        parse_membrane(tensors, {}, "bad.safetensors")
    assert str(caught.value).startswith("bad.safetensors: ")
    assert message in str(caught.value)


@pytest.mark.parametrize("prompts", ["{}", '["a", 1]', '["  "]', "[" * 100_000, "nonsense"], ids=range(5))
def test_prompts_that_are_no_list_of_texts_are_refused(prompts: str) -> None:
    with pytest.raises(MembraneFileError, match="prompts_json is no list of texts"):
        parse_membrane(broken(), {"prompts_json": prompts}, "it")


@pytest.mark.parametrize("read", [read_membrane, read_sizes])
def test_a_truncated_file_a_folder_and_no_file_are_refused_by_name(
    read: Callable[[Path], object], tmp_path: Path
) -> None:
    whole = save(tmp_path / "m.safetensors", random_membrane(HOSTS))
    (tmp_path / "cut.safetensors").write_bytes(whole.read_bytes()[:-4])
    for path in (tmp_path / "cut.safetensors", tmp_path, tmp_path / "nowhere"):
        with pytest.raises(MembraneFileError, match="cannot be read") as caught:
            read(path)
        assert caught.value.where == str(path)


def test_a_membrane_of_another_family_does_not_fit(sd1: dict[str, Host]) -> None:
    sd2 = random_membrane(find_hosts(Headers(SD2)))
    assert len(misfits(sizes_of(sd2), sd1)) == 32 + 32  # width of the text in k and v, linear projections
    with pytest.raises(MembraneFileError, match="64 of 192 layers differ") as caught:
        require_fit(sd2, sd1, "sd2.safetensors")
    assert "made for a linear layer, the model's is a convolution" in str(caught.value)
    assert "... and 61 more" in str(caught.value)
    sdxl = random_membrane(find_hosts(Headers(SDXL)))
    assert any("no such layer" in problem for problem in misfits(sizes_of(sdxl), sd1))


def test_a_membrane_may_leave_hosts_out(sd1: dict[str, Host]) -> None:
    few = random_membrane(dict(list(sd1.items())[:3]))
    require_fit(few, sd1, "few.safetensors")


def test_the_change_of_a_weight_by_hand() -> None:
    one = Branch(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0], [4.0], [5.0]]), 2.0)
    change = weight_change([(0.5, one)], (3, 2))
    assert torch.equal(change, torch.tensor([[3.0, 6.0], [4.0, 8.0], [5.0, 10.0]], dtype=torch.float64))
    assert weight_change([(0.5, one)], (3, 2, 1, 1)).shape == (3, 2, 1, 1)


def test_membranes_add_up_without_cross_terms() -> None:
    members = [
        (gamma, random_membrane(HOSTS, seed, rank, alpha))
        for seed, (gamma, rank, alpha) in enumerate([(1.0, 1, 1.0), (0.3, 4, 1.0), (2.0, 2, 8.0)])
    ]
    together = bundled(members)
    assert {(branch.rank, branch.scale) for branch in together.branches.values()} == {(7, 1.0)}
    for stem, host in HOSTS.items():
        alone = torch.zeros(host.shape, dtype=torch.float64)
        for gamma, membrane in members:
            alone += weight_change([(gamma, membrane.branches[stem])], host.shape)
        every = weight_change([(gamma, m.branches[stem]) for gamma, m in members], host.shape)
        bundle = weight_change([(1.0, together.branches[stem])], host.shape)
        assert torch.allclose(every, alone, rtol=1e-12)
        assert float((bundle - every).norm() / every.norm()) < 1e-6


def test_a_bundle_has_one_rank_and_one_alpha_where_a_membrane_leaves_a_layer_out() -> None:
    whole, part = random_membrane(HOSTS, 0), random_membrane({STEM: HOSTS[STEM]}, 1, prompts=("cat",))
    together = bundled([(1.0, whole), (1.0, part)])
    assert {(branch.rank, branch.alpha) for branch in together.branches.values()} == {(2, 2.0)}
    assert together.prompts == ("gun", "cat")
    for stem, branch in whole.branches.items():
        if stem != STEM:
            change = weight_change([(1.0, together.branches[stem])], HOSTS[stem].shape)
            assert torch.equal(change, weight_change([(1.0, branch)], HOSTS[stem].shape))


def test_membranes_of_different_models_are_not_bundled() -> None:
    other = {STEM: Host("mid_block.attentions.0.ff", (5, 8))}
    with pytest.raises(MembraneFileError, match="made for different models"):
        bundled([(1.0, random_membrane(HOSTS)), (1.0, random_membrane(other))])
    with pytest.raises(MembraneFileError, match="no membrane to bundle"):
        bundled([])


@pytest.mark.parametrize("file", ["../up.safetensors", "a/b.safetensors", "A.safetensors", ".x.safetensors", "a.bin"])
def test_an_index_names_files_beside_it_alone(file: str) -> None:
    entry = {"concept": "gun", "file": "a.safetensors", "sha256": "0" * 64, "words": ["gun"], "texts": ["gun"]}
    assert MembraneIndex.parse({"membranes": 1, "mode": "bundle", "entries": [entry | {"rank": 1}]})
    with pytest.raises(ValueError, match="file"):
        MembraneIndex.parse({"membranes": 1, "mode": "bundle", "entries": [entry | {"rank": 1, "file": file}]})
