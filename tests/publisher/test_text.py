from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.strict_json import JsonError, strict_json, strict_object
from publisher.text import markdown, printable


@given(st.text())
def test_printable_text_is_one_line_that_a_terminal_shows_as_it_is(text: str) -> None:
    assert printable(text).isprintable()


def test_printable_leaves_ordinary_text_alone() -> None:
    assert printable("naïve café 日本 ok") == "naïve café 日本 ok"
    assert printable("a\x1b[31m\u202e\n\udc80") == "a\\x1b[31m\\u202e\\n\\udc80"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a-b", "a-b"),
        ("- x", "\\- x"),
        ("1. x", "1\\. x"),
        ("# x", "\\# x"),
        ("<b>&", "&lt;b&gt;&amp;"),
        ("[a](b)", "\\[a\\](b)"),
        ("a|b", "a\\|b"),
        ("a\nb", "a\\\\nb"),
    ],
)
def test_markdown_shows_text_as_it_is(text: str, shown: str) -> None:
    assert markdown(text) == shown


@pytest.mark.parametrize(
    "data",
    [b'{"a": 1, "a": 2}', b"NaN", b"-Infinity", b"\xef\xbb\xbf{}", b"\xff", b"[" * 65 + b"]" * 65, b"[" * 10**6, b""],
)
def test_json_that_parsers_disagree_about_is_refused(data: bytes) -> None:
    with pytest.raises(JsonError):
        strict_json(data)


def test_good_json_is_read() -> None:
    assert strict_json(b'[1, {"a": null}]') == [1, {"a": None}]
    assert strict_json(b"[" * 64 + b"]" * 64) is not None
    with pytest.raises(JsonError, match="object"):
        strict_object(b"[]")
