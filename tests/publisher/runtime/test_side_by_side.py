from __future__ import annotations

import pytest

from publisher.runtime.side_by_side import fair_batch


@pytest.mark.parametrize(
    ("count", "batch"), [(6, 32), (11, 32), (12, 6), (24, 12), (25, 13), (64, 32), (65, 17), (158, 27)]
)
def test_small_images_come_in_an_even_number_of_equal_batches(count: int, batch: int) -> None:
    assert fair_batch((8, 8), "cpu", count) == batch
    assert count < 12 or -(-count // batch) % 2 == 0


@pytest.mark.parametrize(("size", "device"), [((64, 64), "cpu"), ((8, 8), "cuda")])
def test_large_images_and_those_of_a_gpu_come_in_full_batches(size: tuple[int, int], device: str) -> None:
    assert fair_batch(size, device, 24) == (8 if size == (64, 64) else 32)
