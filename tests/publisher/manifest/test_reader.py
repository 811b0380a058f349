from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from publisher.manifest import scalars
from publisher.manifest.reader import MAX_BYTES, MAX_VALUES, Reading

KIB256 = MAX_BYTES


def wrong(text: str | bytes) -> list[str]:
    reading = Reading(text if isinstance(text, bytes) else text.encode())
    return [f"{problem.line}:{problem.column}: {problem.message}" for problem in sorted(reading.problems)]


def test_values_and_their_places() -> None:
    reading = Reading(b"a: 1\nb:\n  - x\n  - {c: 1e-3}\n")
    assert reading.data == {"a": 1, "b": ["x", {"c": 0.001}]}
    assert not list(reading.problems)
    value = reading.places.value(("b", 1, "c"))
    assert (value.line, value.column, value.text) == (4, 9, "1e-3")
    key = reading.places.key(("b", 1, "c"))
    assert (key.line, key.column) == (4, 6)


def test_the_place_of_what_is_missing_is_that_of_what_is_around_it() -> None:
    places = Reading(b"a: 1\nb:\n  c: {d: 2}\n").places
    assert (places.key(("b", "x")).line, places.key(("b", "x")).column) == (2, 1)
    assert (places.value(("nothing",)).line, places.value(("nothing",)).column) == (1, 1)


def test_quoted_text_is_never_read_as_a_number() -> None:
    assert Reading(b"a: \"1.0\"\nb: '~'\nc: |\n  1\n").data == {"a": "1.0", "b": "~", "c": "1\n"}


def test_a_byte_order_mark_does_not_shift_columns() -> None:
    assert wrong(b"\xef\xbb\xbfa: !t x\n") == ["1:4: this value has a tag."]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: &x 1\n", ["1:4: '&x' is an anchor."]),
        ("a: b\nc: *x\n", ["2:4: '*x' is an alias."]),
        ("a: !!python/object/apply:os.system [ls]\n", ["1:4: this value has a tag."]),
        ("a: ! x\n", ["1:4: this value has a tag."]),
        ("&x a: 1\n", ["1:1: '&x' is an anchor."]),
        ("a: {b: 1}\nc:\n  <<: {b: 1}\n", ["3:3: '<<' is a merge key."]),
        ("a: 1\nb: 2\na: 3\n", ["3:1: the key 'a' is here twice, first in line 1."]),
        ("1: a\n", ["1:1: a key must be text, and 1 is none."]),
        ("null: a\n", ["1:1: a key must be text, and null is none."]),
        ("? \n: a\n", ["1:2: a key must be text, and an empty one is none."]),
        ("a: {{b}: c}\n", ["1:5: a key must be text, not a list or a mapping."]),
        ("[a]: c\n", ["1:1: a key must be text, not a list or a mapping."]),
        ("a: .nan\n", ["1:4: infinity and NaN are no values here."]),
        ("a: -.inf\n", ["1:4: infinity and NaN are no values here."]),
        ("a: 1e999\n", ["1:4: the number is too large."]),
        ("a: 99999999999999999999\n", ["1:4: the number does not fit into 64 bits."]),
        ('a: "x\\u001b[2J"\n', ["1:4: the text holds the control character U+001B."]),
        ('"a\\0": x\n', ["1:1: the text holds the control character U+0000."]),
        ("a: 1\n---\nb: 2\n", ["2:1: a second document begins here."]),
        ("", ["1:1: the manifest is empty."]),
        ("# only a comment\n", ["1:1: the manifest is empty."]),
        ("a:\n\tb: 1\n", ["2:1: a tab cannot indent YAML."]),
        (
            "a: [1, 2\nb: 3\n",
            ["2:2: this is not YAML: while parsing a flow sequence, expected ',' or ']', but got ':'."],
        ),
        ("a: b: c\n", ["1:5: this is not YAML: mapping values are not allowed here."]),
        (b"a: 1\nb: caf\xe9\n", ["2:7: byte 0xe9 is not UTF-8."]),
        (b"a: 1\nb: x\x00\n", ["2:5: the file holds the character U+0000, which YAML does not allow."]),
    ],
)
def test_what_is_refused_is_refused_at_its_place(text: str | bytes, expected: list[str]) -> None:
    assert wrong(text) == expected


def test_all_refusals_come_at_once() -> None:
    text = "a: &x 1\nb: *x\nc: !t 2\nc: 3\n5: 6\ne: .nan\n"
    assert [line.partition(": ")[0] for line in wrong(text)] == ["1:4", "2:4", "3:4", "4:1", "5:1", "6:4"]


def test_a_repeated_key_keeps_its_first_value_and_place() -> None:
    reading = Reading(b"a: 1\na: {b: 2}\n")
    assert reading.data == {"a": 1}
    assert reading.places.value(("a",)).line == 1


def test_32_levels_are_read_and_33_are_not() -> None:
    assert wrong("[" * 32 + "]" * 32) == []
    assert wrong("[" * 33 + "]" * 33) == ["1:33: lists and mappings are nested deeper than 32 levels."]


def test_256_kib_are_read_and_one_byte_more_is_not() -> None:
    assert wrong(b"a: " + b"x" * (KIB256 - 3)) == []
    assert wrong(b"a: " + b"x" * (KIB256 - 2)) == ["1:1: the manifest is larger than 256 KiB."]


BOMBS = {
    "a billion laughs": "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{f'*a{i - 1}, ' * 9}]\n" for i in range(1, 99)),
    "open lists": "[" * KIB256,
    "many keys": "".join(f"k{i}: v\n" for i in range(30_000))[: KIB256 - 1],
    "one key many times": "a: v\n" * (KIB256 // 5),
    "documents": "---\n" * (KIB256 // 4),
    "digits": "a: " + "1" * (KIB256 - 4),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_after_a_bounded_number_of_values(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = 0
    resolve = scalars.resolve

    def counted(text: str) -> str | float | bool | None:
        nonlocal looked_at
        looked_at += 1
        return resolve(text)

    monkeypatch.setattr(scalars, "resolve", counted)
    found = wrong(BOMBS[name])
    assert 1 <= len(found) <= 100
    assert looked_at <= 2 * MAX_VALUES


def test_more_than_5_000_values_are_refused() -> None:
    assert wrong("- a\n" * 4_999) == []
    assert wrong("- a\n" * 5_000) == ["5000:3: the manifest holds more than 5000 values."]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["C", "Zl", "Zp"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(codec="ascii", exclude_categories=["C"])), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(JSON)
@settings(max_examples=150, deadline=None)
def test_json_is_read_as_it_was_written(data: object) -> None:
    reading = Reading(json.dumps(data, ensure_ascii=False).encode())
    assert not list(reading.problems)
    assert reading.data == data


@given(st.binary(max_size=300) | st.text(st.sampled_from("ab:-[]{}&*!|>'\"#%@`,?\n\t \\0.~<"), max_size=80))
@settings(max_examples=300, deadline=None)
def test_whatever_the_bytes_there_is_data_or_a_problem_and_no_crash(raw: bytes | str) -> None:
    reading = Reading(raw if isinstance(raw, bytes) else raw.encode())
    assert reading.complete or list(reading.problems)
