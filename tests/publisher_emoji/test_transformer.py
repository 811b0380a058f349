"""The embedded transformer, as it is shipped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from safetensors import safe_open
from safetensors.torch import load_file

from publisher.builtin.stable_diffusion_3 import StableDiffusion3
from publisher.model.folder import read_configs
from publisher_emoji import caption, model_folder, vocabulary
from publisher_emoji.concepts import DATA
from publisher_emoji.generate import generate, load_pipeline
from publisher_emoji.plugin import EmbeddedTransformer
from publisher_emoji.training.transformer.recipe import load_recipe

FOLDER = model_folder("dit")
SEED = 31337  # nothing was chosen and no figure published on this seed


def test_it_is_always_there_and_of_its_family(tmp_path: Path) -> None:
    source = EmbeddedTransformer()
    assert source.check("embedded:emoji-dit") is None
    assert source.fetch("embedded:emoji-dit", tmp_path) == source.locate("embedded:emoji-dit", tmp_path) == FOLDER
    found = StableDiffusion3().recognise(read_configs(FOLDER))
    assert found is not None
    assert [block.rows for block in found.text_blocks] == [12, 12]
    assert found.attention == ("attn", "attn2")  # the second attention of block 0 reads no text


def test_plain_diffusers_loads_it() -> None:
    plain = StableDiffusion3Pipeline.from_pretrained(FOLDER)
    plain.set_progress_bar_config(disable=True)
    noise = torch.Generator().manual_seed(0)
    image = plain("a pizza emoji", num_inference_steps=2, max_sequence_length=12, generator=noise).images[0]
    assert image.size == (32, 32)


def test_it_generates_what_is_asked_for() -> None:
    names = ("cigarette", "pizza", "cat", "rocket", "whale", "strawberry")
    asked = [(name, style) for name in names for style in ("noto", "fluent")]
    images = generate(load_pipeline(FOLDER), [caption(*pair) for pair in asked], SEED, steps=8)
    from publisher_emoji.scorer import load_scorer

    judged = load_scorer().judge(images)
    assert sum(said.object == name for (name, _), said in zip(asked, judged, strict=True)) >= 11


def test_its_files_are_small_float16() -> None:
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".safetensors", ".json", ".txt"}
    assert sum(path.stat().st_size for path in files) < 25e6
    for path in FOLDER.rglob("*.safetensors"):
        for name, tensor in load_file(path).items():
            fixed = name == "pos_embed.pos_embed"  # sines and cosines, as diffusers writes them
            assert fixed or not tensor.is_floating_point() or tensor.dtype == torch.float16, name


@pytest.mark.parametrize("part", ["vae", "text_encoder"])
def test_what_it_shares_with_the_embedded_model_is_the_same(part: str) -> None:
    shared, own = (next((folder / part).glob("*.safetensors")) for folder in (model_folder(), FOLDER))
    with safe_open(shared, "pt") as theirs, safe_open(own, "pt") as ours:
        extra = set(ours.keys()) - set(theirs.keys())
        assert extra == (set() if part == "vae" else {"text_projection.weight"})
        assert all(torch.equal(theirs.get_tensor(name), ours.get_tensor(name)) for name in theirs.keys())  # noqa: SIM118


def test_its_figures_are_of_its_recipe() -> None:
    sheet = json.loads((DATA / "dit-figures.json").read_text(encoding="utf-8"))
    assert sheet["provenance"]["recipe"] == load_recipe().model_dump(mode="json")
    assert sheet["quality"]["object"]["low"] > 0.95
    assert set(sheet["quality"]["objects"]) == set(vocabulary().object_names)
