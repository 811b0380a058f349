"""How a tensor differs from the published one: by how much, and does it look like a merged adapter?

A LoRA that was merged into a weight adds a matrix of its rank, and rounding: storing W + BA with p bits of precision
adds noise of sigma = ulp / sqrt(12) to each number, a random matrix whose largest singular value is about
sigma (sqrt(m) + sqrt(n)). So directions that stand out of that are counted, and what is left must be no more than the
rounding. Training the weight itself leaves more: its singular values fall slowly, and into the rounding.

Range probe: Halko, Martinsson, Tropp, *Finding structure with randomness* (2011), algorithm 4.3 with q = 1 and 96
directions.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

from publisher.safeguards.freeze_mask.audit.equality import same_bits
from publisher.safeguards.freeze_mask.audit.records import TensorChange

if TYPE_CHECKING:
    import torch

DIRECTIONS = 96
EXACT = 128
"""Matrices with a side of at most so many have all their singular values computed."""
OUTSIDE = 0.3
"""More energy than that outside the leading directions, and a difference is not called low-rank."""
MARGIN = 1.5
"""Numbers differ in size, so rounding is stronger somewhere than on average: a direction must exceed it by so much."""
LEFT = 1.3
"""What is left may have so much of the energy of rounding: weak directions of an adapter drown in it."""
PRODUCT = 2.0**-9 / math.sqrt(3)
"""Relative rounding of the product BA itself, which some tools compute in bfloat16."""
_BITS = {"float64": 53, "float32": 24, "float16": 11, "bfloat16": 8}


def change(name: str, published: torch.Tensor, found: torch.Tensor) -> TensorChange:
    """Measure a difference.

    Args:
        name: of the tensor; names the generator of the probe.
        published: any shape, floating type.
        found: of equal shape, floating type. What is stored in 8 bits is rounded too much to look for an adapter in.
    """
    eight, found = found.element_size() == 1, found.float() if found.element_size() == 1 else found
    if not bool(found.isfinite().all()):
        return TensorChange(relative=None, cosine=None)
    ours, theirs = (float(tensor.double().norm()) for tensor in (published, found))
    difference = _gap(published, found)
    relative = _ratio(float(difference.norm()), ours)
    cosine = _ratio(float((published.double() * found.double()).sum()), ours * theirs)
    if eight or found.ndim < 2 or min(_matrix(found).shape) < 2:
        return TensorChange(relative=relative, cosine=cosine)
    if not difference.any():
        return TensorChange(relative=relative, cosine=cosine)
    looks = _look(name, difference, found)
    if not looks[2] and grid(found) != published.dtype:  # it was trained from the published weights in a narrower type
        narrow = _look(name, _gap(published.to(grid(found)), found), found)
        looks = narrow if narrow[2] else looks
    return TensorChange(relative=relative, cosine=cosine, rank=looks[0], outside=_short(looks[1]), low_rank=looks[2])


def _gap(published: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
    return found.double().sub_(published)


def _look(name: str, difference: torch.Tensor, found: torch.Tensor) -> tuple[int, float, bool]:
    """Rank, share of energy outside, and whether it looks like an adapter."""
    matrix = _matrix(difference)
    if not matrix.any():
        return 0, 0.0, False
    rank, outside, noise = _rank(matrix, rounding(found), generator(name))
    limit = min(DIRECTIONS - 1, min(matrix.shape) // 2)
    return rank, outside, 0 < rank <= limit and outside < OUTSIDE and outside <= LEFT * noise


def generator(name: str) -> torch.Generator:
    """Make a generator of random numbers that depend on a tensor's name alone."""
    import torch

    seed = int.from_bytes(hashlib.sha256(f"audit range probe {name}".encode()).digest()[:4], "big")
    return torch.Generator().manual_seed(seed)


def grid(found: torch.Tensor) -> torch.dtype:
    """Return the narrowest type that holds all numbers of a tensor exactly, whatever it is stored in."""
    import torch

    narrow = (kind for kind in (torch.bfloat16, torch.float16) if same_bits(found.to(kind).to(found.dtype), found))
    return next(narrow, found.dtype)


def rounding(found: torch.Tensor) -> float:
    """Return the standard deviation of the rounding in a tensor's numbers."""
    bits = _BITS[str(grid(found)).removeprefix("torch.")]
    exponents = found.double().frexp().exponent[found != 0]
    if not exponents.numel():
        return 0.0
    return math.sqrt(float((2.0 ** (2 * (exponents.double() - bits))).mean()) / 12)


def _rank(matrix: torch.Tensor, sigma: float, random: torch.Generator) -> tuple[int, float, float]:
    """Return directions above rounding, the share of energy outside them, and the share that is rounding.

    Args:
        matrix: the difference, [m, n], float64.
        sigma: of :func:`rounding`.
        random: for the probe.
    """
    energy = float((matrix**2).sum())
    variance = sigma**2 + energy / matrix.numel() * PRODUCT**2
    values = _leading(matrix, random)
    strong = values[values > MARGIN * math.sqrt(variance) * sum(math.sqrt(side) for side in matrix.shape)]
    left = math.prod(side - len(strong) for side in matrix.shape)
    return len(strong), max(0.0, 1.0 - float((strong**2).sum()) / energy), variance * left / energy


def _leading(matrix: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """Return all singular values of a small matrix, those inside a random range of a large one; descending."""
    import torch

    if min(matrix.shape) <= EXACT:
        return _singular(matrix)
    probe = torch.randn(matrix.shape[1], DIRECTIONS, generator=random, dtype=matrix.dtype)
    basis = torch.linalg.qr(matrix @ probe).Q
    basis = torch.linalg.qr(matrix @ (matrix.T @ basis)).Q
    return _singular(basis.T @ matrix)


def _singular(matrix: torch.Tensor) -> torch.Tensor:
    import torch

    values: torch.Tensor = torch.linalg.svdvals(matrix)
    return values


def _matrix(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.reshape(tensor.shape[0], -1)


def _ratio(value: float, of: float) -> float | None:
    return _short(value / of) if of else None


def _short(value: float) -> float:
    """Round to four digits: what the number of threads changes is behind them."""
    return float(f"{value:.4g}")
