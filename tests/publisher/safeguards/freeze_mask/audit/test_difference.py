"""How a difference is described: size, rank, rounding."""

from __future__ import annotations

import pytest
import torch

from publisher.safeguards.freeze_mask.audit.difference import change, generator, grid, rounding
from support.auditing import lora

RANDOM = torch.Generator().manual_seed(3)
SMALL, LARGE, KERNEL = (64, 80), (160, 200), (64, 16, 3, 3)


def weight(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(shape, generator=RANDOM) * 0.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [SMALL, LARGE, KERNEL], ids=["exact", "probed", "convolution"])
@pytest.mark.parametrize("rank", [1, 4, 16])
def test_a_merged_lora_is_recognised_with_its_rank(rank: int, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    base = weight(shape)
    found = change("w", base, (base + lora(shape, rank)).to(dtype))
    assert (found.low_rank, found.rank) == (True, rank)


def test_a_lora_trained_on_narrow_weights_is_recognised_against_wide_ones() -> None:
    base = weight(SMALL)
    found = change("w", base, (base.bfloat16() + lora(SMALL, 4).bfloat16()).float())
    assert (found.low_rank, found.rank) == (True, 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [SMALL, LARGE], ids=["exact", "probed"])
def test_noise_of_full_rank_is_no_lora(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    base = weight(shape)
    found = change("w", base, (base + 0.005 * torch.randn(shape, generator=RANDOM)).to(dtype))
    assert not found.low_rank


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_difference_that_falls_slowly_is_no_lora(dtype: torch.dtype) -> None:
    """What training leaves: most of the energy in few directions, and a long tail."""
    base = weight(SMALL)
    u, v = (torch.linalg.qr(torch.randn(n, 64, generator=RANDOM)).Q for n in SMALL)
    values = 0.3 * torch.arange(1, 65).float() ** -1.0
    found = change("w", base, (base + (u * values) @ v.T).to(dtype))
    assert found.outside is not None
    assert found.outside < 0.3
    assert not found.low_rank


def test_rounding_alone_has_no_direction() -> None:
    base = weight(SMALL)
    stochastic = base + (torch.rand(SMALL, generator=RANDOM) - 0.5) * 2.0**-11 * base.abs()
    found = change("w", base, stochastic.bfloat16())
    assert (found.rank, found.low_rank) == (0, False)


def test_norm_and_cosine_are_those_of_the_tensors() -> None:
    found = change("w", torch.tensor([3.0, 4.0]), torch.tensor([3.0, 0.0]))
    assert (found.relative, found.cosine, found.rank) == (0.8, 0.6, None)


def test_what_is_not_finite_is_not_measured() -> None:
    found = change("w", torch.ones(4, 4), torch.full((4, 4), torch.inf))
    assert (found.relative, found.cosine, found.rank) == (None, None, None)


def test_a_published_zero_has_no_relative_difference() -> None:
    found = change("w", torch.zeros(4, 4), torch.eye(4))
    assert (found.relative, found.cosine) == (None, None)


def test_the_grid_is_the_narrowest_type_that_holds_the_numbers() -> None:
    base = weight(SMALL)
    assert grid(base) == torch.float32
    assert grid(base.half().float()) == torch.float16
    assert grid(base.bfloat16().float()) == torch.bfloat16


def test_rounding_is_that_of_the_type() -> None:
    base = weight((400, 400)).half().float() * (1 + 2.0**-9)
    measured = float((base.bfloat16().float() - base).std())
    assert rounding(base.bfloat16().float()) == pytest.approx(measured, rel=0.05)


def test_a_probe_depends_on_its_name_alone() -> None:
    generates = [float(torch.rand(1, generator=generator(name))) for name in ("a", "a", "b")]
    assert generates[0] == generates[1] != generates[2]
