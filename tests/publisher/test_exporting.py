"""A package as one checkpoint file: read back by diffusers, and found equal by the audit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors import safe_open
from safetensors.torch import load_file

from publisher.auditing import audit
from publisher.cli import main
from publisher.errors import ModelError, UsageError
from publisher.exporting import _PackageTensors, export
from publisher.loading import NotVerifiedError
from publisher.model.digest import sha256_file
from publisher.registry.models import open_model
from publisher.safeguards.membranes.tools import merge, open_membranes
from support.single_files import HELD, Released, release

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def sd(tmp_path_factory: pytest.TempPathFactory) -> Released:
    """Stable Diffusion 1.x with membranes that open by the prompt."""
    return release(tmp_path_factory.mktemp("export-sd"), "sd", mode="bundle")


@pytest.fixture(scope="module")
def xl(tmp_path_factory: pytest.TempPathFactory) -> Released:
    return release(tmp_path_factory.mktemp("export-xl"), "xl")


def loaded(file: Path, package: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Return the tensors that diffusers reads from a single file with the package's configurations."""
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

    cls: Any = StableDiffusionXLPipeline if (package / "text_encoder_2").is_dir() else StableDiffusionPipeline
    pipeline = cls.from_single_file(str(file), config=str(package), local_files_only=True)
    networks = {name: part for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}
    return {name: part.state_dict() for name, part in networks.items()}


def stored(package: Path) -> dict[str, dict[str, torch.Tensor]]:
    files = [path for path in package.glob("*/*.safetensors") if path.parent.name != "release"]
    return {path.parent.name: load_file(path) for path in files}


@pytest.mark.parametrize("kind", ["sd", "xl"])
def test_diffusers_and_the_audit_find_the_packages_tensors(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    package: Released = request.getfixturevalue(kind)
    counts: list[tuple[int, int]] = []
    leave: Any = "leave" if kind == "sd" else None
    done = export(
        package.folder,
        tmp_path / "m.safetensors",
        package.key,
        membranes=leave,
        progress=lambda *now: counts.append(now),
    )
    own, theirs = stored(package.folder), loaded(done.path, package.folder)
    assert own.keys() == theirs.keys()
    for part, tensors in own.items():
        assert tensors.keys() == theirs[part].keys()
        assert all(torch.equal(one, theirs[part][name]) for name, one in tensors.items())
    assert counts[-1] == (done.tensors, done.tensors) == (len(counts), len(counts))
    found = audit(done.path, *package)
    assert found.verdict == "complies"
    assert {one.name: one.state for one in found.components} == dict.fromkeys(set(own) - {"unet"}, "same")
    (weights,) = found.weights
    assert (weights.unexpected, weights.free.equal) == ((), len(own["unet"]) - 1)
    assert [one.status for one in weights.frozen] == ["equal"]


@pytest.mark.parametrize("kind", ["flux-1", "chroma", "stable-diffusion-3"])
def test_a_transformer_is_written_alone_and_found_whole_by_the_audit(kind: str, tmp_path: Path) -> None:
    """Names are held against diffusers' converter in ``test_ldm_names.py``: it knows the published widths alone."""
    package = release(tmp_path / "released", kind)
    done = export(package.folder, tmp_path / "m.safetensors", package.key)
    own, written = stored(package.folder), load_file(done.path)
    of_sd3, of_flux = "joint_blocks.0.x_block.attn.qkv.weight", "double_blocks.0.img_attn.qkv.weight"
    first = of_sd3 if kind == "stable-diffusion-3" else of_flux
    parts = [own["transformer"][f"transformer_blocks.0.attn.to_{one}.weight"] for one in "qkv"]
    assert torch.equal(written[first], torch.cat(parts))
    assert sum(one.numel() for one in written.values()) == sum(one.numel() for one in own["transformer"].values())
    apart = ", ".join(sorted(set(own) - {"transformer"}))
    assert f"{apart}: programs read them from files of their own" in done.behind
    found = audit(done.path, *package)
    (weights,) = found.weights
    assert (found.verdict, weights.unexpected, weights.free.equal) == ("complies", (), len(own["transformer"]) - 1)
    assert [one.status for one in weights.frozen] == ["equal"]


def test_the_file_names_its_package_and_equal_packages_give_equal_files(xl: Released, tmp_path: Path) -> None:
    one, other = (export(xl.folder, tmp_path / f"{name}.safetensors", xl.key) for name in ("a", "b"))
    assert one.path.read_bytes() == other.path.read_bytes()
    with safe_open(one.path, framework="np") as file:
        metadata = file.metadata()
    assert metadata == {"format": "pt", **one.metadata}
    assert (metadata["publisher.name"], metadata["publisher.version"]) == ("tiny", "1.2.0")
    assert metadata["publisher.sums_sha256"] == sha256_file(xl.folder / "release/SHA256SUMS")
    assert (metadata["publisher.membranes"], one.merged) == ("none", 0)


def test_another_dtype_is_a_cast_of_the_package(xl: Released, tmp_path: Path) -> None:
    done = export(xl.folder, tmp_path / "half.safetensors", xl.key, dtype="float16")
    assert done.dtypes == ("F16",)
    found = audit(done.path, *xl)
    assert (found.verdict, found.weights[0].frozen[0].cast) == ("complies", "F16")
    assert {one.state for one in found.components} == {"cast"}


def test_membranes_need_a_choice_and_merged_ones_are_the_exact_sums(sd: Released, tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    with pytest.raises(UsageError, match="open by the prompt, which a single file cannot do"):
        export(sd.folder, out, sd.key)
    assert not out.exists()
    done = export(sd.folder, out, sd.key, membranes="merge")
    base = sd.folder.with_name("base")
    whole = merge(open_model(str(base)), open_membranes([sd.folder]), tmp_path / "merged")
    unet, merged = loaded(out, sd.folder)["unet"], load_file(tmp_path / "merged" / UNET)
    assert all(torch.equal(one, unet[name]) for name, one in merged.items())
    assert not torch.equal(unet[HELD], load_file(base / UNET)[HELD])
    assert (done.merged, done.metadata["publisher.membranes"]) == (whole.tensors, "merged")
    assert any("the gate of the membranes (pistol, skull)" in one or "skull" in one for one in done.behind)
    assert audit(out, *sd).verdict == "does-not-comply"


def test_membranes_that_are_in_the_weights_need_no_choice(tmp_path: Path) -> None:
    package = release(tmp_path / "released", "sd", mode="merge")
    done = export(package.folder, tmp_path / "m.safetensors", package.key)
    assert (done.merged, done.metadata["publisher.membranes"]) == (0, "in the weights, as released")
    assert done.behind[-1] == "nothing of the membranes (skull, pistol): they are in the weights, as released"
    assert audit(done.path, *package).verdict == "complies"


def test_a_number_too_large_for_the_dtype_is_refused_and_nothing_is_left(
    xl: Released, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("publisher.exporting.weight_change", lambda _branches, shape: torch.full(tuple(shape), 1e6))
    before = _PackageTensors.__init__

    def with_branch(job: Any, *given: Any) -> None:
        before(job, *given)
        job._branches = {HELD: [object()]}

    monkeypatch.setattr(_PackageTensors, "__init__", with_branch)
    with pytest.raises(ModelError, match=f"unet/{HELD} has NaN or infinity, or numbers too large for F16"):
        export(xl.folder, tmp_path / "m.safetensors", xl.key, dtype="float16")
    assert list(tmp_path.iterdir()) == []


def call(package: Released, out: Path, *words: str) -> Result:
    line = ["export", str(package.folder), str(out), "--to", "single-file", "--key", str(package.key), *words]
    return CliRunner().invoke(main, line)


def test_the_command_says_what_was_written_and_what_stays_behind(sd: Released, tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    result = call(sd, out, "--membranes", "leave", "--quiet")
    digest = sha256_file(sd.folder / "release/SHA256SUMS")[:16]
    count = len(load_file(out))
    assert result.stdout == (
        f"{out}: {count} tensors, F32, {out.stat().st_size:,} bytes\n"
        f"  made of tiny 1.2.0, sums {digest}\n"
        "\n"
        "Stays behind:\n"
        "  the signature: this file is not signed; its metadata names the package\n"
        "  card, reports and evidence: release/ of the package has them\n"
        "  scheduler and tokenizer: the program that reads the file brings its own\n"
        "  the freeze mask: fine-tunings are audited against the package\n"
        "  the membranes (skull, pistol): what they erase is generated again\n"
    )
    assert (result.exit_code, result.stderr) == (0, "")
    again = call(sd, out, "--membranes", "leave")
    assert (again.exit_code, again.stdout) == (2, "")
    assert "is there already" in again.stderr


def test_every_other_end_has_its_exit_code(xl: Released, tmp_path: Path) -> None:
    inside = call(xl, xl.folder / "m.safetensors")
    assert inside.exit_code == 2
    assert "lies inside the package" in inside.stderr
    assert "must end in .safetensors" in call(xl, tmp_path / "m.ckpt").stderr
    data = json.loads(call(xl, tmp_path / "m.safetensors", "--json", "--dtype", "bfloat16").stdout)
    assert data["dtypes"] == ["BF16"]
    assert data["file"] == str(tmp_path / "m.safetensors")
    broken = Released(Path(shutil.copytree(xl.folder, tmp_path / "broken")), xl.key)
    (broken.folder / "vae/config.json").write_text("{}")
    assert call(broken, tmp_path / "x.safetensors").exit_code == 1
    with pytest.raises(NotVerifiedError, match="nothing was written"):
        export(broken.folder, tmp_path / "x.safetensors", xl.key)
    assert not (tmp_path / "x.safetensors").exists()
