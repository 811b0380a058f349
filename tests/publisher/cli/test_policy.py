"""``--policy`` on plan, release and verify."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.json_schemas import validating
from support.releasing import publisher, write

RULE = "require:\n- {kind: object, attacks: [plain], metric: concept-rate, upper_at_most: 0.5}\n"
TINY = "licenses: [Apache-2.0]\nmax_age: 99999d\n"


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    monkeypatch.chdir(tmp_path)

    def make(text: str) -> Path:
        Path("policy.yaml").write_text(f"policy: 1\n{text}")
        return Path("policy.yaml")

    return make


def test_a_plan_is_held_to_the_policy(policy: Callable[[str], Path], tmp_path: Path) -> None:
    manifest = write(tmp_path / "manifest.yaml")
    said = publisher("plan", manifest, "--policy", policy(RULE))
    assert said.exit_code == 0
    assert "policy  policy.yaml: kept, as far as a plan can tell" in said.stdout
    said = publisher("plan", manifest, "--policy", policy(f"licenses: [MIT]\n{RULE}"))
    assert said.exit_code == 1
    assert "policy.yaml:2:1: the licence 'CC-BY-4.0' is not allowed" in said.stdout
    absent = RULE.replace("plain", "embedding")
    said = publisher("plan", manifest, "--policy", policy(absent), "--format", "github")
    assert said.exit_code == 2
    assert "::error file=policy.yaml,line=3,col=3,title=policy for small::no check of 'cigarette'" in said.stdout
    found = json.loads(publisher("plan", manifest, "--policy", policy(absent), "--json").stdout)
    assert [(one["line"], one["absent"]) for one in found["policy"]["breaches"]] == [(3, True)]


def test_a_release_that_would_break_the_policy_does_not_begin(policy: Callable[[str], Path], tmp_path: Path) -> None:
    manifest = write(tmp_path / "manifest.yaml")
    words = ("release", manifest, "--throwaway-key", "--out", tmp_path / "out", "--policy")
    said = publisher(*words, policy("licenses: [MIT]"))
    assert (said.exit_code, said.stdout) == (1, "")
    assert said.stderr.endswith("Error: policy.yaml:2:1: the licence 'CC-BY-4.0' is not allowed. Allowed: MIT.\n")
    assert publisher(*words, policy(RULE.replace("plain", "embedding"))).exit_code == 2
    assert publisher(*words, policy("license: [MIT]")).exit_code == 2
    assert not (tmp_path / "out" / ".work" / "steps").exists()


def test_a_package_is_held_to_the_policy_of_its_reader(
    policy: Callable[[str], Path], signed: Path, public: Path
) -> None:
    words = ("verify", signed, "--key", public, "--policy")
    said = publisher(*words, policy(TINY))
    assert said.exit_code == 0
    assert "it keeps the policy policy.yaml" in said.stdout
    said = publisher(*words, policy("licenses: [MIT]\nmax_age: 1d"))
    assert said.exit_code == 1
    assert said.stdout.startswith(f"NOT verified: {signed} is what was signed, and breaks the policy\n")
    assert "policy.yaml:2:1: the licence 'Apache-2.0'" in said.stdout
    assert "policy.yaml:3:1: the decision was signed " in said.stdout
    found = json.loads(publisher(*words, policy("licenses: [MIT]"), "--json").stdout)
    assert (found["verified"], found["findings"], len(found["policy"]["breaches"])) == (False, [], 1)
    assert publisher(*words, policy(RULE)).exit_code == 1  # a required check that is not there


def test_the_policy_can_name_the_keys(
    policy: Callable[[str], Path], signed: Path, public: Path, tmp_path: Path
) -> None:
    publisher("keygen", "--out", tmp_path / "other")
    other = tmp_path / "other" / "publisher.pub"
    assert publisher("verify", signed, "--policy", policy(f"keys: ['{other}', '{public}']")).exit_code == 0
    assert publisher("verify", signed, "--policy", policy(f"keys: ['{other}']")).exit_code == 1
    said = publisher("verify", signed, "--key", public, "--policy", policy(f"keys: ['{other}']"))
    assert (said.exit_code, "is none of those that may sign" in said.stdout) == (1, True)
    assert publisher("verify", signed, "--policy", policy(TINY)).exit_code == 2


def test_a_package_that_does_not_verify_is_not_compared_with_a_policy(
    policy: Callable[[str], Path], package: Path, public: Path
) -> None:
    (package / "LICENSE").write_text("another\n")
    said = publisher("verify", package, "--key", public, "--policy", policy("licenses: [MIT]"), "--json")
    found = json.loads(said.stdout)
    assert (said.exit_code, found["verified"], "policy" in found) == (1, False, False)


def test_a_waiver_of_the_release_is_always_shown(
    policy: Callable[[str], Path], make: Callable[[Callable[[dict[str, Any]], object]], Path], public: Path
) -> None:
    waiver = {"reason": "ticket 1", "approver": "board", "expires": "2026-12-31"}

    def waive(data: dict[str, Any]) -> None:
        data["claims"][0]["checks"][0]["waiver"] = waiver
        data["policy"] = {"name": "p.yaml", "sha256": "0" * 64}

    folder = make(waive)
    said = publisher("verify", folder, "--key", public)
    assert said.exit_code == 0
    assert "cigarette.plain, when it was released: WAIVED until 2026-12-31 by board: ticket 1" in said.stdout
    text = f"{TINY}waivers:\n- {{check: cigarette.plain, reason: new, approver: board, expires: 9999-12-31}}"
    said = publisher("verify", folder, "--key", public, "--policy", policy(text))
    assert said.stdout.count("WAIVED") == 2


def test_the_schema_of_a_policy_accepts_what_the_reader_accepts() -> None:
    validator = validating(json.loads(publisher("schema", "policy").stdout))
    assert validator.is_valid({"policy": 1, "licenses": ["MIT"], "max_age": "180d"})
    assert not validator.is_valid({"policy": 1, "waivers": [{"check": "a", "reason": "b", "approver": "c"}]})
