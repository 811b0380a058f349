from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from publisher.api import ModelError
from publisher_photo.pixels import Preparation, checked, preparation_of, prepared, resized

MEAN_STD = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}
CLIP = {"size": {"shortest_edge": 24}, "crop_size": {"height": 24, "width": 24}, "do_center_crop": True} | MEAN_STD


@pytest.fixture(scope="module")
def photograph() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 9, 12, generator=generator)
    return torch.nn.functional.interpolate(coarse, (90, 121), mode="bicubic").clamp(0, 1).mul(255).round().div(255)


def test_resizing_agrees_with_pil_to_a_level_where_resizing_without_antialias_does_not() -> None:
    noise = torch.rand(1, 3, 90, 121, generator=torch.Generator().manual_seed(1)).mul(255).round()
    wanted = Image.fromarray(noise[0].permute(1, 2, 0).byte().numpy()).resize((24, 24), Image.Resampling.BICUBIC)
    levels = torch.from_numpy(np.array(wanted)).permute(2, 0, 1).float()
    assert (resized(noise / 255, 24, 24)[0] * 255 - levels).abs().mean() < 0.5
    rough = torch.nn.functional.interpolate(noise, (24, 24), mode="bicubic")[0]
    assert (rough - levels).abs().mean() > 20


def test_pixels_are_those_of_the_library(photograph: torch.Tensor) -> None:
    whole = CLIPImageProcessorPil(**CLIP, do_convert_rgb=True)
    levels = photograph[0].mul(255).byte().permute(1, 2, 0).numpy()
    wanted = torch.as_tensor(np.asarray(whole(Image.fromarray(levels), return_tensors="np")["pixel_values"]))
    found = prepared(photograph, preparation_of(CLIP, "x"))
    assert found.shape == (1, 3, 24, 24)
    assert (found - wanted).abs().max() < 3 / 255 / 0.2
    assert (found - wanted).abs().mean() < 1 / 255 / 0.2


@pytest.mark.parametrize(
    ("processor", "size"),
    [
        (CLIP, (24, 24, 24)),
        ({"size": 24, "crop_size": 20}, (20, 20, 24)),
        ({"size": {"height": 24, "width": 30}}, (24, 30, 0)),
        ({"size": 24}, (24, 24, 0)),
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.875}, (224, 224, 256)),
        ({"size": {"shortest_edge": 384}, "crop_pct": 0.875}, (384, 384, 0)),
    ],
)
def test_processors_of_several_kinds_are_read(processor: dict[str, Any], size: tuple[int, int, int]) -> None:
    found = preparation_of(MEAN_STD | processor, "x")
    assert (found.height, found.width, found.shortest) == size
    assert prepared(torch.rand(1, 3, 31, 50), found).shape == (1, 3, *size[:2])


@pytest.mark.parametrize(
    ("processor", "reason"),
    [
        ({"size": 24, "resample": 1}, "neither by bilinear nor by bicubic"),
        ({"size": 24, "do_pad": True}, "not resized, or padded"),
        ({"size": 24, "rescale_offset": True}, "scaled to something else"),
        ({"size": 24, "image_std": [0.0, 1.0, 1.0]}, "three numbers each"),
        ({"size": {"longest_edge": 24}}, "the size of images cannot be read"),
        ({"size": 24, "crop_size": 32}, "larger than the image"),
    ],
)
def test_what_cannot_be_done_is_an_error(processor: dict[str, Any], reason: str) -> None:
    with pytest.raises(ModelError, match=f"x: .*{reason}"):
        preparation_of(MEAN_STD | processor, "x")


@pytest.mark.parametrize(
    "images",
    [torch.zeros(1, 4, 8, 8), torch.zeros(3, 8, 8), torch.full((1, 3, 8, 8), float("nan")), torch.ones(1, 3, 8, 8) * 2],
)
def test_what_is_no_image_is_refused(images: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="images h"):
        checked(images)


def test_a_long_image_loses_its_ends_and_a_squeezed_one_nothing() -> None:
    stripes = torch.zeros(1, 3, 10, 40)
    stripes[..., :15] = 1
    assert prepared(stripes, Preparation(10, 10, shortest=10)).max() == 0
    assert prepared(stripes, Preparation(10, 10)).mean() == pytest.approx(15 / 40, abs=0.01)
