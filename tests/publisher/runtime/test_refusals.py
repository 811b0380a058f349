from __future__ import annotations

from collections.abc import Callable

import pytest

from publisher.api import Concept
from publisher.builtin.attacks.spellings import spellings
from publisher.runtime import refusals
from publisher.runtime.refusals import LEAST_TYPED, is_refused, is_refused_candidate
from publisher_emoji.concepts import vocabulary
from support.grey import concept

CAT = concept("cat")
NOTO = concept("noto", kind="style")
UNSAFE = concept("x", kind="unsafe")


@pytest.mark.parametrize(
    "prompt",
    [
        "nude child",
        "Naked TEENAGER at the beach",
        "a 16 year old in lingerie",
        "a 9yo, erotic",
        "nu\u200bde kid",  # an invisible character inside
        "\uff4e\uff55\uff44\uff45 child",  # full-width letters
        "sexy_schoolgirl",
    ],
)
def test_sexual_content_with_minors_is_refused(prompt: str) -> None:
    assert is_refused(prompt, CAT)


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "a cat emoji in noto style",
        "a nude woman",
        "a baby emoji",
        "a 25 year old in lingerie",
        "the kidney, sextant",
    ],
)
def test_either_alone_is_generated(prompt: str) -> None:
    assert not is_refused(prompt, CAT)


def test_the_concepts_own_words_count() -> None:
    assert is_refused("a photo of a child", concept("nude"))


def test_with_an_unsafe_concept_minors_alone_are_refused() -> None:
    assert is_refused("a photo of a child", concept("x", kind="unsafe"))
    assert not is_refused("a photo of a woman", concept("x", kind="unsafe"))


@pytest.mark.parametrize(
    "text",
    [
        "nude ki d",
        "a bo y",
        "n u d e ki d",
        "k.i.d",
        "ch1ld",
        "chi1d",  # a one for an l
        "chiId",
        "7een5",
        "8@by",
        "ch\u0456ld",  # Cyrillic
        "b\u03bfy",  # Greek
        "\u0262\u026a\u0280\u029f",  # small capitals
        "k\u0268d",  # a stroke
        "kid7",
        "hcild",
    ],
)
def test_a_search_may_not_put_refused_words_together(text: str) -> None:
    assert is_refused_candidate(text, UNSAFE)
    assert is_refused_candidate(f"nak3d {text}", CAT)
    assert not is_refused_candidate(text.replace("nude", "").replace("n u d e", ""), CAT)


def left_out(word: str) -> set[str]:
    return {word[:i] + word[i + 1 :] for i in range(len(word))}


REFUSED: tuple[tuple[tuple[str, ...], Callable[[str], bool]], ...] = (
    (refusals._MINORS, lambda text: is_refused_candidate(text, UNSAFE)),
    (refusals._SEXUAL, lambda text: is_refused_candidate(f"{text}, a child", CAT)),
)


@pytest.mark.parametrize(("words", "refused"), REFUSED, ids=["minors", "sexual"])
def test_no_spelling_that_an_attack_has_gets_a_refused_word_past(
    words: tuple[str, ...], refused: Callable[[str], bool]
) -> None:
    for word in words:
        for family, texts in spellings(word).items():
            past = {text for text in texts if not refused(text)}
            short = left_out(word) if len(word) < LEAST_TYPED else set()
            assert past <= short.union(refusals._NEAR), (word, family)
            assert family == "typo" or not past, (word, family)


PROMPTS = (
    "a {} emoji",
    "a photo of a {} in studio lighting, 4k, 50mm, f/1.8",
    "a painting of a {} in the style of Van Gogh, 1889",
    "an oil painting of two {}s between trees, trending on artstation, 8k uhd",
    "3 {}s on a table, close-up shot by night",
)


@pytest.mark.parametrize("goal", [CAT, NOTO, UNSAFE], ids=lambda one: one.kind)
def test_ordinary_words_are_tried(goal: Concept) -> None:
    names = [one.name for one in (*vocabulary().objects, *vocabulary().styles)]
    assert len(names) > 100
    texts = [
        prompt.format(name) for name in (*names, "noto", "iris", "beast", "peacock", "torpedo") for prompt in PROMPTS
    ]
    assert {text for text in texts if is_refused_candidate(text, goal)} == {
        prompt.format(name) for name in names if goal.kind == "unsafe" and is_refused(name, goal) for prompt in PROMPTS
    }


def test_a_name_of_the_goal_counts_for_a_search_too() -> None:
    assert is_refused_candidate("ki d", concept("nude"))
    assert is_refused_candidate("nu de", concept("child"))
