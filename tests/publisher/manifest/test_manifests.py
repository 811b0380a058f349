"""The manifests that come with publisher, the schema and the reference page, against the installed plugins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from publisher.cli.schema import SCHEMAS, schema
from publisher.manifest import Catalog, manifest_schema, read
from publisher.manifest.reader import Reading
from publisher.manifest.reference import reference_page, schema_text
from publisher.registry import load_registry
from support.fake_catalog import SMALL, FakeCatalog
from support.json_schemas import validating

ROOT = Path(__file__).parents[3]
REFERENCE = ROOT / "docs" / "reference"
MANIFESTS = sorted((ROOT / "manifests").glob("*.yaml"))
NAMES = [path.stem for path in MANIFESTS]
CHECK = "checks: [{id: x, attack: synonyms, metric: rate, concepts: [], gate: {upper_at_most: 1}}]"
EDITOR = "# yaml-language-server: $schema=../docs/reference/manifest.schema.json\n"


@pytest.fixture(scope="module")
def installed() -> Catalog:
    return load_registry().catalog()


@pytest.fixture(scope="module")
def validator() -> Any:
    return validating(json.loads((REFERENCE / "manifest.schema.json").read_text(encoding="utf-8")))


def test_there_are_manifests_for_a_first_release_and_for_real_uses() -> None:
    real = ["freeze-mask", "immunize-sd15", "membranes-sd15", "sd15-artist-styles", "sd15-nudity", "sdxl-objects"]
    transformers = ["flux1-objects", "sd35-objects"]
    embedded = ["audit", "first", "new-words", "quickstart", "quickstart-dit", "red-team", "remove"]
    sliced = ["slices", "slices-sequence"]
    assert sorted([*embedded, *sliced, *real, *transformers]) == sorted(NAMES)


@pytest.mark.parametrize("path", MANIFESTS, ids=NAMES)
def test_every_manifest_fits_its_schema_and_resolves_with_the_plugins_that_come_with_publisher(
    path: Path, validator: Any, installed: Catalog
) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith(EDITOR) or path.stem == "first", "what init writes lies anywhere"
    validator.validate(Reading(text.encode()).data)
    resolved = read(path, installed)
    assert all(concept.prompts for concept in (*resolved.scope.concepts, *resolved.scope.keep))


@pytest.mark.parametrize("path", MANIFESTS, ids=NAMES)
def test_every_concept_of_a_manifest_has_a_scorer_that_knows_its_label(path: Path, installed: Catalog) -> None:
    resolved = read(path, installed)
    judged = [(scorer, installed.labels(scorer.use, scorer.params)) for scorer in resolved.evaluate.scorers]
    for concept in (*resolved.scope.concepts, *resolved.scope.keep):
        of_kind = [(scorer, known[concept.kind]) for scorer, known in judged if concept.kind in scorer.kinds]
        assert sum(scorer.decides for scorer, _ in of_kind) == 1
        assert all(labels is None or concept.label in labels for _, labels in of_kind)


def test_the_quickstart_takes_out_three_objects_and_a_style_and_keeps_all_else(installed: Catalog) -> None:
    scope = read(ROOT / "manifests" / "quickstart.yaml", installed).scope
    assert sorted(concept.kind for concept in scope.concepts) == ["object", "object", "object", "style"]
    labels = sum(len(names) for names in installed.labels("emoji", {}).values() if names)
    assert len(scope.keep) == labels - 4
    gone = {concept.name for concept in scope.concepts}
    assert not any(gone & set(prompt.split()) for concept in scope.keep for prompt in concept.prompts)


def test_the_reference_page_says_what_the_code_does(installed: Catalog) -> None:
    page = (REFERENCE / "manifest.md").read_text(encoding="utf-8")
    assert page == reference_page(installed), "run: python docs/make_reference.py"


def test_the_schema_file_says_what_the_code_does(installed: Catalog) -> None:
    document = (REFERENCE / "manifest.schema.json").read_text(encoding="utf-8")
    assert document == schema_text(installed), "run: python docs/make_reference.py"


@pytest.fixture
def fake(catalog: FakeCatalog) -> Any:
    return validating(manifest_schema(catalog))


def test_the_schema_takes_what_the_loader_takes(fake: Any) -> None:
    fake.validate(yaml.safe_load(SMALL))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("seed", "sead: 1\nseed"),
        ("{use: erase}", "{use: erese}"),
        ("{use: erase}", "{use: erase, with: {roh: 1}}"),
        ("{use: erase}", "{use: erase, with: {rho: 0}}"),
        ("{use: erase}", "{use: erase, with: {schedule: {epochs: 99}}}"),
        ("{use: erase}", "{use: freeze-mask}"),
        ("{use: erase}", "{use: freeze-mask, with: {rho: 1}}"),
        ("[cigarette]", "[]"),
        ("[cigarette]", "[Cigarette]"),
        ("scorer: emoji", "scorer: emojy"),
        ("scorer: emoji", "scorer: emoji, executor: x"),
        ("scorer: emoji", "scorer: emoji, executor: {use: local, with: {workers: 0}}"),
        ("scorer: emoji", "scorers: [{use: objects, with: {any: object}}]"),
        ("scorer: emoji", CHECK.replace("synonyms", "synonym")),
        ("scorer: emoji", CHECK.replace("metric", "attack_params: {limit: 0}, metric")),
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(old: str, new: str, fake: Any) -> None:
    text = "seed: 1\n" + SMALL
    assert old in text
    fake.validate(yaml.safe_load(text))
    assert not fake.is_valid(yaml.safe_load(text.replace(old, new)))


def test_the_schema_describes_every_parameter_of_every_plugin(installed: Catalog) -> None:
    definitions = manifest_schema(installed)["$defs"]
    for kind in ("step", "attack", "metric", "scorer", "executor"):
        for name in installed.names(kind):
            properties = definitions[f"{kind}.{name}"].get("properties", {})
            assert all(field.get("description") or "$ref" in field for field in properties.values()), (kind, name)


@pytest.mark.parametrize("document", SCHEMAS)
def test_the_command_prints_a_schema_and_nothing_else(document: str) -> None:
    result = CliRunner().invoke(schema, [document])
    assert (result.exit_code, result.stderr) == (0, "")
    printed = json.loads(result.stdout)
    validating(printed)
    assert printed["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_the_command_prints_the_file_in_the_documentation() -> None:
    printed = CliRunner().invoke(schema, ["manifest"]).stdout
    assert printed == (REFERENCE / "manifest.schema.json").read_text(encoding="utf-8")
