"""Train, measure and install the embedded model: ``python -m publisher_emoji.training --help``."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import click
import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, StableDiffusionPipeline
from torch import nn
from transformers import AutoTokenizer, CLIPModel, CLIPTokenizer

from publisher_emoji.concepts import DATA, Vocabulary, vocabulary
from publisher_emoji.scorer import EmojiClassifier, load_scorer
from publisher_emoji.sheet import contact_sheet
from publisher_emoji.training import evaluate
from publisher_emoji.training.artwork import Artwork, load_artwork
from publisher_emoji.training.clip import save_clip, train_clip
from publisher_emoji.training.config import CONFIG_FILE, Config, load_config
from publisher_emoji.training.diffusion import train_diffusion
from publisher_emoji.training.halves import store_as_halves
from publisher_emoji.training.older import write_for_older
from publisher_emoji.training.scorer import save_scorer, train_scorer
from publisher_emoji.training.tokenizer import build_tokenizer
from publisher_emoji.training.vae import train_vae


class Build:
    """A folder in which the stages leave their results; a finished stage is not run again."""

    def __init__(self, folder: Path, config: Config, without: Sequence[str] = ()) -> None:
        self.base = folder
        self.folder = folder / f"without-{'-'.join(without).replace(' ', '-')}" if without else folder
        self.config, self.without = config, without
        self.words: Vocabulary = vocabulary()
        self._remember_recipe()

    def _remember_recipe(self) -> None:
        """Refuse to mix two recipes in one folder."""
        note = self.base / "recipe.json"
        recipe = json.dumps(self.config.model_dump(mode="json"), indent=1) + "\n"
        if note.exists() and note.read_text(encoding="utf-8") != recipe:
            raise click.UsageError(f"{note} records another recipe. Choose another --build folder, or delete this one.")
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(recipe, encoding="utf-8")

    @cached_property
    def artwork(self) -> Artwork:
        """The reference images, less those of the concepts that are left out."""
        left = load_artwork(self.words)
        for concept in self.without:
            if concept in self.words.style_names:
                left = left.without(style_index=self.words.style_names.index(concept))
            else:
                left = left.without(object_index=self.words.object_names.index(concept))
        return left

    @cached_property
    def vae(self) -> AutoencoderKL:
        """The autoencoder of the base build; a retraining without a concept shares it."""
        folder = self.base / "model" / "vae"
        if not (folder / "config.json").exists():
            vae = train_vae(self.config, load_artwork(self.words), self.base / "vae")
            save(vae, folder)
        return AutoencoderKL.from_pretrained(folder)

    @cached_property
    def scorer(self) -> EmojiClassifier:
        """The scorer of the base build."""
        folder = self.base / "scorer-model"
        if not (folder / "config.json").exists():
            everything = load_artwork(self.words)
            trained = train_scorer(self.config, self.words, everything, self.vae, self.base / "scorer")
            save_scorer(trained, self.config, folder)
        return load_scorer(folder)

    @cached_property
    def clip(self) -> tuple[CLIPModel, CLIPTokenizer]:
        """The CLIP of the base build."""
        folder = self.base / "clip-model"
        if not (folder / "config.json").exists():
            trained = train_clip(self.config, self.words, load_artwork(self.words), self.vae, self.base / "clip")
            save_clip(*trained, folder, self.config.image.size)
        return CLIPModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)

    @cached_property
    def pipeline(self) -> StableDiffusionPipeline:
        """The whole model."""
        folder = self.folder / "model"
        if not (folder / "model_index.json").exists():
            tokenizer = build_tokenizer(self.words, self.config.tokenizer)
            vae = self.vae
            trained = train_diffusion(self.config, self.words, self.artwork, vae, tokenizer, self.folder)
            save(trained, folder)
        pipeline = StableDiffusionPipeline.from_pretrained(folder)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


def save(trained: Any, folder: Path) -> None:
    """Write as safetensors, every weight rounded to a value that half precision holds exactly.

    The type stays float32. So a round trip through float16 loses nothing, and the files compress to about half.
    """
    parts = trained.components.values() if isinstance(trained, StableDiffusionPipeline) else [trained]
    for part in parts:
        if isinstance(part, nn.Module):
            with torch.no_grad():
                for parameter in part.parameters():
                    parameter.copy_(parameter.half().float())
    trained.save_pretrained(folder, safe_serialization=True)
    if isinstance(trained, StableDiffusionPipeline):
        write_for_older(folder)
    for note in folder.rglob("config.json"):
        facts = json.loads(note.read_text(encoding="utf-8"))
        facts.pop("_name_or_path", None)  # diffusers notes the builder's own folder here
        note.write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def measure(build: Build) -> dict[str, Any]:
    """Measure the model by the scorer; retrained without concepts, the rest, and what it generates instead of each."""
    if build.without:
        told = (build.pipeline, build.scorer, build.words)
        gone = {concept: evaluate.without_report(*told, concept, build.config.sampling) for concept in build.without}
        rest = build.words.without(build.without)
        return {"quality": evaluate.quality(*told[:2], rest, build.config.sampling), "without": gone}
    weights = build.base / "scorer-model" / "scorer.safetensors"
    figures = evaluate.quality(build.pipeline, build.scorer, build.words, build.config.sampling)
    sheet = evaluate.calibration(build.scorer, build.words, build.artwork, build.vae, build.config, weights)
    rates = {key: figures[key] for key in ("object", "style", "objects", "styles")}
    clip = evaluate.clip_figures(
        build.clip, build.pipeline, build.scorer, build.words, load_artwork(build.words), build.config
    )
    return {"quality": figures, "calibration": sheet | {"generated_images": rates}, "clip": clip}


def provenance(build: Build) -> dict[str, Any]:
    """Return recipe, seconds and versions behind the weights."""
    seconds = {
        stage: json.loads(log.read_text(encoding="utf-8").splitlines()[-1])["seconds"]
        for stage in (
            "vae",
            "scorer",
            "clip",
            *(f"diffusion-{i + 1}" for i in range(len(build.config.diffusion.phases))),
        )
        if (log := (build.folder if stage.startswith("diffusion") else build.base) / stage / "log.jsonl").exists()
    }
    versions = {module.__name__: module.__version__ for module in (torch, diffusers, transformers)}
    return {
        "recipe": build.config.model_dump(mode="json"),
        "seconds": seconds,
        "images": len(build.artwork),
        "versions": versions | {"python": platform.python_version()},
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, no GPU",
    }


def install_reference(build: Build, figures: dict[str, Any]) -> None:
    """Copy the model that was trained without concepts into the package's ``data/``, as float16, with its figures."""
    target = DATA / "reference"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(build.folder / "model", target)
    store_as_halves(target)
    _write(DATA / "reference-figures.json", figures | {"provenance": provenance(build)})


def install(build: Build, figures: dict[str, Any]) -> None:
    """Copy model, scorer, CLIP and figures into the package's ``data/``."""
    for name, source in (("model", "model"), ("scorer", "scorer-model"), ("clip", "clip-model")):
        shutil.rmtree(DATA / name, ignore_errors=True)
        shutil.copytree(build.base / source, DATA / name)
    _write(DATA / "scorer" / "calibration.json", figures["calibration"])
    digest = hashlib.sha256((DATA / "clip" / "model.safetensors").read_bytes()).hexdigest()
    _write(DATA / "clip-figures.json", {"weights_sha256": digest} | figures["clip"])
    _write(DATA / "figures.json", {"quality": figures["quality"], "provenance": provenance(build)})


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


COMMANDS: dict[str, Callable[[Build], object]] = {
    "vae": lambda build: build.vae,
    "scorer": lambda build: build.scorer,
    "clip": lambda build: build.clip,
    "diffusion": lambda build: build.pipeline,
}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("stage", type=click.Choice([*COMMANDS, "all"]))
@click.option("--build", "folder", type=click.Path(path_type=Path), default=Path("build/emoji"), show_default=True)
@click.option("--config", type=click.Path(exists=True, path_type=Path), default=CONFIG_FILE, help="Recipe to follow.")
@click.option(
    "--without",
    metavar="CONCEPT",
    multiple=True,
    help="Leave out an object or a style: its images and all its captions. May be given several times.",
)
@click.option("--install", "installs", is_flag=True, help="Afterwards copy all into the package's data folder.")
def main(stage: str, folder: Path, config: Path, *, without: tuple[str, ...], installs: bool) -> None:
    """Train the embedded model, or one STAGE of it, on the CPU. What is finished is kept; what was cut off resumes.

    `all` also measures: it writes figures.json and grid.png into the build folder. With --without, --install replaces
    the retrained reference and nothing else.
    """
    words = vocabulary()
    for concept in without:
        if concept not in (*words.object_names, *words.style_names):
            names = ", ".join([*words.style_names, *words.object_names])
            raise click.UsageError(f"--without {concept!r} is neither an object nor a style. There are: {names}")
    if installs and stage != "all":
        raise click.UsageError("--install goes with `all`: it replaces a shipped model.")
    recipe = load_config(config)
    torch.set_num_threads(recipe.threads)
    build = Build(folder, recipe, without)
    if stage != "all":
        COMMANDS[stage](build)
        return
    figures = measure(build)
    _write(build.folder / "figures.json", figures)
    contact_sheet(build.pipeline, build.words, recipe.sampling_seed).save(build.folder / "grid.png")
    if installs:
        (install_reference if without else install)(build, figures)


if __name__ == "__main__":
    main()
