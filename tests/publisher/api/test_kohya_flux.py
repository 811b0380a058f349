"""kohya's names of FLUX.1: fused layers written and read, the change of every weight the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from publisher.api.membranes import (
    Branch,
    Host,
    Membrane,
    MembraneFileError,
    fused,
    membrane_bytes,
    membrane_tensors,
    parse_membrane,
    read_membrane,
    read_sizes,
    sizes_of,
    weight_change,
)
from support.membrane_files import random_membrane

WIDTH = 3072
"""Of FLUX.1, which diffusers' converter expects."""


def hosts(width: int) -> dict[str, Host]:
    """Return the hosts of one double and one single block."""
    joint = [f"attn.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0")]
    joint += [f"attn.{name}" for name in ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")]
    shapes = {f"transformer_blocks.0.{layer}": (width, width) for layer in joint}
    for side in ("ff", "ff_context"):
        shapes[f"transformer_blocks.0.{side}.net.0.proj"] = (4 * width, width)
        shapes[f"transformer_blocks.0.{side}.net.2"] = (width, 4 * width)
    block = "single_transformer_blocks.0"
    shapes |= {f"{block}.attn.{name}": (width, width) for name in ("to_q", "to_k", "to_v")}
    shapes |= {f"{block}.proj_mlp": (4 * width, width), f"{block}.proj_out": (width, 5 * width)}
    found = [Host(module, shape, "transformer") for module, shape in sorted(shapes.items())]
    return {host.stem: host for host in found}


def assert_same_changes(found: Membrane, wanted: Membrane) -> None:
    assert list(found.branches) == list(wanted.branches)
    for stem, branch in wanted.branches.items():
        shape = (branch.up.shape[0], branch.down.shape[1])
        changes = [weight_change([(1.0, one.branches[stem])], shape) for one in (found, wanted)]
        torch.testing.assert_close(*changes, rtol=1e-6, atol=1e-9)


def test_what_is_written_fused_is_read_back_with_its_ranks(tmp_path: Path) -> None:
    membrane = random_membrane(hosts(8), rank=2, alpha=1.0)
    together = fused(membrane, {})
    assert set(together.branches) == {
        *(
            f"lora_unet_double_blocks_0_{side}_{layer}"
            for side in ("img", "txt")
            for layer in ("attn_qkv", "attn_proj")
        ),
        *(f"lora_unet_double_blocks_0_{side}_mlp_{layer}" for side in ("img", "txt") for layer in (0, 2)),
        "lora_unet_single_blocks_0_linear1",
        "lora_unet_single_blocks_0_linear2",
    }
    assert together.branches["lora_unet_single_blocks_0_linear1"].up.shape == (7 * 8, 8)
    path = tmp_path / "flux.safetensors"
    save_file(membrane_tensors(together), path)
    again = read_membrane(path)
    assert_same_changes(again, membrane)
    assert again.rank == 2
    assert read_sizes(path) == sizes_of(membrane)
    path.write_bytes(membrane_bytes(again))
    assert all(name.startswith("transformer.") for name in load_file(path))


def test_one_down_for_all_parts_is_repeated_and_written_as_one() -> None:
    down, up = torch.randn(2, 8), torch.randn(24, 2)
    stem = "lora_unet_double_blocks_3_img_attn_qkv"
    tensors = {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up, f"{stem}.alpha": torch.tensor(1.0)}
    found = parse_membrane(tensors, {}, "it")
    names = [f"transformer.transformer_blocks.3.attn.{name}" for name in ("to_k", "to_q", "to_v")]
    assert list(found.branches) == names
    assert all(torch.equal(branch.down, down) for branch in found.branches.values())
    single = Branch(torch.ones(1, 8), torch.ones(8, 1), 1.0)
    more = Membrane({**found.branches, "transformer.single_transformer_blocks.0.proj_out": single})
    again = fused(more, {}).branches[stem]
    assert (again.rank, again.scale) == (2, 1.0)
    assert torch.equal(again.up, up * 0.5)


def test_parts_without_a_branch_need_the_models_sizes() -> None:
    whole = random_membrane(hosts(8))
    left = {stem: branch for stem, branch in whole.branches.items() if not stem.endswith("attn.to_k")}
    with pytest.raises(MembraneFileError, match=r"(?s)to_k has no branch.*--model"):
        fused(Membrane(left), {})
    found = parse_membrane(membrane_tensors(fused(Membrane(left), hosts(8))), {}, "it")
    assert_same_changes(found, Membrane(left))


def test_another_family_has_no_such_names() -> None:
    branch = Branch(torch.ones(1, 8), torch.ones(8, 1), 1.0)
    with pytest.raises(MembraneFileError, match="of U-Nets and of FLUX"):
        fused(Membrane({"transformer.transformer_blocks.0.attn.to_q": branch}), {})
    with pytest.raises(MembraneFileError, match="has no such layer"):
        fused(Membrane({"transformer.single_transformer_blocks.0.norm2": branch}), {})


def test_diffusers_own_converter_reads_the_same_changes() -> None:
    from diffusers.loaders.lora_conversion_utils import _convert_kohya_flux_lora_to_diffusers

    membrane = random_membrane(hosts(WIDTH))
    theirs: dict[str, Tensor] = _convert_kohya_flux_lora_to_diffusers(membrane_tensors(fused(membrane, {})))
    factors = {name.removesuffix(".lora_A.weight") for name in theirs if name.endswith(".lora_A.weight")}
    assert factors == set(membrane.branches)
    for stem, branch in membrane.branches.items():
        x = torch.randn(branch.down.shape[1])
        down, up = theirs[f"{stem}.lora_A.weight"], theirs[f"{stem}.lora_B.weight"]
        torch.testing.assert_close(up @ (down @ x), branch.scale * branch.up @ (branch.down @ x), rtol=1e-4, atol=1e-4)
