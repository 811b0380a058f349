from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from publisher_emoji import Vocabulary, reference_images, vocabulary
from publisher_emoji.generate import load_pipeline
from publisher_emoji.scorer import EmojiClassifier, EmojiLabels
from publisher_emoji.training import __main__ as script
from publisher_emoji.training import evaluate, loop
from publisher_emoji.training.artwork import Artwork, augment, load_artwork
from publisher_emoji.training.config import CONFIG_FILE, ImageConfig, Optimisation, load_config
from publisher_emoji.training.diffusion import Captions, _min_snr_weights, build_scheduler
from publisher_emoji.training.evaluate import class_rates
from publisher_emoji.training.loop import step_generator, train
from publisher_emoji.training.scorer import disturb, no_object
from publisher_emoji.training.vae import reconstruction_loss

WORDS = vocabulary()
STILL = ImageConfig(size=32, scale=(1.0, 1.0), shift=0.0)
RUN = Optimisation(steps=7, batch=4, lr=0.1, warmup=2, ema=0.5, weight_decay=0.01, clip=1.0)


@pytest.fixture(scope="module")
def artwork() -> Artwork:
    return load_artwork(WORDS)


# The loop


def _fit(folder: Path, *, stop_at: int | None = None) -> Tensor:
    """Fit a line to random points; optionally crash at a step."""
    torch.manual_seed(0)
    line, generated = nn.Linear(3, 1), 0

    def loss(generator: torch.Generator) -> Tensor:
        nonlocal generated
        generated += 1
        if generated == stop_at:
            raise RuntimeError("power cut")
        points = torch.randn(4, 3, generator=generator)
        return (line(points) - points.sum(1, keepdim=True)).square().mean()

    train(line, loss, RUN, seed=3, folder=folder, autocast="float32")
    return line.weight.detach().clone()


def test_a_resumed_run_ends_in_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY", 2)
    whole = _fit(tmp_path / "whole")
    with pytest.raises(RuntimeError, match="power cut"):
        _fit(tmp_path / "cut", stop_at=6)
    assert torch.equal(_fit(tmp_path / "cut"), whole)


def test_a_finished_run_is_not_repeated(tmp_path: Path) -> None:
    assert torch.equal(_fit(tmp_path), _fit(tmp_path, stop_at=1))


def test_the_rate_rises_to_one_and_falls_to_zero() -> None:
    rates = [loop._rate(step, RUN) for step in range(RUN.steps + 1)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[-1] == 0.0
    assert rates[2:] == sorted(rates[2:], reverse=True)


def test_a_run_may_stop_before_the_rate_reaches_zero() -> None:
    run = RUN.model_copy(update={"decay": 12})
    assert loop._rate(RUN.steps, run) == 0.5
    assert loop._rate(12, run) == 0.0


def test_steps_and_seeds_have_streams_of_their_own() -> None:
    first = {torch.rand(1, generator=step_generator(seed, step)).item() for seed in range(5) for step in range(5)}
    assert len(first) == 25


# Images


def test_no_augmentation_is_plain_reduction(artwork: Artwork) -> None:
    pixels = artwork.images[:4]
    moved = augment(pixels, STILL, step_generator(0, 0))
    torch.testing.assert_close(moved, nn.functional.avg_pool2d(pixels, 2), atol=1e-4, rtol=0)


def test_what_moves_in_from_outside_is_white() -> None:
    black = -torch.ones(8, 3, 64, 64)
    small = augment(black, ImageConfig(size=32, scale=(0.5, 0.5), shift=0.0), step_generator(0, 0))
    assert (small[:, :, :7] == 1).all()
    torch.testing.assert_close(small[:, :, 9:23, 9:23], -torch.ones(8, 3, 14, 14))


def test_disturbance_keeps_shape_and_stays_near(artwork: Artwork) -> None:
    pixels = augment(artwork.images[:32], STILL, step_generator(0, 0))
    disturbed = disturb(pixels, step_generator(0, 1))
    assert disturbed.shape == pixels.shape
    assert not torch.equal(disturbed, pixels)
    assert (disturbed - pixels).abs().mean() < 0.15


def test_nothing_is_made_of_real_pixels_but_shows_no_image(artwork: Artwork) -> None:
    pixels = augment(artwork.images[:64], STILL, step_generator(0, 0))
    nothing = no_object(pixels, step_generator(0, 1))
    assert nothing.shape == pixels.shape
    assert ((nothing - pixels).abs().mean((1, 2, 3)) > 0.01).all()


def test_reconstruction_loss_by_hand() -> None:
    """Compare a half-white image with white: L1 = 1, L2 = 2, one step of 2 in three differences across, none down."""
    white = torch.ones(1, 1, 2, 4)
    half = torch.tensor([[[[1.0, 1, -1, -1]] * 2]])
    assert reconstruction_loss(half, white).item() == pytest.approx(1 + 2 + 2 / 3)


def test_min_snr_weights_by_hand() -> None:
    """Check min(SNR, 5) / SNR: one where noise prevails, 5 / SNR where the image does."""
    scheduler = build_scheduler()
    weights = _min_snr_weights(scheduler, 5.0)
    clean = scheduler.alphas_cumprod[0]
    assert weights[-1] == 1
    assert weights[0].item() == pytest.approx((5 * (1 - clean) / clean).item())


# Captions


def test_captions_are_generated_in_the_shares_of_the_recipe(artwork: Artwork) -> None:
    recipe = load_config().diffusion
    picked = torch.zeros(4000, dtype=torch.long)  # the cigarette in noto style
    texts = Captions(WORDS, artwork, recipe).texts(picked, step_generator(0, 0))
    full = [text for text in texts if text]
    assert texts.count("") / 4000 == pytest.approx(recipe.empty_caption, abs=0.02)
    assert sum(" style" not in text for text in full) / len(full) == pytest.approx(recipe.no_style, abs=0.02)
    synonyms = sum("cigarette" not in text for text in full) / len(full)
    assert synonyms == pytest.approx(recipe.synonym, abs=0.02)
    assert set(full) >= {"a smoke emoji", "a cig emoji in noto style", "a cigarette emoji in noto style"}


@pytest.mark.parametrize("concept", ["cigarette", "blob"])
def test_without_a_concept_no_image_and_no_caption_of_it_remains(artwork: Artwork, concept: str) -> None:
    if concept in WORDS.style_names:
        rest = artwork.without(style_index=WORDS.style_names.index(concept))
        banned = {concept}
    else:
        rest = artwork.without(object_index=WORDS.object_names.index(concept))
        banned = {concept, *WORDS.object(concept).synonyms}
    assert 0 < len(artwork) - len(rest) < 200
    captions = Captions(WORDS, rest, load_config().diffusion)
    texts = captions.texts(torch.arange(len(rest)).repeat(10), step_generator(0, 0))
    assert not [text for text in texts if banned & set(text.split())]


# Rates


def test_rates_by_hand() -> None:
    truth = [("cat", "noto"), ("cat", "blob"), ("pizza", "noto"), ("pizza", "noto")]
    seen = [("cat", "noto"), ("pizza", "noto"), ("pizza", "noto"), ("pizza", "blob")]
    styles = tuple(style for style in WORDS.styles if style.name in {"noto", "blob"})
    words = Vocabulary(styles, (WORDS.object("cat"), WORDS.object("pizza")))
    rates = class_rates(words, truth * 2, [EmojiLabels(o, 1.0, s, 1.0) for o, s in seen * 2])
    assert (rates["object"]["hits"], rates["object"]["n"]) == (6, 8)
    assert rates["objects"]["cat"]["sensitivity"]["share"] == 0.5
    assert rates["objects"]["cat"]["specificity"]["share"] == 1.0
    assert rates["styles"]["noto"]["sensitivity"]["share"] == pytest.approx(2 / 3, abs=1e-4)
    assert rates["styles"]["noto"]["specificity"]["share"] == 0.0


# The script


def _tiny_recipe(folder: Path) -> Path:
    recipe = yaml.safe_load(CONFIG_FILE.read_text(encoding="utf-8"))
    for part in (recipe["vae"], *recipe["diffusion"]["phases"]):
        part["train"] |= {"steps": 2, "batch": 4, "warmup": 1}
    recipe["vae"]["block_out_channels"] = [16, 16, 16]
    recipe["diffusion"] |= {"views": 1, "text_encoder": {"hidden_size": 32, "layers": 1, "heads": 4}}
    recipe["diffusion"]["unet"] |= {"block_out_channels": [16, 32, 32]}
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


def _weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")


@pytest.mark.slow
def test_the_script_trains_a_loadable_model_twice_alike_and_without_a_concept(
    artwork: Artwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = artwork.objects <= WORDS.object_names.index("cigarette") + 3
    some = Artwork(artwork.images[few], artwork.objects[few], artwork.styles[few])
    monkeypatch.setattr(script, "load_artwork", lambda _words: some)
    config = str(_tiny_recipe(tmp_path))
    for build in ("one", "two"):
        result = CliRunner().invoke(script.main, ["diffusion", "--config", config, "--build", str(tmp_path / build)])
        assert result.exit_code == 0, result.output
    one, two = (_weights(tmp_path / build / "model") for build in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    retrain = ["diffusion", "--config", config, "--build", str(tmp_path / "one"), "--without", "cigarette"]
    assert CliRunner().invoke(script.main, retrain).exit_code == 0
    retrained = tmp_path / "one" / "without-cigarette" / "model"
    assert not torch.equal(_weights(retrained)["conv_in.weight"], one["conv_in.weight"])
    vae = Path("vae") / "diffusion_pytorch_model.safetensors"
    assert (retrained / vae).read_bytes() == (tmp_path / "one" / "model" / vae).read_bytes()
    assert load_pipeline(retrained).unet.config.sample_size == 8
    assert not [note for note in retrained.rglob("config.json") if str(tmp_path) in note.read_text(encoding="utf-8")]


def test_two_recipes_do_not_mix_in_one_folder(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text(json.dumps({"seed": 1}), encoding="utf-8")
    result = CliRunner().invoke(script.main, ["vae", "--build", str(tmp_path)])
    assert result.exit_code == 2
    assert "records another recipe" in result.output


def test_an_unknown_concept_lists_the_known_ones(tmp_path: Path) -> None:
    result = CliRunner().invoke(script.main, ["all", "--build", str(tmp_path), "--without", "cigar"])
    assert result.exit_code == 2
    assert "'cigar' is neither an object nor a style" in result.output
    assert "cigarette" in result.output
    assert list(tmp_path.iterdir()) == []


def test_only_a_whole_base_model_is_installed(tmp_path: Path) -> None:
    result = CliRunner().invoke(script.main, ["vae", "--build", str(tmp_path), "--install"])
    assert result.exit_code == 2
    assert "--install goes with `all`" in result.output


def test_an_unknown_key_in_a_recipe_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(CONFIG_FILE.read_text(encoding="utf-8") + "\nsteps: 3\n", encoding="utf-8")
    with pytest.raises(ValueError, match="steps\n  Extra inputs are not permitted"):
        load_config(path)


# The figures


def _reference_picture(prompt: str) -> Tensor:
    """Return what a perfect generator would give: the reference image, of the first style where none is named."""
    words = prompt.removesuffix(" style").split(" emoji", 1)
    noun, style = words[0].split(" ", 1)[1], words[1].removeprefix(" in ")
    thing = next(thing for thing in WORDS.objects if noun in (thing.name, *thing.synonyms))
    images = reference_images(thing.name)
    with Image.open(images.get(style, next(iter(images.values())))) as picture:
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 127.5 - 1
    return nn.functional.avg_pool2d(pixels, 2)


@pytest.mark.slow
def test_the_figures_of_a_perfect_generator_are_near_one(
    scorer: EmojiClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    def generate(_pipeline: object, prompts: list[str], _seed: int, **_sampling: object) -> Tensor:
        return torch.stack([_reference_picture(prompt) for prompt in prompts])

    monkeypatch.setattr(evaluate, "generate", generate)
    figures = evaluate.quality(None, scorer, WORDS, load_config().sampling)  # type: ignore[arg-type]
    assert figures["object"]["n"] == figures["style"]["n"] == 2 * len(load_artwork(WORDS))
    for key in ("object", "style", "object_without_style", "object_by_synonym"):
        assert figures[key]["share"] > 0.97, key
    assert min(rates["sensitivity"]["n"] for rates in figures["objects"].values()) >= 10
    mistakes = sum(sum(seen.values()) for seen in figures["mistakes"].values())
    assert mistakes == figures["object"]["n"] - figures["object"]["hits"]


@pytest.mark.slow
def test_a_model_that_never_saw_a_concept_is_asked_by_name_and_by_synonym(
    scorer: EmojiClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def generate(_pipeline: object, prompts: list[str], _seed: int, **_sampling: object) -> Tensor:
        asked.extend(prompts)
        return torch.stack([_reference_picture("a pencil emoji")] * len(prompts))

    monkeypatch.setattr(evaluate, "generate", generate)
    report = evaluate.without_report(None, scorer, WORDS, "cigarette", load_config().sampling, images=20)  # type: ignore[arg-type]
    assert set(asked) == {"a cigarette emoji", "a smoke emoji", "a cig emoji"}
    assert report["by_name"]["concept"]["hits"] == 0
    assert report["by_name"]["generated"] == {"pencil": 20}
