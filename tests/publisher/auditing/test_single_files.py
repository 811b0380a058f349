"""Audits of one-file checkpoints: LDM and kohya names, their other parts, eight bits, and packed numbers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from publisher.auditing import audit
from publisher.cli import main
from publisher.exporting import export
from support.auditing import TO_K, Check, K, V, network, reasons, save, statuses
from support.single_files import HELD, HELD_IN_ONE, Released, release

LDM_HELD = "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight"
FUSED = "conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight"
QUERY = "first_stage_model.decoder.mid.attn_1.q.weight"


@pytest.fixture(scope="module")
def xl(tmp_path_factory: pytest.TempPathFactory) -> Released:
    return release(tmp_path_factory.mktemp("audit-xl"), "xl")


@pytest.fixture(scope="module")
def single(xl: Released) -> dict[str, torch.Tensor]:
    """The package as one file."""
    return load_file(export(xl.folder, xl.folder.with_name("single.safetensors"), xl.key).path)


# Names


def test_a_change_under_its_other_name_is_found(xl: Released, single: dict[str, torch.Tensor], tmp_path: Path) -> None:
    found = audit(save(tmp_path / "m.safetensors", {**single, LDM_HELD: single[LDM_HELD] * 2}), *xl)
    assert found.verdict == "does-not-comply"
    (broken,) = found.weights[0].violations
    assert (broken.name, broken.status) == (HELD, "changed")


@pytest.mark.parametrize("prefix", ["", "diffusion_model."])
def test_a_u_net_alone_is_compared_under_every_prefix(
    xl: Released, single: dict[str, torch.Tensor], tmp_path: Path, prefix: str
) -> None:
    start = "model.diffusion_model."
    unet = {prefix + name.removeprefix(start): one for name, one in single.items() if name.startswith(start)}
    unet["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(32)
    found = audit(save(tmp_path / "unet.safetensors", unet), *xl)
    assert (found.verdict, found.components, found.weights[0].unexpected) == ("complies", (), ())


def test_adapters_in_kohyas_names_of_one_file_checkpoints_are_on_their_layers(xl: Released, tmp_path: Path) -> None:
    stem = LDM_HELD.removesuffix(".weight")
    kohya = stem.replace("model.diffusion_model.", "lora_unet_").replace(".", "_")
    comfy = stem.replace("model.diffusion_model.", "diffusion_model.")
    layer = (HELD.removesuffix(".weight"),)
    for keys in ((f"{kohya}.lora_down.weight", f"{kohya}.alpha"), (f"{comfy}.lora_A.weight",)):
        upload = save(tmp_path / "lora.safetensors", {key: torch.ones(4, 4) for key in keys})
        found = audit(upload, *xl)
        assert (found.verdict, found.adapters[0].frozen_layers) == ("does-not-comply", layer)


def test_the_other_parts_in_a_file_are_compared_in_their_own_shapes(
    xl: Released, single: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    assert single[QUERY].shape == (8, 8, 1, 1)
    changed = {FUSED: single[FUSED].clone(), QUERY: single[QUERY][..., 0, 0]}
    changed[FUSED][-1] += 1
    tensors = {name: one for name, one in {**single, **changed}.items() if "embedders.0" not in name}
    found = audit(save(tmp_path / "m.safetensors", tensors), *xl)
    states = {one.name: (one.state, one.tensors_changed) for one in found.components}
    assert states == {"vae": ("same", 0), "text_encoder_2": ("changed", 1)}
    assert found.verdict == "complies"


def test_a_file_beside_a_pipeline_is_a_set_of_its_own(
    xl: Released, single: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(xl.folder.with_name("base"), tmp_path / "upload"))
    save(folder / "single.safetensors", {**single, LDM_HELD: single[LDM_HELD] * 2})
    found = audit(folder, *xl)
    assert found.verdict == "does-not-comply"
    assert [one.name for one in found.components if one.name.startswith("single")] == [
        f"single.safetensors: {part}" for part in ("vae", "text_encoder", "text_encoder_2")
    ]


def test_a_second_averaged_set_of_weights_withholds_the_answer(
    xl: Released, single: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    averaged = {"model_ema.diffusion_modelinput_blocks00weight": torch.ones(3), "model_ema.decay": torch.ones(1)}
    found = audit(save(tmp_path / "m.safetensors", single | averaged), *xl)
    assert found.verdict == "undecided"
    assert "a second set of weights" in reasons(found)["m.safetensors"]


# Transformers: several tensors in one


QKV = "double_blocks.0.img_attn.qkv.weight"


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> Released:
    return release(tmp_path_factory.mktemp("audit-flux"), "flux-1")


@pytest.fixture(scope="module")
def in_one(flux: Released) -> dict[str, torch.Tensor]:
    """The transformer of FLUX.1 as one file."""
    return load_file(export(flux.folder, flux.folder.with_name("single.safetensors"), flux.key).path)


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "diffusion_model."])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn])
def test_a_transformer_is_compared_under_every_prefix_and_in_eight_bits(
    flux: Released, in_one: dict[str, torch.Tensor], tmp_path: Path, prefix: str, dtype: torch.dtype
) -> None:
    tensors = {prefix + name: one.to(dtype) for name, one in in_one.items()}
    found = audit(save(tmp_path / "m.safetensors", tensors), *flux)
    (weights,) = found.weights
    kind = {torch.float32: None, torch.bfloat16: "BF16", torch.float8_e4m3fn: "F8_E4M3"}[dtype]
    assert (found.verdict, weights.unexpected, weights.free.changed, weights.free.missing) == ("complies", (), 0, 0)
    assert [(one.name, one.cast or None) for one in weights.frozen] == [(HELD_IN_ONE, kind)]


def test_a_change_of_some_rows_is_one_of_their_own_tensor(
    flux: Released, in_one: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    rows = in_one[QKV].shape[0] // 3
    last = "final_layer.adaLN_modulation.1.weight"
    for start, verdict in ((0, "complies"), (rows, "does-not-comply"), (2 * rows, "complies")):
        changed = in_one[QKV].clone()
        changed[start] += 1
        found = audit(save(tmp_path / "m.safetensors", {**in_one, QKV: changed}), *flux)
        assert (found.verdict, found.weights[0].free.changed) == (verdict, int(verdict == "complies"))
    half = torch.cat(in_one[last].chunk(2)[::-1])
    assert audit(save(tmp_path / "m.safetensors", {**in_one, last: half}), *flux).weights[0].free.changed == 1


def test_a_file_whose_original_names_are_not_known_is_said_so(tmp_path: Path) -> None:
    pixart = release(tmp_path / "released", "pixart")
    own = load_file(pixart.folder / "transformer" / "diffusion_pytorch_model.safetensors")
    assert audit(save(tmp_path / "own.safetensors", own), *pixart).verdict == "complies"
    renamed = {
        name.replace("transformer_blocks.", "blocks.").replace("attn1", "attn"): one for name, one in own.items()
    }
    found = audit(save(tmp_path / "renamed.safetensors", renamed), *pixart)
    assert found.verdict == "not-comparable"
    assert "single file of PixArtTransformer2DModel under its original names cannot" in found.weights[0].reason


def test_a_file_of_another_width_has_other_shapes_and_no_crash(
    flux: Released, in_one: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    found = audit(save(tmp_path / "m.safetensors", {name: one[:4] for name, one in in_one.items()}), *flux)
    assert found.verdict == "not-comparable"


@pytest.mark.parametrize(
    ("layer", "frozen"),
    [
        ("lora_unet_double_blocks_0_img_attn_qkv", True),
        ("diffusion_model.double_blocks.0.img_attn.qkv", True),
        ("transformer.transformer_blocks.0.attn.to_k", True),
        ("lora_unet_double_blocks_0_txt_attn_qkv", False),
        ("lora_unet_single_blocks_0_linear1", False),
        ("transformer.transformer_blocks.0.attn.to_q", False),
    ],
)
def test_an_adapter_of_a_fused_layer_acts_on_all_that_is_in_it(
    flux: Released, tmp_path: Path, layer: str, *, frozen: bool
) -> None:
    pair = ("lora_down", "lora_up") if layer.startswith("lora_unet") else ("lora_A", "lora_B")
    upload = save(tmp_path / "lora.safetensors", {f"{layer}.{one}.weight": torch.ones(4, 4) for one in pair})
    found = audit(upload, *flux)
    assert found.verdict == ("does-not-comply" if frozen else "complies")
    assert found.adapters[0].frozen_layers == ((HELD_IN_ONE.removesuffix(".weight"),) if frozen else ())


# Eight bits


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("first", [torch.float32, torch.float16, torch.bfloat16])
def test_eight_bits_are_a_cast_of_the_published_tensor(
    check: Check, tmp_path: Path, dtype: torch.dtype, first: torch.dtype
) -> None:
    found = check(save(tmp_path / "m.safetensors", {name: one.to(first).to(dtype) for name, one in network().items()}))
    assert found.verdict == "complies"
    kind = {torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2"}[dtype]
    assert {(one.status, one.cast) for one in found.weights[0].frozen} == {("cast", kind)}
    assert found.weights[0].dtypes == {f"F32 as {kind}": len(network())}


def test_a_change_and_another_name_are_seen_in_eight_bits(check: Check, tmp_path: Path) -> None:
    eight = {name: one.to(torch.float8_e4m3fn) for name, one in network().items()}
    upload = save(tmp_path / "m.safetensors", {**eight, K: (network()[K] * 1.5).to(torch.float8_e4m3fn)})
    (broken,) = check(upload).weights[0].violations
    assert broken.change is not None
    assert (broken.name, broken.change.rank) == (K, None)
    assert broken.change.relative == pytest.approx(0.5, abs=0.05)
    assert statuses(check(save(upload, {**eight, K: eight[V].clone(), "other": eight[K]})))[K] == "renamed"


def test_a_large_number_may_be_cut_off_and_nothing_else(check: Check, tmp_path: Path) -> None:
    from publisher.safeguards.freeze_mask.audit.equality import cast_of

    own = torch.tensor([[1e4, 0.3], [-0.2, 0.1]])
    cut = own.clamp(-448, 448).to(torch.float8_e4m3fn)
    assert cast_of(own, cut) == cast_of(own, own.to(torch.float8_e4m3fn)) == "F8_E4M3"
    assert cast_of(own, own.clamp(-400, 400).to(torch.float8_e4m3fn)) is None


# Packed numbers


@pytest.mark.parametrize(
    "key", [f"{K}.absmax", f"{K}.quant_state.bitsandbytes__nf4", f"{TO_K}.SCB", f"{TO_K}.scale_weight", "scaled_fp8"]
)
def test_packed_numbers_cannot_be_examined(check: Check, tmp_path: Path, key: str) -> None:
    packed = {**network(), K: torch.ones(1536, 1, dtype=torch.uint8), key: torch.ones(4)}
    found = check(save(tmp_path / "m.safetensors", packed))
    assert found.verdict == "not-comparable"
    assert found.weights[0].reason == f"cannot be examined: its numbers are packed, and {key!r} tells how"


def test_a_gguf_file_cannot_be_examined_and_is_exit_code_4(signed: tuple[Path, Path, Path], tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF\3\0\0\0" + bytes(64))
    line = ["audit", str(tmp_path / "m.gguf"), "--against", str(signed[0]), "--key", str(signed[1])]
    result = CliRunner().invoke(main, line)
    assert result.exit_code == 4
    why = "cannot be examined: it is a GGUF file, whose numbers are packed"
    assert f"m.gguf\n  not comparable: {why}\n" in result.stdout
