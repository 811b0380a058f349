from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from publisher.api import Concept, UsageError
from publisher.testing.battery import broken_rules
from publisher.testing.plugin import PluginUnderTest
from publisher_photo.pictures import distinct_images, read_image
from publisher_photo.reference import NearestImages, NearestImagesParams


def texture(number: int, colour: tuple[float, float, float]) -> Tensor:
    """Return noise around a colour, ``(3, 40, 40)``."""
    noise = torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(number))
    return (0.8 * torch.tensor(colour)[:, None, None] + 0.2 * noise).clamp(0, 1)


def save(image: Tensor, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.mul(255).byte().permute(1, 2, 0).numpy()).save(path)


COLOURS = {"dawn": (0.9, 0.2, 0.1), "night": (0.0, 0.1, 0.5)}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("styles")
    for label, colour in COLOURS.items():
        for number in range(4):
            save(texture(number, colour), folder / label / f"{number}.png")
    return folder


def scorer(clip: Path, folders: Path, **params: Any) -> NearestImages:
    names = {label: label for label in COLOURS}
    found = NearestImages(NearestImagesParams.parse({"weights": "model", "images": names, "nearest": 3} | params))
    found.files = {"model": clip} | {label: folders / label for label in COLOURS}
    return found


def test_it_keeps_the_contract_of_a_scorer(clip: Path, folders: Path) -> None:
    found = scorer(clip, folders)
    assert broken_rules(PluginUnderTest(NearestImages, found.params.as_json(), files=found.files)) == {}


def test_the_strength_is_the_mean_cosine_with_the_nearest_images(clip: Path, folders: Path) -> None:
    found = scorer(clip, folders)
    found.load(torch.device("cpu"))
    images = torch.stack([texture(9 + i, colour) for i, colour in enumerate(COLOURS.values())])
    features = found.features(images)
    for label in COLOURS:
        own = found.features(torch.cat([read_image(path) for path in sorted((folders / label).iterdir())]))
        wanted = (features @ own.T).sort(dim=1, descending=True).values[:, :3].mean(1)
        concept = Concept(id=label, kind="style", name=label, label=label, prompts=(label,))
        torch.testing.assert_close(torch.tensor(found.strengths(images, concept)), wanted)
    assert [one.labels["style"] for one in scorer_with_threshold(found).judge(images)] == list(COLOURS)


def scorer_with_threshold(found: NearestImages) -> NearestImages:
    found.params = found.params.model_copy(update={"threshold": -1.0})
    return found


def test_inputs_and_card_name_the_folders_and_how_many_images_differ(clip: Path, folders: Path) -> None:
    found = scorer(clip, folders)
    assert found.inputs() == ("model", "dawn", "night")
    assert found.labels() == {"style": ("dawn", "night")}
    assert found.card().decision.endswith("with the 3 nearest of its images (dawn 4, night 4)")


def test_a_folder_of_duplicates_is_refused_with_both_counts(clip: Path, tmp_path: Path, folders: Path) -> None:
    for number in range(20):
        save(texture(number % 2, COLOURS["dawn"]), tmp_path / "dawn" / f"{number}.png")
    found = scorer(clip, folders)
    found.files = dict(found.files) | {"dawn": tmp_path / "dawn"}
    with pytest.raises(
        UsageError, match="'dawn' has 20 images in this folder, of which 2 differ; at least 3 are needed"
    ):
        found.check_files()
    with pytest.raises(UsageError, match="of which 2 differ"):
        found.card()


def test_a_picture_with_transparency_is_laid_on_white(tmp_path: Path) -> None:
    pixels = np.zeros((4, 4, 4), dtype=np.uint8)
    pixels[:2, :, 3] = 255
    Image.fromarray(pixels).save(tmp_path / "half.png")
    image = read_image(tmp_path / "half.png")
    assert image.shape == (1, 3, 4, 4)
    assert image[0, :, :2].max() == 0
    assert image[0, :, 2:].min() == 1


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    with pytest.raises(UsageError, match=r"broken\.png: this image cannot be read"):
        distinct_images(tmp_path, 1, "dawn")
