"""A release with the publisher's own card, metadata and a half-precision variant, through the commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result
from diffusers import StableDiffusionPipeline
from PIL import Image

from support.releasing import MANIFEST, publisher

ABOUT = {
    "provider": "Acme Ltd",
    "contact": "safety@acme.example",
    "acceptable_use": "https://acme.example/use",
    "card": "card/own.md",
    "variants": ["fp16"],
}


@pytest.mark.slow
def test_own_words_pictures_and_a_variant_are_signed_verified_and_loaded(
    manifest: Callable[..., Path], released: tuple[Path, Result], tmp_path: Path
) -> None:
    (tmp_path / "card").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "card" / "sheet.png")
    (tmp_path / "card" / "own.md").write_text("---\nlanguage: en\n---\nOur model. ![a sheet](sheet.png)\n")
    path, out = manifest(release=MANIFEST["release"] | ABOUT), tmp_path / "out"
    words = ("--out", out, "--work", released[0] / ".work", "--throwaway-key", "--json")
    done = publisher("release", path, *words)
    assert done.exit_code == 0, done.output
    package, key = out / "small-1.0.0", out / "small-1.0.0.pub"
    assert publisher("verify", package, "--key", key).exit_code == 0
    card = (package / "README.md").read_text()
    assert "Our model. ![a sheet](images/sheet.png)" in card
    assert "- Provider: Acme Ltd" in card
    report = json.loads((package / "release/reports/report.json").read_text())
    assert report["publisher"]["contact"] == "safety@acme.example"
    assert any("fp16 variant" in limit for limit in report["limits"])
    pipeline = StableDiffusionPipeline.from_pretrained(
        package, variant="fp16", dtype=torch.float16, use_safetensors=True
    )
    assert pipeline.unet.dtype == torch.float16
    half = package / "unet" / "diffusion_pytorch_model.fp16.safetensors"
    half.write_bytes(half.read_bytes()[:-2] + b"\0\0")
    changed = publisher("verify", package, "--key", key)
    assert (changed.exit_code, "fp16" in changed.stdout) == (1, True)


def test_a_card_that_is_not_there_is_found_by_the_plan(manifest: Callable[..., Path]) -> None:
    done = publisher("plan", manifest(release=MANIFEST["release"] | {"card": "nowhere.md"}))
    assert done.exit_code == 2
    assert "nowhere.md: cannot be read" in done.output
