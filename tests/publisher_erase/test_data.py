from __future__ import annotations

import pytest
import torch
from torch import Tensor

from publisher_erase.data import Embedding, condense, pair_rows, retained_rows, stack_retained, stack_rows


def positions(length: int, n: int = 8, *, sign: float = 1.0) -> Embedding:
    """Make row i (sign i, 1): every row says where it comes from."""
    column = sign * torch.arange(n, dtype=torch.float64)
    return Embedding(torch.stack([column, torch.ones_like(column)], 1), length)


TWO_WORDS, ONE_WORD, EMPTY = positions(4), positions(3, sign=-1), positions(2, sign=-1)


def where(rows: Tensor) -> list[float]:
    return rows[:, 0].tolist()


@pytest.mark.parametrize(
    ("rule", "old", "new", "weights"),
    [
        ("last", [2], [-1], [1]),
        ("last-eos", [2, 3], [-1, -2], [1, 1]),
        ("mean-pad", [2, 3, 5.5], [-1, -2, -5], [1, 1, 4]),
        ("content", [1, 2, 3, 5.5], [-1, -1, -2, -5], [1, 1, 1, 4]),
        ("tail", [2, 3, 4, 5, 6, 7], [-1, -2, -3, -4, -5, -6], [1] * 6),
        ("all", [0, 1, 2, 3, 4, 5, 6, 7], [0, -1, -2, -3, -4, -5, -6, -7], [1] * 8),
    ],
)
def test_each_rule_takes_the_rows_it_names(rule: str, old: list[float], new: list[float], weights: list[float]) -> None:
    c, g, w = pair_rows(TWO_WORDS, ONE_WORD, rule)  # type: ignore[arg-type]
    assert (where(c), where(g), w.tolist()) == (old, new, weights)


@pytest.mark.parametrize(
    ("rule", "new"),
    [("last", [0]), ("last-eos", [0, -1]), ("content", [0, 0, -1, -4.5]), ("tail", [0, -1, -2, -3, -4, -5])],
)
def test_the_last_word_of_the_empty_prompt_is_bos(rule: str, new: list[float]) -> None:
    _, g, _ = pair_rows(TWO_WORDS, EMPTY, rule)  # type: ignore[arg-type]
    assert where(g) == new


def test_words_are_paired_from_the_end() -> None:
    longer = positions(5, sign=-1)
    c, g, _ = pair_rows(TWO_WORDS, longer, "content")
    assert (where(c)[:2], where(g)[:2]) == ([1, 2], [-2, -3])


def test_a_prompt_that_fills_all_positions_has_no_padding_row() -> None:
    full = positions(8)
    c, _, w = pair_rows(full, ONE_WORD, "mean-pad")
    assert (where(c), w.tolist()) == ([6, 7], [1, 1])
    assert len(retained_rows(full, "mean-pad")[0]) == 8


def test_retained_prompts_keep_every_word_and_their_mean_padding() -> None:
    rows, weights = retained_rows(ONE_WORD, "mean-pad")
    assert (where(rows), weights.tolist()) == ([0, -1, -2, -5], [1, 1, 1, 5])


@pytest.mark.parametrize("rule", ["last", "last-eos"])
def test_rules_without_padding_keep_none_either(rule: str) -> None:
    assert where(retained_rows(ONE_WORD, rule)[0]) == [0, -1, -2]  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", ["all", "tail"])
def test_the_peers_rules_keep_every_position(rule: str) -> None:
    assert len(retained_rows(ONE_WORD, rule)[0]) == 8  # type: ignore[arg-type]


def test_condensed_rows_have_the_same_second_moment() -> None:
    noise = torch.Generator().manual_seed(0)
    rows = torch.randn(30, 5, generator=noise, dtype=torch.float64)
    weights = torch.rand(30, generator=noise, dtype=torch.float64)
    less, ones = condense(rows, weights)
    assert less.shape == (5, 5)
    torch.testing.assert_close(less.T @ (ones[:, None] * less), rows.T @ (weights[:, None] * rows))


def test_few_rows_are_not_condensed() -> None:
    rows = torch.ones(3, 5)
    assert condense(rows, torch.ones(3))[0] is rows


def test_retained_texts_count_as_a_mean_however_many_there_are() -> None:
    texts = [positions(2 + i % 5) for i in range(40)]
    moments = []
    for copies in (1, 3):
        rows, v = stack_retained(texts * copies, "mean-pad")
        moments.append(rows.T @ (v[:, None] * rows))
    torch.testing.assert_close(*moments)


def test_prompts_of_one_concept_count_as_a_mean_and_concepts_as_a_sum() -> None:
    pair = (TWO_WORDS, ONE_WORD)
    once = stack_rows([[pair]], [EMPTY], "mean-pad")
    twice = stack_rows([[pair, pair]], [EMPTY], "mean-pad")
    both = stack_rows([[pair], [pair]], [EMPTY], "mean-pad")
    assert float(once.w.sum()) == float(twice.w.sum()) == float(both.w.sum()) / 2
