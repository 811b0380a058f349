"""Membranes in the weights, and the same numbers as a LoRA of diffusers."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from publisher.api import ModelError, UsageError
from publisher.api.membranes import (
    Host,
    Membrane,
    MembraneEntry,
    MembraneFileError,
    find_hosts,
    membrane_bytes,
    weight_change,
)
from publisher.model.folder import ModelFolder, read_configs
from publisher.safeguards.membranes.lora import Portion, fixed_strength, lora_bytes, read_lora
from publisher.safeguards.membranes.merging import merge
from publisher_emoji import model_folder
from support.membrane_files import SD1, Headers, random_membrane

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
GAMMAS = (1.0, 0.5, 2.0)


def opened(folder: Path) -> ModelFolder:
    from publisher.registry import load_registry

    configs = read_configs(folder)
    return ModelFolder(folder, load_registry().recognise(configs, str(folder))[1], configs)


def portion(membrane: Membrane, gamma: float = 1.0) -> Portion:
    return Portion(Path("gun.safetensors"), membrane, hashlib.sha256(membrane_bytes(membrane)).hexdigest(), gamma)


@pytest.fixture(scope="module")
def base() -> ModelFolder:
    return opened(model_folder())


@pytest.fixture(scope="module")
def hosts(base: ModelFolder) -> dict[str, Host]:
    return find_hosts(base)


@pytest.fixture(scope="module")
def portions(hosts: dict[str, Host]) -> list[Portion]:
    ranks = ((1, 1.0), (4, 1.0), (2, 3.0))
    return [
        portion(random_membrane(hosts, seed, rank, alpha), gamma)
        for seed, ((rank, alpha), gamma) in enumerate(zip(ranks, GAMMAS, strict=True))
    ]


@pytest.fixture(scope="module")
def merged(base: ModelFolder, portions: list[Portion], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model with three membranes in its weights. Do not change it."""
    out = tmp_path_factory.mktemp("merged") / "model"
    merge(base, portions, out)
    return out


def snapshot(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def test_the_merged_weights_are_the_exact_sum_rounded_once(
    hosts: dict[str, Host], portions: list[Portion], merged: Path
) -> None:
    old, new = load_file(model_folder() / WEIGHTS), load_file(merged / WEIGHTS)
    assert old.keys() == new.keys()
    touched = {f"{host.module}.weight": stem for stem, host in hosts.items()}
    for name, weight in old.items():
        expected = weight
        if name in touched:
            change = torch.zeros(weight.shape, dtype=torch.float64)
            for one in portions:  # each alone: nothing but their sum
                branch = one.membrane.branches[touched[name]]
                change += one.gamma * branch.scale * (branch.up.double() @ branch.down.double()).reshape(weight.shape)
            expected = (weight.double() + change).to(weight.dtype)
        assert new[name].dtype == weight.dtype
        assert torch.equal(new[name], expected), name


def test_everything_else_is_copied_and_the_base_is_not_written(base: ModelFolder, merged: Path) -> None:
    before = snapshot(base.path)
    after = snapshot(merged)
    assert set(after) == set(base.files)
    assert {name for name in after if after[name] != before[name]} == {WEIGHTS}
    assert base.digests[WEIGHTS] == hashlib.sha256(before[WEIGHTS]).hexdigest()


def test_the_order_of_the_membranes_does_not_matter_and_the_bytes_repeat(
    base: ModelFolder, portions: list[Portion], merged: Path, tmp_path: Path
) -> None:
    merge(base, portions, tmp_path / "again")
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == (merged / WEIGHTS).read_bytes()
    merge(base, portions[::-1], tmp_path / "backwards")
    backwards, forwards = load_file(tmp_path / "backwards" / WEIGHTS), load_file(merged / WEIGHTS)
    assert all(torch.allclose(backwards[name], weight, atol=1e-7) for name, weight in forwards.items())


def test_merging_reports_its_size(base: ModelFolder, portions: list[Portion], tmp_path: Path) -> None:
    done = merge(base, portions, tmp_path / "out")
    assert done.tensors == 84
    assert 0.05 < done.change < 1
    assert done.lost < 1e-5
    assert done.left_out == ()


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """The embedded model with its denoiser in two shards, stored as float16."""
    folder = tmp_path / "sharded"
    shutil.copytree(model_folder(), folder)
    tensors = {name: tensor.half() for name, tensor in load_file(folder / WEIGHTS).items()}
    (folder / WEIGHTS).unlink()
    names = sorted(tensors)
    files = [f"diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    shards = {files[0]: names[::2], files[1]: names[1::2]}
    for file, part in shards.items():
        save_file({name: tensors[name] for name in part}, folder / "unet" / file, {"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, part in shards.items() for name in part}}
    (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def test_shards_are_merged_each_in_its_place_and_dtype(
    sharded: Path, hosts: dict[str, Host], portions: list[Portion], tmp_path: Path
) -> None:
    done = merge(opened(sharded), portions, tmp_path / "out")
    assert done.tensors == 84
    assert 1e-5 < done.lost < 0.1
    for file in sorted(path.name for path in (sharded / "unet").glob("*.safetensors")):
        old, new = load_file(sharded / "unet" / file), load_file(tmp_path / "out" / "unet" / file)
        assert old.keys() == new.keys()
        for stem, host in hosts.items():
            name = f"{host.module}.weight"
            if name in old:
                pairs = [(one.gamma, one.membrane.branches[stem]) for one in portions]
                expected = (old[name].double() + weight_change(pairs, host.shape)).half()
                assert torch.equal(new[name], expected)


def sd1(_membrane: Membrane) -> Membrane:
    return random_membrane(find_hosts(Headers(SD1)))


def huge(membrane: Membrane) -> Membrane:
    stem = next(iter(membrane.branches))
    branch = membrane.branches[stem]
    return replace(membrane, branches={stem: replace(branch, up=branch.up.double() * 1e200)})


@pytest.mark.parametrize(
    ("change", "message"), [(sd1, "does not fit this model"), (huge, "NaN or infinity, or gets too large for F32")]
)
def test_what_cannot_be_merged_leaves_nothing_behind(
    change: Callable[[Membrane], Membrane], message: str, base: ModelFolder, hosts: dict[str, Host], tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=message):
        merge(base, [portion(change(random_membrane(hosts)))], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_and_one_inside_the_model_are_refused(hosts: dict[str, Host], tmp_path: Path) -> None:
    shutil.copytree(model_folder(), tmp_path / "model")
    one = [portion(random_membrane(hosts))]
    (tmp_path / "out").mkdir()
    before = snapshot(tmp_path)
    for out, message in ((tmp_path / "out", "is there already"), (tmp_path / "model" / "x", "lies inside the model")):
        with pytest.raises(UsageError, match=message):
            merge(opened(tmp_path / "model"), one, out)
    assert snapshot(tmp_path) == before


# diffusers


def outputs(unet: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    latents, text = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 32, 128, generator=generator)
    with torch.no_grad():
        found: torch.Tensor = unet(latents, torch.tensor([900, 300]), encoder_hidden_states=text).sample
    return found


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.fixture(scope="module")
def merged_outputs(merged: Path) -> torch.Tensor:
    from diffusers import UNet2DConditionModel

    return outputs(UNet2DConditionModel.from_pretrained(merged, subfolder="unet"))


@pytest.mark.parametrize("form", ["kohya", "diffusers"])
def test_diffusers_generates_the_same_with_the_lora_as_with_the_merged_weights(
    form: Any, portions: list[Portion], hosts: dict[str, Host], merged_outputs: torch.Tensor, tmp_path: Path
) -> None:
    from publisher_emoji.generate import load_pipeline

    path = tmp_path / "lora.safetensors"
    path.write_bytes(lora_bytes(fixed_strength(portions), form, torch.float32, hosts))
    pipeline = load_pipeline()
    plain = outputs(pipeline.unet)
    pipeline.load_lora_weights(tmp_path, weight_name=path.name)
    assert distance(outputs(pipeline.unet), merged_outputs) < 1e-6
    assert distance(plain, merged_outputs) > 0.01
    pipeline.unload_lora_weights()
    assert torch.equal(outputs(pipeline.unet), plain)


@pytest.mark.filterwarnings("ignore:Already found a .peft_config. attribute:UserWarning")  # of peft, on two files
def test_adapter_weights_are_permeabilities(
    portions: list[Portion], merged_outputs: torch.Tensor, tmp_path: Path
) -> None:
    from publisher_emoji.generate import load_pipeline

    pipeline = load_pipeline()
    for number, one in enumerate(portions):
        (tmp_path / f"m{number}.safetensors").write_bytes(membrane_bytes(one.membrane))
        pipeline.load_lora_weights(tmp_path, weight_name=f"m{number}.safetensors", adapter_name=f"m{number}")
    pipeline.set_adapters(["m0", "m1", "m2"], list(GAMMAS))
    assert distance(outputs(pipeline.unet), merged_outputs) < 1e-6


def test_the_runtime_at_these_permeabilities_generates_the_same(
    portions: list[Portion], merged_outputs: torch.Tensor
) -> None:
    from publisher.safeguards.membranes.attached import attach
    from publisher_emoji.generate import load_pipeline

    pipeline = load_pipeline()
    plain = outputs(pipeline.unet)
    members = [(entry(f"m{number}"), one.membrane) for number, one in enumerate(portions)]
    with attach(pipeline, members) as attached, attached.at(dict(zip(attached.concepts, GAMMAS, strict=True))):
        assert distance(outputs(pipeline.unet), merged_outputs) < 1e-6
    assert torch.equal(outputs(pipeline.unet), plain)


def entry(concept: str) -> MembraneEntry:
    return MembraneEntry(
        concept=concept, file=f"{concept}.safetensors", sha256="0" * 64, words=(concept,), texts=(concept,), rank=1
    )


def test_converting_there_and_back_keeps_every_number_the_prompts_and_the_bytes(
    hosts: dict[str, Host], tmp_path: Path
) -> None:
    membrane = replace(
        random_membrane(hosts, rank=2, alpha=2.0, prompts=("gun, small", "cat")), metadata={"base_model": "ab"}
    )
    there, back = tmp_path / "there.safetensors", tmp_path / "back.safetensors"
    there.write_bytes(lora_bytes(membrane, "diffusers", torch.float32, hosts))
    names = set(load_file(there))
    assert "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0.lora_B.weight" in names
    assert all(name.startswith("unet.") for name in names)
    back.write_bytes(lora_bytes(fixed_strength([portion(read_lora(there))]), "kohya", torch.float32, {}))
    assert back.read_bytes() == membrane_bytes(membrane)


@pytest.mark.parametrize("save", ["save_lora_adapter", "save_lora_weights"])
def test_what_diffusers_saved_is_read_with_its_strength(save: str, tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline
    from diffusers.training_utils import _collate_lora_metadata
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    from publisher_emoji.generate import load_pipeline

    pipeline = load_pipeline()
    config = LoraConfig(r=2, lora_alpha=3, target_modules=["to_q", "to_out.0", "proj_in"], init_lora_weights=False)
    pipeline.unet.add_adapter(config)
    expected = outputs(pipeline.unet)
    if save == "save_lora_adapter":
        pipeline.unet.save_lora_adapter(tmp_path)
    else:
        state = get_peft_model_state_dict(pipeline.unet)
        metadata = _collate_lora_metadata({"unet": pipeline.unet})
        StableDiffusionPipeline.save_lora_weights(tmp_path, unet_lora_layers=state, **metadata)
    found = read_lora(tmp_path / "pytorch_lora_weights.safetensors")
    assert {branch.scale for branch in found.branches.values()} == {1.5}
    assert found.prompts == ()
    merge(opened(model_folder()), [portion(found)], tmp_path / "out")
    from diffusers import UNet2DConditionModel

    merged = UNet2DConditionModel.from_pretrained(tmp_path / "out", subfolder="unet")
    assert distance(outputs(merged), expected) < 1e-6


KEY = "unet.mid_block.attentions.0.proj_in"


@pytest.mark.parametrize(
    ("names", "adapter", "message"),
    [
        ((f"{KEY}.lora_A.weight", "text_encoder.layers.0.q.lora_A.weight"), "{}", "no LoRA of a UNet alone"),
        ((f"{KEY}.lora_A.weight", f"{KEY}.lora_magnitude_vector"), "{}", "no LoRA of a UNet alone"),
        ((f"{KEY}.lora_A.weight",), "{}", "proj_in.lora_up.weight' is missing"),
        ((f"{KEY}.lora_A.weight", f"{KEY}.lora_B.weight"), '{"unet.use_rslora": true}', "its LoRA has use_rslora"),
        ((f"{KEY}.lora_A.weight", f"{KEY}.lora_B.weight"), '{"alpha_pattern": {"a": 2}}', "its LoRA has alpha_pattern"),
        ((f"{KEY}.lora_A.weight", f"{KEY}.lora_B.weight"), '{"lora_alpha": "1"}', "lora_alpha that is no number"),
        ((f"{KEY}.lora_A.weight", f"{KEY}.lora_B.weight"), "[]", "its lora_adapter_metadata is not a JSON object"),
    ],
)
def test_a_lora_that_is_no_membrane_is_refused_by_name(
    names: tuple[str, ...], adapter: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "lora.safetensors"
    save_file({name: torch.ones(1, 1) for name in names}, path, {"lora_adapter_metadata": adapter})
    with pytest.raises(MembraneFileError, match=message) as caught:
        read_lora(path)
    assert caught.value.where == str(path)


def test_a_lora_without_a_strength_of_its_own_has_that_of_diffusers(tmp_path: Path) -> None:
    path = tmp_path / "lora.safetensors"
    save_file({f"{KEY}.lora_A.weight": torch.ones(4, 8), f"{KEY}.lora_B.weight": torch.ones(6, 4)}, path)
    (branch,) = read_lora(path).branches.values()
    assert (branch.rank, branch.scale) == (4, 1.0)


def test_a_number_that_is_too_large_for_the_dtype_is_refused(hosts: dict[str, Host]) -> None:
    strong = fixed_strength([portion(random_membrane(hosts), 1e7)])
    with pytest.raises(MembraneFileError, match="too large for float16"):
        lora_bytes(strong, "kohya", torch.float16, {})
