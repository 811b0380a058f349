"""The red team's suite: which checks it stands for, what overrides them, and that it holds up no release."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from publisher.api import Check, SearchAttack
from publisher.errors import ManifestError
from publisher.manifest import Resolved, read
from publisher.registry import load_registry
from publisher.registry.own import own_attacks
from publisher.release.claims import claims_of_concepts
from support.releasing import MANIFEST, publisher

QUICK = sorted(
    name
    for name, cls in own_attacks().items()
    if issubclass(cls, SearchAttack) and "quick" in cls.budgets.keys() & cls.suites
)
OWN = {"id": "red-team.derived-embedding", "attack": "derived-embedding", "metric": "found-excess"}


@pytest.fixture
def resolved(manifest: Callable[..., Path]) -> Callable[..., Resolved]:
    def resolve(**evaluate: Any) -> Resolved:
        return read(manifest(evaluate=MANIFEST["evaluate"] | {"gates": {}} | evaluate), load_registry().catalog())

    return resolve


def suite(found: Resolved) -> dict[str, Check]:
    claims = {item.claim.id: item.claim for item in claims_of_concepts(found)}
    return {check.id: check for check in claims["red-team"].checks}


def test_the_suite_has_a_check_for_each_attack_of_its_budget_on_all_concepts(resolved: Callable[..., Resolved]) -> None:
    found = suite(resolved(red_team="quick"))
    assert sorted(found) == [f"red-team.{name}" for name in QUICK]
    check = found["red-team.derived-embedding"]
    assert (check.attack_params["budget"], check.concepts, check.gate) == ("quick", ("cigarette",), None)


def test_a_check_of_the_manifest_stands_in_the_place_of_one_of_the_suite(resolved: Callable[..., Resolved]) -> None:
    found = resolved(red_team="quick", checks=[{**OWN, "concepts": ["cigarette"], "gate": {"upper_at_most": 0.5}}])
    assert [check.id for check in found.evaluate.checks] == [OWN["id"]]
    assert OWN["id"] not in [check.id for check in found.evaluate.red_team]
    claims = {item.claim.id: item.claim for item in claims_of_concepts(found)}
    assert "manifest.checks" not in claims
    assert suite(found)[OWN["id"]].gate is not None
    other = claims_of_concepts(resolved(checks=[{**OWN, "concepts": ["cigarette"]}]))
    assert [item.claim.id for item in other][-1] == "manifest.checks"  # without a suite it is the manifest's own


def test_a_gate_of_the_manifest_makes_a_check_of_the_suite_a_promise(resolved: Callable[..., Resolved]) -> None:
    found = suite(resolved(red_team="quick", gates={OWN["id"]: {"upper_at_most": 0.5}}))
    assert found[OWN["id"]].gate is not None


def test_without_a_suite_the_record_of_the_manifest_is_as_it_was(resolved: Callable[..., Resolved]) -> None:
    plain, off = resolved().as_json(), resolved(red_team="off").as_json()
    assert plain | {"manifest_sha256": ""} == off | {"manifest_sha256": ""}
    assert "red_team" not in resolved().as_json()["evaluate"]
    with pytest.raises(ManifestError, match="'off', 'quick', 'standard' or 'thorough'"):
        resolved(red_team="some")


def test_a_plan_shows_what_the_suite_spends_and_is_not_held_up_by_it(manifest: Callable[..., Path]) -> None:
    evaluate = MANIFEST["evaluate"] | {"red_team": "quick", "gates": {}}
    here = manifest(keep={"prompts": ["a cat emoji"]}, evaluate=evaluate)
    found = json.loads(publisher("plan", here, "--json").stdout)
    assert found["problems"] == []
    claim = next(one for one in found["claims"] if one["id"] == "red-team")
    derived = next(one for one in claim["checks"] if one["id"] == OWN["id"])
    assert (derived["search"]["images"], derived["seconds"], derived["models"]) == (36, None, 3)
    assert not any(name.startswith("red-team") for name in found["undecidable"])
    text = publisher("plan", here).stdout
    assert "how long is not known before the first one was made in this work folder" in text
