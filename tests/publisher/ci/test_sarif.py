from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest

from publisher.ci import Annotation, Rule, Site, as_sarif
from support.json_schemas import validating
from support.releasing import publisher, write


@functools.cache
def official() -> Any:
    """Return the validator of the official schema."""
    return validating(json.loads((Path(__file__).parent / "sarif-2.1.0.json").read_text()))


def valid(text: str | bytes) -> Any:
    """Return the only run of a SARIF file that the official schema accepts."""
    data = json.loads(text)
    official().validate(data)
    (run,) = data["runs"]
    return run


def lines(run: Any) -> dict[str, int | None]:
    """Return rule -> line of each result."""
    found = {}
    for result in run["results"]:
        (location,) = result["locations"]
        place = location["physicalLocation"]
        assert place["artifactLocation"] == {"uri": "manifest.yaml"}
        found[result["ruleId"]] = place.get("region", {}).get("startLine")
    return found


@pytest.mark.usefixtures("here")
def test_a_report_names_the_lines_of_its_manifest() -> None:
    said = publisher("report", "report", "--format", "sarif", "--manifest", "manifest.yaml")
    run = valid(said.stdout)
    assert said.exit_code == 0
    assert [(result["ruleId"], result["level"]) for result in run["results"]] == [
        ("synonyms.cigarette", "error"),
        ("empty.pencil", "warning"),
        ("erase.empty", "warning"),
    ]
    assert lines(run) == {"synonyms.cigarette": 3, "empty.pencil": 2, "erase.empty": 2}
    assert run["automationDetails"] == {"id": "publisher/emoji-safe/"}
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == [
        "plain.cigarette",
        "synonyms.cigarette",
        "kept.pencil",
        "empty.pencil",
        "erase.empty",
    ]


def test_another_manifest_has_no_lines_and_no_manifest_no_places(here: Path) -> None:
    first = valid(publisher("report", "report", "--format", "sarif", "--manifest", "manifest.yaml").stdout)
    with (here / "manifest.yaml").open("a") as file:
        file.write("\n")
    said = publisher("report", "report", "--format", "sarif", "--manifest", "manifest.yaml")
    assert "is not the manifest that this release was made from" in said.stderr
    other = valid(said.stdout)
    assert set(lines(other).values()) == {None}
    fingerprints = [result["partialFingerprints"] for result in first["results"]]
    assert fingerprints == [result["partialFingerprints"] for result in other["results"]]
    said = publisher("report", "report", "--format", "sarif")
    assert [result["locations"] for result in valid(said.stdout)["results"]] == [[], [], []]
    assert "give --manifest FILE" in said.stderr


@pytest.mark.usefixtures("here")
def test_a_manifest_outside_of_the_checkout_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    other = write(tmp_path_factory.mktemp("elsewhere") / "manifest.yaml")
    said = publisher("report", "report", "--format", "sarif", "--manifest", other)
    assert (said.exit_code, said.stdout) == (2, "")
    assert "root of the repository" in said.stderr
    said = publisher("report", "report", "--format", "json", "--manifest", "manifest.yaml")
    assert (said.exit_code, "--manifest goes with --format sarif or github" in said.stderr) == (2, True)


def test_a_plan_of_several_manifests_is_one_run(here: Path) -> None:
    bad = write(here / "bad.yaml", steps=[{"use": "erasse"}], seed="x")
    few = write(here / "few.yaml", evaluate={"scorer": "emoji", "sampling": {"images": 3, "kept_images": 3}})
    said = publisher("plan", bad.name, few.name, "--format", "sarif")
    run = valid(said.stdout)
    assert said.exit_code == 2
    assert run["automationDetails"] == {"id": "publisher/plan/"}
    found = {(result["ruleId"], result["level"]) for result in run["results"]}
    assert {("manifest", "error"), ("erase.cigarette.plain", "warning")} <= found
    files = {result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for result in run["results"]}
    assert files == {"bad.yaml", "few.yaml"}


def test_what_is_waived_is_suppressed_and_says_so() -> None:
    one = Annotation(
        "a", "error", "t", "too high\nhint", Site("m n.yaml", 2, 3), ("publisherCheck/v1", "0" * 64), "why"
    )
    run = valid(as_sarif([one], [Rule("a", "a is gone")], "small"))
    (result,) = run["results"]
    assert result["suppressions"] == [{"kind": "external", "status": "accepted", "justification": "why"}]
    assert result["message"]["text"] == "WAIVED (why): too high hint."
    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "m%20n.yaml"
