"""What a manifest leaves out comes from the source of its model; what it says stands."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from publisher.api import Sampling
from publisher.manifest import Resolved

Resolve = Callable[[str], Resolved]
Problems = Callable[[str], list[str]]
SHORT = """
release: {name: clean, version: 1.0.0, license: MIT}
model: embedded:known
concepts: [cigarette]
steps: [{use: erase}]
"""


def test_five_lines_are_a_manifest_where_the_source_knows_the_rest(resolved: Resolve) -> None:
    found = resolved(SHORT)
    assert [scorer.id for scorer in found.evaluate.scorers] == ["emoji"]
    assert (found.evaluate.sampling.steps, found.evaluate.sampling.guidance) == (4, 3.0)
    assert found.scope.concepts[0].prompts == ("a cigarette emoji",)
    kept = [concept.id for concept in found.scope.keep]
    assert kept == ["pistol", "police-officer", "t-shirt", "apple", "noto", "blob", "style-apple"]


def test_what_the_manifest_says_stands(resolved: Resolve) -> None:
    text = SHORT + "prompts: {object: ['{name}!'], style: ['in {name}']}\nkeep: {concepts: [apple]}\n"
    found = resolved(text + "evaluate: {scorer: objects, sampling: {steps: 9}}\n".replace("objects", "emoji"))
    assert found.scope.concepts[0].prompts == ("cigarette!",)
    assert [concept.id for concept in found.scope.keep] == ["apple"]
    assert (found.evaluate.sampling.steps, found.evaluate.sampling.guidance) == (9, 3.0)


def test_an_empty_section_keeps_nothing(resolved: Resolve) -> None:
    assert resolved(SHORT + "keep: {}\n").scope.keep == ()


def test_a_source_without_defaults_brings_none(problems: Problems) -> None:
    (problem,) = problems(SHORT.replace("embedded:known", "./model"))
    assert problem == "4:12: the concept 'cigarette' has no prompts."


@pytest.mark.parametrize(
    ("images", "each", "kept", "expected"),
    [
        (60, None, 145, [2] * 5 + [1] * 140),
        (60, None, 10, [15] * 10),
        (60, None, 7, [22] * 3 + [21] * 4),
        (60, None, 1, [60]),
        (60, 7, 145, [7] * 145),
        (60, None, 200, [1] * 200),
        (4, None, 2, [4, 4]),
    ],
)
def test_150_images_are_shared_out_among_what_stays_and_the_first_get_what_is_left_over(
    images: int, each: int | None, kept: int, expected: list[int]
) -> None:
    sampling = Sampling(images=images, kept_images=each)
    assert [sampling.for_kept(kept, place).images for place in range(kept)] == expected
    assert sampling.leaves_some_over(kept) == (len(set(expected)) > 1)
