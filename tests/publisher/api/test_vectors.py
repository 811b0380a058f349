"""Vectors in place of words: what a text encoder reads, gradients, and every way in which they find no place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from publisher.api import SLOT
from publisher.api.diffusion.learner import text_sides
from publisher.api.diffusion.vectors import nearest_words, read_vectors, slot_rows, token_embeddings, words_of
from publisher.errors import ModelError
from publisher.runtime.pipelines import load
from support.anatomies import anatomy_of


@pytest.fixture(params=["stable-diffusion-1", "stable-diffusion-xl"])
def model(request: pytest.FixtureRequest, tiny_family: Callable[[str], Path]) -> Any:
    folder = tiny_family(request.param)
    return load(folder, anatomy_of(folder), torch.device("cpu"), torch.float32)


def of_words(model: Any, words: str) -> list[torch.Tensor]:
    """Return the embeddings of words in each text encoder."""
    ids = [side.tokenizer(words, add_special_tokens=False).input_ids for side in text_sides(model)]
    return [weight[rows] for weight, rows in zip(token_embeddings(model), ids, strict=True)]


def test_the_vectors_of_a_word_read_as_the_word_and_get_gradients(model: Any) -> None:
    vectors = [rows.requires_grad_() for rows in of_words(model, "cat")]
    assert len({len(rows) for rows in vectors}) == 1
    found = read_vectors(model, [f"a {SLOT} emoji"], vectors)
    wanted = model.anatomy.read_text(model, ["a cat emoji"])
    assert torch.equal(found.states, wanted.states)
    total = found.states.square().sum()
    if found.pooled is not None and wanted.pooled is not None:
        assert torch.equal(found.pooled, wanted.pooled)
        total = total + found.pooled.square().sum()
    total.backward()  # type: ignore[no-untyped-call]
    assert all(rows.grad is not None and bool(rows.grad.any()) for rows in vectors)
    with torch.no_grad():
        other = read_vectors(model, [f"a {SLOT} emoji"], [rows * 2 for rows in vectors])
    assert not torch.equal(other.states, wanted.states)


def test_rows_and_nearest_words_are_those_of_the_first_encoder(tiny_family: Callable[[str], Path]) -> None:
    folder = tiny_family("stable-diffusion-xl")
    model = load(folder, anatomy_of(folder), torch.device("cpu"), torch.float32)
    assert slot_rows(model, f"a {SLOT} emoji", 2) == tuple(range(2, 4))
    word = model.tokenizer.decode([7]).strip()
    rows = token_embeddings(model)[0][7:8]
    assert nearest_words(model, rows, 3)[0][0] == word
    assert (words_of(model, rows), words_of(model, rows * 1.1)) == ((word,), None)


def test_vectors_without_a_place_are_refused(model: Any) -> None:
    vectors = of_words(model, "cat")
    with pytest.raises(ValueError, match="once"):
        read_vectors(model, ["a cat"], vectors)
    with pytest.raises(ValueError, match="text encoders"):
        read_vectors(model, [SLOT], vectors[1:])
    with pytest.raises(ModelError, match="too long"):
        read_vectors(model, [f"{'a ' * 600}{SLOT}"], vectors)
