"""An SDXL goes the whole way, to the verdict that noise deserves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from publisher.cli import main
from support.tiny_sdxl import save_tiny_sdxl


@pytest.mark.slow
def test_a_random_sdxl_is_hardened_generated_and_not_released(manifest: Callable[..., Path], tmp_path: Path) -> None:
    save_tiny_sdxl(tmp_path / "sdxl")
    evaluate = {"scorer": "emoji", "sampling": {"steps": 2, "guidance": 3.0, "images": 9, "kept_images": 3}}
    gates = {f"erase.cigarette.{name}": {"upper_at_most": 0.5} for name in ("plain", "paraphrase")}
    path = manifest(model="./sdxl", evaluate=evaluate | {"gates": gates | {"erase.kept": {"lower_at_least": -0.5}}})
    words = ["release", str(path), "--out", str(tmp_path / "out"), "--throwaway-key", "--json"]
    result = CliRunner().invoke(main, words)
    told = json.loads(result.stdout)
    assert (result.exit_code, told["decision"], told["package"]) == (4, "unknown", None)
    report = json.loads((tmp_path / "out" / "small-1.0.0.report" / "report.json").read_text())
    assert (report["model"]["family"], report["steps"][0]["changed"]) == ("stable-diffusion-xl", {"unet": 16})
    assert any("pooled text vector" in warning for warning in report["steps"][0]["warnings"])
    plain = report["claims"][0]["checks"][0]
    assert (plain["measurement"], plain["verdict"]) == (None, "unknown")
    assert "the base model does not generate 'cigarette'" in plain["reason"]
    (delta,) = (tmp_path / "out" / ".work" / "steps").glob("*/delta/unet.safetensors")
    weights = load_file(tmp_path / "sdxl" / "unet" / "diffusion_pytorch_model.safetensors")
    assert all(not torch.equal(weights[name], changed) for name, changed in load_file(delta).items())
