from __future__ import annotations

from pathlib import Path

import pytest
import torch

from publisher.errors import PublisherError
from publisher.evaluate.store import ImageStore

IMAGES = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).reshape(2, 3, 4, 4)


def test_what_is_kept_is_found_by_the_next_run(tmp_path: Path) -> None:
    ImageStore(tmp_path).put("key", IMAGES, private=False)
    found = ImageStore(tmp_path).get("key", 2)
    assert found is not None
    assert torch.equal(found, IMAGES)


def test_the_same_images_are_the_same_bytes(tmp_path: Path) -> None:
    ImageStore(tmp_path / "a").put("key", IMAGES, private=False)
    ImageStore(tmp_path / "b").put("key", IMAGES, private=False)
    assert (tmp_path / "a" / "key.safetensors").read_bytes() == (tmp_path / "b" / "key.safetensors").read_bytes()


def test_private_images_never_reach_the_disk(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    store.put("key", IMAGES, private=True)
    assert store.get("key", 2) is IMAGES
    assert list(tmp_path.iterdir()) == []
    assert ImageStore(tmp_path).get("key", 2) is None


@pytest.mark.parametrize("place", [40, -1])
def test_a_damaged_file_is_not_trusted_and_goes_away(tmp_path: Path, place: int) -> None:
    said: list[str] = []
    store = ImageStore(tmp_path, said.append)
    store.put("key", IMAGES, private=False)
    file = tmp_path / "key.safetensors"
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)
    assert store.get("key", 2) is None
    assert not file.exists()
    assert len(said) == 1
    assert "damaged" in said[0]


def test_a_file_under_another_key_or_with_other_images_is_not_taken(tmp_path: Path) -> None:
    said: list[str] = []
    store = ImageStore(tmp_path, said.append)
    store.put("one", IMAGES, private=False)
    (tmp_path / "one.safetensors").rename(tmp_path / "two.safetensors")
    assert store.get("two", 2) is None
    store.put("three", IMAGES, private=False)
    assert store.get("three", 3) is None
    assert len(said) == 2


def test_a_disk_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PublisherError, match="cannot write"):
        ImageStore(tmp_path / "file").put("key", IMAGES, private=False)
