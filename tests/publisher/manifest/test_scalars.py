from __future__ import annotations

import pytest

from publisher.manifest.scalars import resolve, text_problem


def test_numbers_booleans_and_null_follow_the_core_schema_of_yaml_1_2() -> None:
    expected: dict[str, object] = {
        "1e-3": 1e-3,
        "1E3": 1000.0,
        ".5": 0.5,
        "-1.": -1.0,
        "+0.5": 0.5,
        "1.0": 1.0,
        "12": 12,
        "-3": -3,
        "+3": 3,
        "007": 7,
        "0o17": 15,
        "0xfF": 255,
        "true": True,
        "True": True,
        "FALSE": False,
        "": None,
        "~": None,
        "null": None,
        "NULL": None,
    }
    found = {text: resolve(text) for text in expected}
    assert {text: (value, type(value)) for text, value in found.items()} == {
        text: (value, type(value)) for text, value in expected.items()
    }


def test_what_yaml_1_1_would_have_converted_stays_text() -> None:
    words = ["no", "yes", "on", "off", "y", "2026-11-22", "1_000", "1:30", "0b1", "0o8", "1.0.0", "e3", ".", "tRUE"]
    assert [resolve(text) for text in words] == words


@pytest.mark.parametrize("text", [".inf", "-.INF", ".nan", ".NaN", "1e999", "9223372036854775808", "9" * 200_000])
def test_numbers_that_json_or_64_bits_cannot_hold_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"infinity|too large|64 bits"):
        resolve(text)


@pytest.mark.parametrize("text", ["a\x1b[2Jb", "a\0b", "\ud800", "safe\u202etxt", "\x85"])
def test_control_characters_are_refused_without_being_repeated(text: str) -> None:
    problem = text_problem(text)
    assert problem is not None
    assert problem.isprintable()


@pytest.mark.parametrize(
    "text", ["-----BEGIN EC PRIVATE KEY-----\nMHcC", "hf_" + "a" * 34, "ghp_" + "B" * 36], ids=["pem", "hub", "github"]
)
def test_secrets_are_recognised_and_not_repeated(text: str) -> None:
    problem = text_problem(text)
    assert problem is not None
    assert "secret" in problem
    assert text[:8] not in problem


def test_ordinary_text_is_fine() -> None:
    texts = ["two\nlines", "a\ttab", "café", "نص عربي", "😀", "hf:org/name"]
    assert [text for text in texts if text_problem(text)] == []
