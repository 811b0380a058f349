"""Reference images: the two halves never meet, files are read safely, and the base model generates the rest."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from PIL import Image

from publisher.api import Concept, References
from publisher.errors import ModelError, UsageError
from publisher.runtime import references
from publisher.runtime.references import (
    FIRST_SEED,
    MAX_FILE,
    ReferenceSettings,
    Wanted,
    half_of,
    read_images,
    reference_requests,
    reference_sets,
)
from support.anatomies import EMBEDDED, anatomy_of
from support.tiny_sdxl import save_tiny_sdxl

CAT = Concept(id="cat", name="cat", prompts=("a cat", "one cat"), label="cat")


@pytest.fixture(scope="module")
def reference_settings(tmp_path_factory: pytest.TempPathFactory) -> ReferenceSettings:
    folder = save_tiny_sdxl(tmp_path_factory.mktemp("tiny") / "model")
    return ReferenceSettings(folder, anatomy_of(folder), torch.device("cpu"), torch.float32, steps=2, guidance=2.0)


def of_cat(
    reference_settings: ReferenceSettings,
    count: int,
    half: Literal["publisher", "attacker"],
    files: Sequence[Path] = (),
) -> References:
    (found,) = reference_sets(reference_settings, [Wanted(CAT, count, files)], half)
    return found


def png(path: Path, colour: str | tuple[int, ...] = "red", size: tuple[int, int] = (50, 40), mode: str = "RGB") -> Path:
    Image.new(mode, size, colour).save(path)
    return path


def test_halves_are_generated_from_seeds_that_nothing_else_uses() -> None:
    seeds = [request.seed for who in FIRST_SEED for request in reference_requests(CAT, 10_000, who, 2, 2.0)]
    assert len({seed % 2**32 for seed in seeds}) == 30_000  # a generator takes no more than 32 bits
    assert min(seeds) > 2**31 + 200_000


def test_generated_images_show_the_prompts_in_turn_and_are_the_same_again(
    reference_settings: ReferenceSettings,
) -> None:
    first = of_cat(reference_settings, 3, "publisher")
    assert first.prompts == ("a cat", "one cat", "a cat")
    assert (first.images.shape, first.images.dtype) == ((3, 3, 32, 32), torch.float32)
    assert 0 <= first.images.min() < first.images.max() <= 1
    assert torch.equal(first.images, of_cat(reference_settings, 3, "publisher").images)
    attackers = of_cat(reference_settings, 3, "attacker").images
    assert not any(torch.equal(one, other) for one in first.images for other in attackers)


def test_several_concepts_are_generated_in_one_go_and_each_gets_its_own(
    reference_settings: ReferenceSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    whole = references.generate_images

    def generate(*given: Any) -> torch.Tensor:
        calls.append(given)
        return whole(*given)

    monkeypatch.setattr(references, "generate_images", generate)
    dog = Concept(id="dog", name="dog", prompts=("a dog",), label="dog")
    fox = Concept(id="fox", name="fox", prompts=("a fox",), label="fox")
    files = [png(tmp_path / "a.png"), png(tmp_path / "b.png")]
    cats, foxes, dogs = reference_sets(
        reference_settings, [Wanted(CAT, 2), Wanted(fox, 1, files), Wanted(dog, 1)], "publisher"
    )
    generated = [request.prompt for _, requests in calls for request in requests]
    assert (len(calls), generated) == (1, ["a cat", "one cat", "a dog"])
    assert (len(cats.images), len(foxes.images), len(dogs.images)) == (2, 1, 1)
    assert (foxes.prompts, dogs.prompts) == (("a fox",), ("a dog",))
    assert torch.allclose(cats.images, of_cat(reference_settings, 2, "publisher").images, atol=0.02)
    assert foxes.images[0, :, 0, 0].tolist() == [1, 0, 0]


def test_files_are_dealt_out_in_sorted_order_and_never_shared() -> None:
    files = [Path(f"{i}.png") for i in (3, 0, 2, 1, 4)]
    assert [path.stem for path in half_of(files, "publisher", 3, "cat")] == ["0", "2", "4"]
    assert [path.stem for path in half_of(files, "attacker", 2, "cat")] == ["1", "3"]
    with pytest.raises(UsageError, match=r"3 reference images of 'cat' are needed, and the attacker's half of its 5"):
        half_of(files, "attacker", 3, "cat")


def test_files_become_images_of_the_models_size(reference_settings: ReferenceSettings, tmp_path: Path) -> None:
    files = [png(tmp_path / "a.png"), png(tmp_path / "b.jpg", "white"), png(tmp_path / "c.png", "blue")]
    found = of_cat(reference_settings, 2, "publisher", files)
    assert (found.images.shape, found.prompts) == ((2, 3, 32, 32), ("a cat", "one cat"))
    assert found.images[0, :, 0, 0].tolist() == [1, 0, 0]
    assert found.images[1, :, 0, 0].tolist() == [0, 0, 1]


def test_transparency_is_white_and_grey_is_three_times_grey(tmp_path: Path) -> None:
    files = [png(tmp_path / "a.png", (255, 0, 0, 0), mode="RGBA"), png(tmp_path / "b.png", (51,), mode="L")]
    clear, grey = read_images(files, (8, 4))
    assert clear.shape == (3, 8, 4)
    assert clear.min() == 1
    assert grey.unique().tolist() == pytest.approx([0.2])


def bomb() -> bytes:
    """Return a PNG that says that it is 100,000 x 100,000."""
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", len(header)) + b"IHDR" + header
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", zlib.crc32(b"IHDR" + header))


def truncated() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(buffer, "PNG")
    return buffer.getvalue()[:1000]


def gif() -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (4, 4)).save(buffer, "GIF")
    return buffer.getvalue()


@pytest.mark.parametrize("data", [b"", b"no image", bomb(), truncated(), gif()], ids=lambda data: str(len(data)))
def test_hostile_and_broken_files_are_refused_by_name(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(data)
    with pytest.raises(UsageError, match="cannot be used as a reference image") as caught:
        read_images([path], (8, 8))
    assert caught.value.where == str(path)
    assert "PNG or JPEG" in caught.value.hint


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    with path.open("wb") as file:
        file.truncate(MAX_FILE + 1)
    with pytest.raises(UsageError, match="more than 64 MiB"):
        read_images([path], (8, 8))


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="FileNotFoundError"):
        read_images([tmp_path / "x.png"], (8, 8))


def test_what_nobody_may_generate_is_not_generated() -> None:
    mixed = CAT.model_copy(update={"prompts": ("a naked child", "a cat")})
    assert {request.prompt for request in reference_requests(mixed, 4, "attacker", 2, 2.0)} == {"a cat"}
    with pytest.raises(UsageError, match="never generated"):
        reference_requests(CAT.model_copy(update={"prompts": ("a naked child",)}), 4, "attacker", 2, 2.0)


def test_a_folder_that_is_no_model_is_an_error(tmp_path: Path) -> None:
    reference_settings = ReferenceSettings(tmp_path, EMBEDDED, torch.device("cpu"), torch.float32, 2, 2.0)
    with pytest.raises(ModelError):
        of_cat(reference_settings, 1, "publisher")
    with pytest.raises(UsageError, match="at least 1"):
        of_cat(reference_settings, 0, "publisher")
