"""Train, measure and install the embedded transformer: ``python -m publisher_emoji.training.transformer --help``."""

from __future__ import annotations

import json
import platform
import shutil
from pathlib import Path
from typing import Any

import click
import diffusers
import torch
import transformers
from diffusers import StableDiffusion3Pipeline
from torch import Tensor, nn

from publisher_emoji.concepts import DATA, vocabulary
from publisher_emoji.generate import load_pipeline
from publisher_emoji.scorer import load_scorer
from publisher_emoji.sheet import contact_sheet
from publisher_emoji.training import evaluate
from publisher_emoji.training.artwork import load_artwork
from publisher_emoji.training.halves import store_as_halves
from publisher_emoji.training.older import write_vocabulary
from publisher_emoji.training.transformer.networks import build_pipeline
from publisher_emoji.training.transformer.recipe import RECIPE_FILE, Recipe, load_recipe
from publisher_emoji.training.transformer.train import TRAINED, train_transformer

TARGET = DATA / "dit"
FIGURES = DATA / "dit-figures.json"


def save(pipeline: StableDiffusion3Pipeline, folder: Path, bits: int) -> None:
    """Write as safetensors, every trained weight rounded to ``bits`` significant bits, in float16 where exact."""
    for part in TRAINED:
        round_weights(getattr(pipeline, part), bits)
    pipeline.save_pretrained(folder, safe_serialization=True)
    store_as_halves(folder)
    for tokenizer in ("tokenizer", "tokenizer_2"):
        write_vocabulary(folder / tokenizer)
    for note in folder.rglob("config.json"):
        facts = json.loads(note.read_text(encoding="utf-8"))
        facts.pop("_name_or_path", None)  # diffusers notes the builder's own folder here
        note.write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n", encoding="utf-8")


@torch.no_grad()
def round_weights(module: nn.Module, bits: int) -> None:
    """Round every parameter in place to ``bits`` significant bits, and to values that float16 holds."""
    for parameter in module.parameters():
        parameter.copy_(rounded(parameter, bits).half().float())


def rounded(values: Tensor, bits: int) -> Tensor:
    """Return ``values`` rounded to ``bits`` significant bits, the leading one among them."""
    mantissa, exponent = torch.frexp(values)
    return torch.ldexp(torch.round(mantissa * 2**bits) / 2**bits, exponent)


def provenance(folder: Path, recipe: Recipe) -> dict[str, Any]:
    """Return recipe, seconds and versions behind the weights."""
    logs = {stage: folder / stage / "log.jsonl" for stage in _stages(recipe)}
    lines = {stage: log.read_text(encoding="utf-8").splitlines()[-1] for stage, log in logs.items()}
    versions = {module.__name__: module.__version__ for module in (torch, diffusers, transformers)}
    return {
        "recipe": recipe.model_dump(mode="json"),
        "seconds": {stage: json.loads(line)["seconds"] for stage, line in lines.items()},
        "versions": versions | {"python": platform.python_version()},
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, no GPU",
    }


def _stages(recipe: Recipe) -> list[str]:
    return [f"transformer-{index + 1}" for index in range(len(recipe.phases))]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--build", "folder", type=click.Path(path_type=Path), default=Path("build/emoji-dit"), show_default=True)
@click.option("--recipe", "file", type=click.Path(exists=True, path_type=Path), default=RECIPE_FILE, help="To follow.")
@click.option("--install", "installs", is_flag=True, help="Afterwards copy the model into the package's data folder.")
def main(folder: Path, file: Path, *, installs: bool) -> None:
    """Train the embedded transformer on the CPU and measure it. What is finished is kept; what was cut off resumes.

    Its autoencoder, its first text encoder and the scorer are the embedded model's. It writes model/, figures.json and
    grid.png into the build folder.
    """
    recipe, words = load_recipe(file), vocabulary()
    torch.set_num_threads(recipe.threads)
    if not (folder / "model" / "model_index.json").exists():
        pipeline = build_pipeline(recipe, words)
        train_transformer(recipe, words, load_artwork(words), pipeline, folder)
        save(pipeline, folder / "model", recipe.significant_bits)
    trained = load_pipeline(folder / "model")
    quality = evaluate.quality(trained, load_scorer(), words, recipe.sampling)
    figures = json.dumps({"quality": quality, "provenance": provenance(folder, recipe)}, indent=1) + "\n"
    (folder / "figures.json").write_text(figures, encoding="utf-8")
    contact_sheet(trained, words, recipe.sampling_seed, steps=recipe.sampling.steps).save(folder / "grid.png")
    if installs:
        shutil.rmtree(TARGET, ignore_errors=True)
        shutil.copytree(folder / "model", TARGET)
        FIGURES.write_text(figures, encoding="utf-8")


if __name__ == "__main__":
    main(prog_name="python -m publisher_emoji.training.transformer")
