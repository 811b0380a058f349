from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from publisher.api import UsageError
from publisher_immunize.merge import KeptTokens, Merge, distinct

WIDTHS = (32, 768, 1024, 2048)


def generate(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make(
    width: int, rows: tuple[int, ...] = (5, 7), captions: int = 0, *, start: int = 100
) -> tuple[Merge, list[Tensor]]:
    texts = [generate(count, width, seed=start + n) for n, count in enumerate(rows)]
    keep = KeptTokens(generate(captions or 300, width), ridge=1e-4)
    return Merge(keep, texts, tolerance=1e-3, condition=1e10), texts


@pytest.mark.parametrize("width", WIDTHS)
def test_every_concept_row_reads_as_in_the_concepts_own_copy(width: int) -> None:
    merge, texts = make(width)
    weight = generate(16, width, seed=1)
    deltas = [1e-3 * generate(16, width, seed=2 + n) for n in range(2)]
    read = torch.stack([delta @ merge.rows.T for delta in deltas])
    merged = merge.weight(weight, merge.combine(read))
    for text, delta in zip(texts, deltas, strict=True):
        wanted = (weight + delta) @ text.T
        assert float((merged @ text.T - wanted).norm() / (delta @ text.T).norm()) < 1e-5


@pytest.mark.parametrize("width", [32, 768])
def test_the_factored_form_is_the_published_formula(width: int) -> None:
    merge, texts = make(width)
    weight, delta = generate(16, width, seed=1), 1e-3 * generate(2, 16, width, seed=2)
    t = torch.cat(texts)
    c = generate(300, width)
    c = c.T @ c
    c += 1e-4 * c.diagonal().mean() * torch.eye(width, dtype=c.dtype)
    v = torch.cat([text @ (weight + part).T for text, part in zip(texts, delta, strict=True)])
    inverse = torch.linalg.inv(c)
    published = weight + (v.T - weight @ t.T) @ torch.linalg.inv(t @ inverse @ t.T) @ t @ inverse
    ours = merge.weight(weight, merge.combine(delta @ merge.rows.T))
    torch.testing.assert_close(ours, published, rtol=0, atol=1e-9)


def test_without_adaptation_not_a_bit_changes() -> None:
    merge, _ = make(32)
    weight = generate(16, 32, seed=1).float()
    a = merge.combine(torch.zeros(2, 16, len(merge.rows)))
    assert torch.equal(merge.weight(weight, a), weight)
    x = generate(3, 9, 32, seed=4).float()
    assert torch.equal(x @ weight.T + merge.term(x, a), x @ weight.T)


def test_captions_to_keep_change_least_of_all_solutions() -> None:
    merge, _ = make(32, captions=64)
    captions = generate(64, 32)
    a = generate(16, len(merge.rows), seed=3)
    least = float((a @ merge.p @ captions.T).norm())
    plain = torch.linalg.pinv(merge.rows.T)
    assert least < float((a @ plain @ captions.T).norm())
    torch.testing.assert_close(plain @ merge.rows.T, merge.p @ merge.rows.T)


def test_the_term_on_texts_is_the_weight_on_texts() -> None:
    merge, _ = make(32)
    a, x = generate(16, len(merge.rows), seed=3), generate(2, 9, 32, seed=4)
    torch.testing.assert_close(merge.term(x, a), x @ (a @ merge.p).T)


def test_the_gradient_through_the_merge_is_that_of_finite_differences() -> None:
    merge, _ = make(6, rows=(1, 2), captions=20)
    weight, x, aim = generate(3, 6, seed=1), generate(4, 6, seed=2), generate(4, 3, seed=3)

    def loss(deltas: Tensor) -> Tensor:
        merged = merge.weight(weight, merge.combine(deltas @ merge.rows.T))
        return (torch.tanh(x @ merged.T) - aim).square().sum()

    deltas = (0.1 * generate(2, 3, 6, seed=5)).requires_grad_()
    assert torch.autograd.gradcheck(loss, (deltas,))


def test_the_gradient_is_two_thin_products() -> None:
    merge, _ = make(32)
    weight, up = generate(16, 32, seed=1), generate(16, 32, seed=6)
    deltas = generate(2, 16, 32, seed=5).requires_grad_()
    merged = merge.weight(weight, merge.combine(deltas @ merge.rows.T))
    (found,) = torch.autograd.grad(merged, deltas, up)
    for n in range(2):
        torch.testing.assert_close(found[n], (up @ merge.p.T) * merge.share[n] @ merge.rows)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_order_of_the_concepts_does_not_matter(order: tuple[int, ...]) -> None:
    texts = [generate(4, 32, seed=n) for n in range(3)]
    texts[2][0] = texts[0][0] * (1 + 1e-5)
    deltas = generate(3, 16, 32, seed=7)
    keep = KeptTokens(generate(64, 32), ridge=1e-4)
    weight = generate(16, 32, seed=1)
    found = []
    for turn in ((0, 1, 2), order):
        merge = Merge(keep, [texts[n] for n in turn], 1e-3, 1e10)
        found.append(merge.weight(weight, merge.combine(deltas[list(turn)] @ merge.rows.T)))
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-10)


def test_near_duplicates_count_once_and_read_as_the_mean_of_the_copies() -> None:
    shared = generate(1, 32, seed=9)
    texts = [torch.cat([shared * (1 + 1e-6), generate(2, 32, seed=1)]), torch.cat([generate(2, 32, seed=2), shared])]
    rows, share = distinct(texts, tolerance=1e-3)
    assert len(rows) == 5
    assert share[:, 0].tolist() == [0.5, 0.5]
    assert sorted(share.sum(0).tolist()) == [1.0] * 5
    merge = Merge(KeptTokens(generate(64, 32), 1e-4), texts, 1e-3, 1e10)
    deltas = 1e-3 * generate(2, 16, 32, seed=3)
    a = merge.combine(deltas @ merge.rows.T)
    torch.testing.assert_close(a @ merge.p @ shared.T, deltas.mean(0) @ shared.T, rtol=1e-4, atol=1e-8)


def test_near_duplicates_that_the_tolerance_misses_are_an_error_not_round_off() -> None:
    shared = generate(1, 32, seed=9)
    texts = [torch.cat([shared, generate(2, 32, seed=1)]), shared + 1e-7 * generate(1, 32, seed=4)]
    with pytest.raises(UsageError, match="cannot tell 4 text rows of 32 numbers apart") as error:
        Merge(KeptTokens(generate(64, 32), 1e-4), texts, tolerance=0.0, condition=1e10)
    assert "merge.tolerance" in str(error.value)


def test_more_rows_than_dimensions_are_an_error() -> None:
    with pytest.raises(UsageError, match="cannot tell 12 text rows of 8 numbers apart"):
        make(8, rows=(5, 7))


def test_fewer_captions_than_dimensions_are_enough() -> None:
    merge, texts = make(768, captions=40)
    torch.testing.assert_close(merge.p @ torch.cat(texts).T, torch.eye(12, dtype=torch.float64), rtol=0, atol=1e-8)
