from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import Field, ValidationError

from publisher.api import Params
from publisher.errors import ExitCode, ManifestError, UsageError
from publisher.manifest import load
from publisher.manifest.messages import add_errors
from publisher.manifest.places import Places, Problems

Write = Callable[[str | bytes], Path]

FIRST = "a letter or digit first"
ID = f"1 to 64 lower-case letters, digits, '.', '_', '-', {FIRST}"
KINDS = "'object', 'style', 'person' or 'unsafe'"
PLACEHOLDERS = "{name}, {a}, {object}, {style}, {person}, {unsafe}"
NO_SECRETS = (
    "  A manifest holds no secrets: export PUBLISHER_KEY=path/of/key.pem, and write only key_env: PUBLISHER_KEY."
)

SMALL = """\
manifest: 1
release: {name: emoji-clean, version: 1.0.0, license: CC-BY-4.0}
model: embedded:emoji
concepts: [{id: cigarette, prompts: [a cigarette]}]
steps: [{use: erase}]
"""


@pytest.fixture
def wrong(write: Write) -> Callable[..., list[str]]:
    """What is wrong with SMALL after replacements, as ``line:column: message`` and hint lines."""

    def wrong(*replacements: tuple[str, str]) -> list[str]:
        text = SMALL
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        with pytest.raises(ManifestError) as caught:
            load(write(text))
        return [line.removeprefix("m.yaml:") for line in str(caught.value).splitlines()]

    return wrong


def test_a_small_manifest_loads_with_its_defaults(write: Write) -> None:
    document = load(write(SMALL))
    manifest = document.manifest
    assert (manifest.seed, manifest.device, manifest.dtype) == (0, "auto", "auto")
    evaluate = manifest.evaluate
    assert (evaluate.executor.use, evaluate.images, evaluate.after_each_step) == ("local", True, False)
    assert manifest.sign is None
    assert document.sha256 == hashlib.sha256(SMALL.encode()).hexdigest()


def test_the_short_form_of_a_concept_is_its_id(write: Write) -> None:
    short = load(write(SMALL.replace("concepts: [{id: cigarette, prompts: [a cigarette]}]", "concepts: [cigarette]")))
    long = load(
        write(SMALL.replace("concepts: [{id: cigarette, prompts: [a cigarette]}]", "concepts: [id: cigarette]"))
    )
    assert short.manifest.concepts == long.manifest.concepts


def test_a_date_is_text(write: Write) -> None:
    manifest = load(write(SMALL.replace("CC-BY-4.0}", "CC-BY-4.0, date: 2026-11-22}"))).manifest
    assert manifest.release.date == "2026-11-22"


def test_every_problem_is_reported_at_once_and_in_order(write: Write) -> None:
    text = """\
        manifest: 1
        release: {name: emoji-clean, version: 1.0, licence: CC-BY-4.0}
        model: &model embedded:emoji
        seed: -1
        concepts: [{id: cigarette, kind: objekt}]
        steps:
          - {use: erase, with: [rece]}
        evaluate: {sampling: {images: 0}, imges: false}
        """
    with pytest.raises(ManifestError) as caught:
        load(write(text))
    assert caught.value.exit_code == ExitCode.USAGE
    assert (
        str(caught.value)
        == """\
m.yaml:2:1: 'release' lacks the key 'license'.
  license: Licence of the package: an SPDX identifier such as CC-BY-4.0, or the name of the model's own licence.
m.yaml:2:39: 'version' must be text, not the number 1.0.
  Put it in quotes: "1.0"
m.yaml:2:44: 'release' has no key 'licence'.
  Did you mean 'license'?  Known keys: name, version, license, date, provider, contact, acceptable_use, card, variants.
m.yaml:3:8: '&model' is an anchor.
  Anchors, aliases and merge keys are refused: write the value out.
m.yaml:4:7: 'seed' must be at least 0, not the number -1.
m.yaml:5:34: 'kind' must be 'object', 'style', 'person' or 'unsafe', not the text 'objekt'.
  Did you mean 'object'?
m.yaml:7:24: 'with' must be a mapping (key: value), not a list.
m.yaml:8:31: 'images' must be at least 1, not the number 0.
m.yaml:8:35: 'evaluate' has no key 'imges'.
  Did you mean 'images'?  Known keys: scorer, scorers, executor, sampling, after_each_step, \
trainings_after_each_step, gates, checks, red_team, retrained, finds, images."""
    )


def test_missing_sections_are_missed_at_the_top(write: Write) -> None:
    with pytest.raises(ManifestError) as caught:
        load(write("manifest: 1\n"))
    assert [(problem.line, problem.column, problem.message) for problem in caught.value.problems] == [
        (1, 1, f"the manifest lacks the key '{key}'.") for key in ("concepts", "model", "release")
    ]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("manifest: 1", "manifest: 2", ["1:11: 'manifest' must be 1, not the number 2."]),
        (
            "1.0.0",
            "''",
            [f"2:39: 'version' must be 1 to 32 letters, digits, '.', '+', '_', '-', {FIRST}, not the text ''."],
        ),
        (
            "emoji-clean",
            "../up",
            [f"2:17: 'name' must be 1 to 64 letters, digits, '.', '_', '-', {FIRST}, not the text '../up'."],
        ),
        ("emoji-clean", "[a]", ["2:17: 'name' must be text, not a list."]),
        ("emoji-clean", "yes", []),
        ("emoji-clean", "true", ["2:17: 'name' must be text, not true.", '  Put it in quotes: "true"']),
        ("emoji-clean", "~", ["2:17: 'name' must be text, not nothing."]),
        (
            "CC-BY-4.0}",
            "x, date: 2026-02-30}",
            ["2:64: 'date': there is no day '2026-02-30': write year-month-day, such as 2026-11-22."],
        ),
        ("[{use: erase}]", "[]", ["5:8: 'steps': must not be empty."]),
        (
            "[{use: erase}]",
            "[erase]",
            ["5:9: entry 1 of 'steps' must be a mapping (key: value), not the text 'erase'."],
        ),
        ("[{use: erase}]", "{use: erase}", ["5:8: 'steps' must be a list, not a mapping."]),
        (
            "[{use: erase}]",
            "[{use: erase, concepts: [Gun]}]",
            [f"5:33: entry 1 of 'concepts' must be {ID}, not the text 'Gun'."],
        ),
        (
            "[{use: erase}]",
            "[{}]",
            ["5:9: entry 1 of 'steps' lacks the key 'use'.", "  use: Name of the step, as publisher plugins lists it."],
        ),
        (
            "id: cigarette,",
            "id: cigarette, kind: 3,",
            [f"4:34: 'kind' must be {KINDS}, not the number 3.", '  Put it in quotes: "3"'],
        ),
        (
            "[{id: cigarette, prompts: [a cigarette]}]",
            "[1984, null, ~, yes]",
            [
                "4:12: 'id' must be text, not the number 1984.",
                '  Put it in quotes: "1984"',
                "4:18: 'id' must be text, not nothing.",
                '  If it is a word, put it in quotes: "null"',
                "4:24: 'id' must be text, not nothing.",
            ],
        ),
        ("[a cigarette]", "a cigarette", ["4:37: 'prompts' must be a list, not the text 'a cigarette'."]),
        (
            "[a cigarette]",
            "['a {nam}']",
            [f"4:38: entry 1 of 'prompts': {{nam}} is no placeholder; there are {PLACEHOLDERS}."],
        ),
    ],
)
def test_messages_say_what_is_wrong_and_what_would_be_right(
    old: str, new: str, expected: list[str], write: Write, wrong: Callable[..., list[str]]
) -> None:
    if expected:
        assert wrong((old, new)) == expected
    else:
        load(write(SMALL.replace(old, new)))


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{a} emoji", "without {name} every concept would get the same prompt"),
        ("{name} {", "a brace without its partner; a brace that is meant is written {{ or }}"),
        ("{name!r}", "nothing may follow a placeholder's name inside the braces"),
        ("{name:>9}", "nothing may follow a placeholder's name inside the braces"),
        ("{name.__class__}", f"{{name.__class__}} is no placeholder; there are {PLACEHOLDERS}"),
    ],
)
def test_templates_are_checked_before_they_are_used(
    template: str, expected: str, wrong: Callable[..., list[str]]
) -> None:
    prompts = ("concepts:", f'prompts: {{object: ["{template}"]}}\nconcepts:')
    assert wrong(prompts) == [f"4:20: entry 1 of 'object': {expected}."]


@pytest.mark.parametrize(
    "path",
    [
        "/models/mine",
        "~/model",
        "C:\\\\model",
        "folder:/models/mine",
        "\\\\\\\\host\\\\model",
        "file:" + "///models/mine",
    ],
)
def test_a_path_of_this_machine_is_no_model(path: str, wrong: Callable[..., list[str]]) -> None:
    (line,) = wrong(("embedded:emoji", f'"{path}"'))
    assert line.startswith("3:8: 'model': a manifest is published with the package, so its model is no path of this")
    assert "mine" not in line


def test_a_gate_needs_a_bound_of_the_interval(wrong: Callable[..., list[str]]) -> None:
    (line,) = wrong(("steps:", "evaluate: {gates: {erase.x.plain: {value_at_most: 0.1}}}\nsteps:"))
    assert line.startswith("5:35: 'erase.x.plain': a gate needs upper_at_most or lower_at_least")


def test_what_was_refused_by_the_reader_is_not_complained_about_again(wrong: Callable[..., list[str]]) -> None:
    lines = wrong(("1.0.0", "!!float 1.0"), ("embedded:emoji", "&m {a: [1]}"))
    assert [line for line in lines if not line.startswith("  ")] == [
        "2:39: this value has a tag.",
        "3:8: '&m' is an anchor.",
    ]


@pytest.mark.parametrize("value", ["keys/private.pem", "/home/me/key.pem", "s3cret!", "lower_case", "[a]", "7"])
def test_where_a_secret_may_stand_only_names_of_variables_are_taken_and_nothing_is_repeated(
    value: str, wrong: Callable[..., list[str]]
) -> None:
    assert wrong(("steps:", f"sign: {{key_env: {value}, passphrase_env: {value}}}\nsteps:")) == [
        line
        for column, key in ((17, "key_env"), (35 + len(value), "passphrase_env"))
        for line in (
            f"5:{column}: '{key}' must be the name of an environment variable.",
            NO_SECRETS,
        )
    ]


def test_a_key_or_passphrase_in_the_manifest_is_refused_without_being_repeated(
    wrong: Callable[..., list[str]],
) -> None:
    text = "\n".join(wrong(("steps:", "sign: {key_env: KEY, passphrase: hunter2}\nsteps:")))
    assert text.startswith("5:22: 'sign' has no key 'passphrase'.\n  Did you mean 'passphrase_env'?")
    assert "hunter2" not in text


def test_a_private_key_anywhere_is_refused_without_being_repeated(wrong: Callable[..., list[str]]) -> None:
    pem = "license: |\n  -----BEGIN PRIVATE KEY-----\n  MIGHAgEAMBMG\n"
    text = "\n".join(wrong(("release: {name: emoji-clean, version: 1.0.0, license: CC-BY-4.0}\n", f"{pem}")))
    assert "1:1: the manifest lacks the key 'release'" in text
    assert "2:10: this looks like a secret" in text
    assert "MIGH" not in text


@pytest.mark.parametrize("text", ["just text", "[1]", "~", "3"])
def test_a_manifest_is_a_mapping(text: str, write: Write) -> None:
    with pytest.raises(ManifestError) as caught:
        load(write(text))
    assert str(caught.value).startswith("m.yaml:1:1: the manifest must be a mapping (key: value).")


def test_thousands_of_wrong_keys_are_reported_up_to_a_hundred(write: Write) -> None:
    with pytest.raises(ManifestError) as caught:
        load(write("".join(f"{'k' * 80}{i}: 1\n" for i in range(2_400))))
    assert len(caught.value.problems) == 100


class Pair(Params):
    """Two or more."""

    both: tuple[int, ...] = Field(min_length=2)


@pytest.mark.parametrize(
    ("both", "expected"),
    [
        ([], ["'both': needs at least 2."]),
        ([1], ["'both': needs at least 2."]),
        (["x"], ["entry 1 of 'both' must be a whole number, not the text 'x'."]),
        (["x", 1], ["entry 1 of 'both' must be a whole number, not the text 'x'."]),
    ],
)
def test_a_list_is_too_short_or_has_wrong_entries_and_one_of_both_is_said(
    both: list[object], expected: list[str]
) -> None:
    problems = Problems(Places())
    with pytest.raises(ValidationError) as caught:
        Pair.parse({"both": both})
    add_errors(caught.value, Pair, problems)
    assert [problem.message for problem in problems] == expected


def test_a_file_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load(tmp_path / "none.yaml")
    assert caught.value.what == "there is no such file."
    assert caught.value.where == str(tmp_path / "none.yaml")


def test_a_folder_is_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot be read: Is a directory"):
        load(tmp_path)
