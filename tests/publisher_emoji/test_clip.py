from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner
from safetensors.torch import load_file

from publisher.api import Concept, Kind, Scope
from publisher_emoji import caption, vocabulary
from publisher_emoji.concepts import DATA
from publisher_emoji.generate import generate, load_pipeline
from publisher_emoji.scorer import load_scorer
from publisher_emoji.training import __main__ as script
from publisher_emoji.training.artwork import Artwork, load_artwork
from publisher_emoji.training.clip import TrainingTexts
from publisher_emoji.training.config import CONFIG_FILE, load_config
from publisher_emoji.training.evaluate import held_out
from publisher_emoji.training.loop import step_generator
from publisher_emoji.training.tokenizer import build_tokenizer
from publisher_photo.reference import NearestImages, NearestImagesParams
from publisher_photo.zero_shot import ZeroShot, ZeroShotParams

WORDS = vocabulary()
TEMPLATES = {"object": ["{a} {label} emoji"], "style": ["an emoji in {label} style"]}
OTHERS = {"object": [caption(name) for name in WORDS.object_names], "style": ["an emoji", "nothing"]}


def concept(name: str, kind: Kind) -> Concept:
    return Concept(id=name.replace(" ", "-"), kind=kind, name=name, label=name, prompts=(name,))


@pytest.fixture(scope="module")
def zero_shot() -> ZeroShot:
    """The shipped CLIP through the scorer that reads SigLIP, asked for some objects and all styles."""
    params = {"weights": "clip", "templates": TEMPLATES, "others": OTHERS}
    scorer = ZeroShot(ZeroShotParams.parse(params))
    scorer.files = {"clip": DATA / "clip"}
    some = [concept(name, "object") for name in WORDS.object_names[:20]]
    scorer.scope = Scope(concepts=(*some, *(concept(style, "style") for style in WORDS.style_names)))
    scorer.load(torch.device("cpu"))
    return scorer


@pytest.fixture(scope="module")
def artwork() -> Artwork:
    return load_artwork(WORDS)


def test_the_shipped_clip_is_the_one_that_was_measured() -> None:
    figures = json.loads((DATA / "clip-figures.json").read_text(encoding="utf-8"))
    weights = DATA / "clip" / "model.safetensors"
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == figures["weights_sha256"]
    assert weights.stat().st_size < 3_000_000
    assert all(torch.equal(tensor, tensor.half().float()) for tensor in load_file(weights).values())


def test_zero_shot_sees_what_the_artwork_shows(zero_shot: ZeroShot, artwork: Artwork) -> None:
    some = artwork.objects < 20
    images = (held_out(artwork.images[some], load_config(), view=50).clamp(-1, 1) + 1) / 2
    said = zero_shot.judge(images)
    objects = [WORDS.object_names[i] for i in artwork.objects[some].tolist()]
    right = sum(name in one.seen["object"] for name, one in zip(objects, said, strict=True))
    wrong = sum(len(set(one.seen["object"]) - {name}) for name, one in zip(objects, said, strict=True))
    assert right >= 0.95 * len(said)
    assert wrong <= 0.05 * len(said)


@pytest.mark.slow
def test_the_two_scorers_agree_about_what_the_model_generates(zero_shot: ZeroShot) -> None:
    asked = [(name, style) for name in WORDS.object_names[:12] for style in ("noto", "blob")]
    images = generate(load_pipeline(), [caption(*pair) for pair in asked], seed=9, steps=8)
    first = load_scorer().judge(images)
    second = zero_shot.judge((images.clamp(-1, 1) + 1) / 2)
    agreed = [one.object in two.seen["object"] for one, two in zip(first, second, strict=True)]
    assert sum(agreed) >= 22
    matches = zero_shot.match((images.clamp(-1, 1) + 1) / 2, [caption(*pair) for pair in asked])
    others = zero_shot.match((images.clamp(-1, 1) + 1) / 2, [caption(*pair) for pair in asked[6:] + asked[:6]])
    assert min(matches) > max(others)


def test_a_style_is_seen_by_its_own_images(artwork: Artwork) -> None:
    """Half of the objects are the references, the other half is judged."""
    folders = {style: DATA / "images" / style for style in ("noto", "firefox")}
    params = {"weights": "clip", "images": {style: style for style in folders}, "nearest": 3, "threshold": -1.0}
    scorer = NearestImages(NearestImagesParams.parse(params))
    scorer.files = {"clip": DATA / "clip"} | folders
    scorer.load(torch.device("cpu"))
    for style in folders:
        scorer._own[style] = scorer._own[style][: len(scorer._own[style]) // 2]
    last = artwork.objects >= 120
    wanted = [WORDS.style_names[i] for i in artwork.styles[last].tolist()]
    kept = [i for i, style in enumerate(wanted) if style in folders]
    said = scorer.judge((torch.nn.functional.avg_pool2d(artwork.images[last][kept], 2) + 1) / 2)
    right = [one.labels["style"] == wanted[i] for i, one in zip(kept, said, strict=True)]
    assert sum(right) > 0.75 * len(right)


def test_texts_of_a_step_are_every_object_nothing_every_style_and_each_images_own_caption() -> None:
    config = load_config()
    texts = TrainingTexts(WORDS, build_tokenizer(WORDS, config.tokenizer), config.clip)
    objects, styles = torch.tensor([3, 5, 3]), torch.tensor([1, 1, 1])
    tokens, own = texts.sample(objects, styles, step_generator(0, 0))
    assert len(tokens["input_ids"]) == len(WORDS.objects) + 1 + len(WORDS.styles) + 3
    assert own.tolist() == [[True, False, True], [False, True, False], [True, False, True]]


@pytest.mark.slow
def test_the_script_trains_the_same_clip_twice(
    artwork: Artwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = artwork.objects < 3
    some = Artwork(artwork.images[few], artwork.objects[few], artwork.styles[few])
    monkeypatch.setattr(script, "load_artwork", lambda _words: some)
    recipe = yaml.safe_load(CONFIG_FILE.read_text(encoding="utf-8"))
    for part in (recipe["vae"], recipe["clip"]):
        part["train"] |= {"steps": 2, "batch": 16, "warmup": 1}
    recipe["vae"]["block_out_channels"] = [16, 16, 16]
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    for build in ("one", "two"):
        options = ["clip", "--config", str(tmp_path / "tiny.yaml"), "--build", str(tmp_path / build)]
        result = CliRunner().invoke(script.main, options)
        assert result.exit_code == 0, result.output
    one, two = (load_file(tmp_path / build / "clip-model" / "model.safetensors") for build in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)
