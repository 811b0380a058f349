from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from publisher.api import Concept
from publisher.errors import ManifestError
from publisher.manifest import Resolved, read
from support.fake_catalog import SMALL, FakeCatalog

Write = Callable[[str | bytes], Path]
Problems = Callable[[str | bytes], list[str]]


def concept(resolved: Resolved, name: str) -> Concept:
    return resolved.scope.concept(name)


def test_everything_is_written_out(resolved: Callable[[str], Resolved]) -> None:
    result = resolved(SMALL)
    assert result.as_json() == {
        "manifest": 1,
        "manifest_sha256": hashlib.sha256(SMALL.encode()).hexdigest(),
        "release": {
            "name": "emoji-clean",
            "version": "1.0.0",
            "license": "CC-BY-4.0",
            "date": None,
            "provider": None,
            "contact": None,
            "acceptable_use": None,
            "card": None,
            "variants": [],
        },
        "model": "embedded:emoji",
        "base_safeguards": "refuse",
        "seed": 0,
        "device": "auto",
        "dtype": "auto",
        "scope": {
            "concepts": [written("cigarette", "cigarette", ["a cigarette emoji"])],
            "keep": [
                written("pistol", "pistol", ["a pistol emoji"]),
                written("police-officer", "police officer", ["a police officer emoji"]),
                written("t-shirt", "t-shirt", ["a t-shirt emoji"]),
                written("apple", "apple", ["an apple emoji"]),
                written("noto", "noto", in_style("noto"), kind="style"),
                written("blob", "blob", in_style("blob"), kind="style"),
                written("style-apple", "apple", in_style("apple"), kind="style"),
            ],
            "keep_prompts": [],
        },
        "steps": [
            {
                "id": "erase",
                "use": "erase",
                "concepts": ["cigarette"],
                "params": {"method": "rece", "rho": 0.1, "schedule": {"epochs": 3}},
                "given": {},
            }
        ],
        "evaluate": {
            "scorers": [
                {
                    "id": "emoji",
                    "use": "emoji",
                    "kinds": ["object", "style"],
                    "params": {},
                    "given": [],
                    "calibration": [],
                    "decides": True,
                }
            ],
            "executor": {"use": "local", "params": {"workers": 1}},
            "sampling": {"steps": 20, "guidance": 7.5, "images": 60, "kept_images": None, "seed": 0},
            "after_each_step": False,
            "trainings_after_each_step": False,
            "gates": {},
            "checks": [],
            "retrained": "",
            "images": True,
        },
        "sign": None,
        "hazards": {},
    }


def written(name: str, label: str, prompts: list[str], kind: str = "object") -> dict[str, object]:
    return {
        "id": name,
        "kind": kind,
        "name": label,
        "synonyms": [],
        "prompts": prompts,
        "paraphrases": [],
        "label": label,
        "description": "",
        "images": [],
    }


def in_style(style: str) -> list[str]:
    objects = ("a pistol", "a police officer", "a t-shirt", "an apple")
    return [f"{thing} in {style} style" for thing in objects]


def test_the_record_survives_json_and_is_the_same_each_time(resolved: Callable[[str], Resolved]) -> None:
    first = resolved(SMALL)
    assert Resolved.parse(json.loads(json.dumps(first.as_json()))) == first
    assert resolved(SMALL).model_dump_json() == first.model_dump_json()


def test_only_names_of_variables_are_recorded_never_what_they_hold(
    resolved: Callable[[str], Resolved], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KEY", "keys/of-mine.pem")
    monkeypatch.setenv("PASS", "hunter2")
    text = resolved(SMALL + "sign: {key_env: KEY, passphrase_env: PASS}\n").model_dump_json()
    assert '"key_env":"KEY"' in text
    assert not any(secret in text for secret in ("of-mine", "hunter2", str(tmp_path)))


def test_the_other_way_of_writing_gives_the_same_but_for_the_digest(resolved: Callable[[str], Resolved]) -> None:
    long = SMALL.replace("[cigarette]", "[{id: cigarette, kind: object, name: cigarette, label: cigarette}]")
    assert resolved(long).model_copy(update={"manifest_sha256": ""}) == resolved(SMALL).model_copy(
        update={"manifest_sha256": ""}
    )


def test_a_step_is_told_of_its_own_concepts_and_of_all_that_is_kept(resolved: Callable[[str], Resolved]) -> None:
    text = SMALL.replace("[cigarette]", "[cigarette, pistol]").replace(
        "[{use: erase}]", "[{use: erase, concepts: [pistol]}, {use: erase, id: again, with: {method: uce, rho: 1}}]"
    )
    result = resolved(text)
    scopes = [result.scope_of(step) for step in result.steps]
    assert [[each.id for each in scope.concepts] for scope in scopes] == [["pistol"], ["cigarette", "pistol"]]
    assert [[each.id for each in scope.others] for scope in scopes] == [["cigarette"], []]
    assert all(scope.keep == result.scope.keep for scope in scopes)
    assert [step.id for step in result.steps] == ["erase", "again"]
    assert result.steps[1].params == {"method": "uce", "rho": 1.0, "schedule": {"epochs": 3}}


CHECK = "{id: extra, attack: synonyms, metric: rate, concepts: [apple], gate: {upper_at_most: 0.1}}"


def test_further_checks_get_their_parameters_written_out(resolved: Callable[[str], Resolved]) -> None:
    (check,) = resolved(SMALL.replace("{scorer: emoji}", f"{{scorer: emoji, checks: [{CHECK}]}}")).evaluate.checks
    assert (check.attack_params, check.metric_params, check.concepts) == ({"limit": 5}, {}, ("apple",))


def test_gates_of_checks_that_only_the_steps_know_are_kept_as_they_are(resolved: Callable[[str], Resolved]) -> None:
    gates = "gates: {erase.cigarette.plain: {upper_at_most: 0.2}}"
    result = resolved(SMALL.replace("{scorer: emoji}", f"{{scorer: emoji, {gates}}}"))
    assert result.evaluate.gates["erase.cigarette.plain"].upper_at_most == 0.2


def test_an_unknown_step_names_the_nearest_one(write: Write, catalog: FakeCatalog) -> None:
    with pytest.raises(ManifestError) as caught:
        read(write(SMALL.replace("[{use: erase}]", "\n  - use: erase\n  - use: freze-mask")), catalog)
    assert (
        str(caught.value)
        == """\
m.yaml:11:10: step 2 uses 'freze-mask', which no plugin provides.
  Did you mean 'freeze-mask'?  Installed steps: erase, freeze-mask.
  See what is installed with: publisher plugins"""
    )


def test_a_step_of_a_plugin_that_was_set_aside_says_why(write: Write, catalog: FakeCatalog) -> None:
    with pytest.raises(ManifestError) as caught:
        read(write(SMALL.replace("{use: erase}", "{use: broken}")), catalog)
    (problem,) = caught.value.problems
    assert problem.hint.splitlines() == [
        "The plugin 'broken', which may provide this step, was set aside: no x.",
        "Installed steps: erase, freeze-mask.",
        "See what is installed with: publisher plugins",
    ]


def test_names_that_two_plugins_claim_are_refused_where_they_are_used(
    write: Write, catalog: FakeCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def conflict(kind: str, name: str) -> str | None:
        return f"the {kind} '{name}' is provided by a and b\n  Uninstall one of them."

    monkeypatch.setattr(catalog, "conflict", conflict)
    with pytest.raises(ManifestError) as caught:
        read(write(SMALL.replace("{scorer: emoji}", "{scorer: emoji, executor: local}")), catalog)
    assert [(problem.line, problem.message) for problem in caught.value.problems] == [
        (8, "the scorer 'emoji' is provided by a and b."),
        (9, "the step 'erase' is provided by a and b."),
        (10, "the scorer 'emoji' is provided by a and b."),
        (10, "the executor 'local' is provided by a and b."),
    ]
    assert {problem.hint for problem in caught.value.problems} == {"Uninstall one of them."}


def test_wrong_form_and_wrong_names_are_reported_together(problems: Problems) -> None:
    text = SMALL.replace("CC-BY-4.0}", "CC-BY-4.0, x: 1}").replace("{use: erase}", "{use: erase, with: {method: race}}")
    text = text.replace("embedded:emoji", "ftp://models/x").replace("{scorer: emoji}", "{scorer: emojis}")
    assert problems(text) == [
        "2:66: 'release' has no key 'x'.",
        "3:8: 'model': no plugin provides the source 'ftp'.",
        "9:37: 'method' must be 'uce' or 'rece', not the text 'race'.",
        "10:20: 'evaluate' uses the scorer 'emojis', which no plugin provides.",
    ]


def marked(text: str, old: str, new: str) -> tuple[str, str]:
    """Return the text after the replacement, and the place of the ``^`` in it, which is taken out."""
    assert old in text
    before, _, after = text.replace(old, new).partition("^")
    return before + after, f"{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("{use: erase}", "{use: erase, with: {rho: ^0}}", ["@: 'rho' must be more than 0, not the number 0."]),
        ("{use: erase}", "{use: erase, with: {^roh: 1}}", ["@: 'with' has no key 'roh'."]),
        (
            "{use: erase}",
            "{use: erase, with: {schedule: {epochs: ^99}}}",
            ["@: 'epochs' must be at most 50, not the number 99."],
        ),
        ("{use: erase}", "^{use: freeze-mask}", ["@: 'with' lacks the key 'share'."]),
        ("{use: erase}", "{use: erase, concepts: [^pistol]}", ["@: the concept 'pistol' is not in the manifest."]),
        ("{use: erase}", "{use: erase}, ^{use: erase}", ["@: the step 'erase' is here twice."]),
        (
            "{use: erase}",
            "{use: erase}, {use: freeze-mask, id: ^erase, with: {share: 0.5}}",
            ["@: the step 'erase' is here twice."],
        ),
        ("rest_of: emoji", "rest_of: ^emojy", ["@: 'rest_of' names the scorer 'emojy', which no plugin provides."]),
        (
            "scorer: emoji",
            "scorer: emoji, executor: ^ray",
            ["@: 'evaluate' uses the executor 'ray', which no plugin provides."],
        ),
        (
            "scorer: emoji",
            "scorer: emoji, executor: {with: {workers: ^0}}",
            ["@: 'workers' must be at least 1, not the number 0."],
        ),
        ("[cigarette]", "[^cigarete]", ["@: the scorer has no label 'cigarete' for the concept 'cigarete'."]),
        ("[cigarette]", "[{id: x, label: ^pistil}]", ["@: the scorer has no label 'pistil' for the concept 'x'."]),
        ("[cigarette]", "[{id: x, kind: ^person, prompts: [x]}]", ["@: no scorer judges the kind 'person'."]),
        ("[cigarette]", "[cigarette, ^cigarette]", ["@: the concept 'cigarette' is here twice, first in line 7."]),
        (
            "{rest_of: emoji}",
            "{rest_of: emoji, concepts: [^cigarette]}",
            ["@: the concept 'cigarette' is to be kept, and to go by line 7."],
        ),
        (
            "[cigarette]",
            "[{id: cigarette, synonyms: [smoke, ^Apple]}]",
            ["@: the synonym 'Apple' of 'cigarette' names the concept 'apple', to be kept by line 8."],
        ),
        (
            "[cigarette]",
            "[cigarette, ^{id: fruit, name: apple, label: pistol}]",
            ["@: the name 'apple' of 'fruit' names the concept 'apple', to be kept by line 8."],
        ),
        (
            "[cigarette]",
            "[^{id: cigarette, prompts: [an Apple  emoji]}]",
            ["@: the prompt 'an Apple  emoji' of 'cigarette' also asks for 'apple', which is to be kept."],
        ),
        ("  style:", "  person:", ["8:17: the concept of the kind 'style' has no prompts."]),
        (
            "[cigarette]",
            "[{id: x, kind: ^unsafe, label: noto}]",
            ["@: no scorer judges the kind 'unsafe'.", "7:12: the concept 'x' has no prompts."],
        ),
        (
            '"{a} {name} emoji"',
            '^"{person} {name}"',
            ["@: {person} stands for kept concepts of the kind 'person', and there is none."],
        ),
    ],
)
def test_names_and_parameters_are_checked_at_their_place(
    old: str, new: str, expected: list[str], problems: Problems
) -> None:
    text, place = marked(SMALL, old, new)
    assert sorted(problems(text)) == sorted(line.replace("@", place) for line in expected)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("attack: synonyms", "attack: ^synonym", ["@: check 1 uses the attack 'synonym', which no plugin provides."]),
        ("metric: rate", "metric: ^rat", ["@: check 1 uses the metric 'rat', which no plugin provides."]),
        ("metric: rate", "metric: rate, scorer: ^x", ["@: check 1 uses the scorer 'x', which no plugin provides."]),
        (
            "metric: rate",
            "metric: rate, attack_params: {limit: ^0}",
            ["@: 'limit' must be at least 1, not the number 0."],
        ),
        ("metric: rate", "metric: rate, metric_params: {^x: 0}", ["@: 'metric_params' has no key 'x'."]),
        ("[apple]", "[^aple]", ["@: the concept 'aple' is not in the manifest."]),
        (
            "rate, concepts: [apple]",
            "rate, scorer: objects, concepts: [^apple]",
            ["@: the scorer 'objects' has no object label 'apple' for the concept 'apple'."],
        ),
        (CHECK, f"{CHECK}, {CHECK.replace('id: ', 'id: ^')}", ["@: the check 'extra' is here twice."]),
    ],
)
def test_further_checks_are_checked_at_their_place(old: str, new: str, expected: list[str], problems: Problems) -> None:
    text = SMALL.replace("{scorer: emoji}", f"{{scorer: emoji, checks: [{CHECK}]}}")
    text, place = marked(text, old, new)
    assert problems(text) == [line.replace("@", place) for line in expected]


def test_a_retrained_model_is_a_reference_like_the_model(
    resolved: Callable[[str], Resolved], problems: Problems
) -> None:
    text = SMALL.replace("{scorer: emoji}", "{scorer: emoji, retrained: GOLD}")
    assert resolved(text.replace("GOLD", "./retrained")).evaluate.retrained == "./retrained"
    assert problems(text.replace("GOLD", "ftp:x")) == ["10:38: 'retrained': no plugin provides the source 'ftp'."]
    assert "no path of this machine" in problems(text.replace("GOLD", "/srv/retrained"))[0]


def test_a_key_that_was_renamed_names_the_new_one(problems: Problems) -> None:
    assert problems(SMALL.replace("evaluate:", "verify:")) == ["10:1: the key 'verify' is called 'evaluate' now."]
    check = CHECK.replace("id: extra", "id: extra, guards: off")
    (problem,) = problems(SMALL.replace("{scorer: emoji}", f"{{scorer: emoji, checks: [{check}]}}"))
    assert problem.endswith("the key 'guards' is called 'membranes' now.")
    (problem,) = problems(SMALL.replace("scorer: emoji", "scorer: emoji, gold: ./never"))
    assert problem.endswith("the key 'gold' is called 'retrained' now.")
    (problem,) = problems(SMALL.replace("{use: erase}", "{use: erase, with: {verify: 1}}"))
    assert problem.endswith("'with' has no key 'verify'.")
