"""The page about the other kinds of plugins is true: its code is one plugin, and each of its classes works."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch

from publisher import api
from publisher.api.verdicts import decide
from publisher.model.folder import read_configs
from publisher.registry.load import KINDS, build_registry
from publisher.registry.registry import Registry
from publisher.scaffold import plugin_files
from publisher.testing import sample_report

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "plugins" / "other-plugins.md"
WRITTEN = {"attack": "shout", "scorer": "brightness", "metric": "anywhere", "report": "line", "family": "toy"}
"""Kind -> name that the page gives to ``publisher plugins new``."""
CONCEPT = api.Concept(id="gun", name="gun", prompts=("a gun", "one gun"), label="gun")


def blocks() -> list[str]:
    """Return the page's blocks of code, in order."""
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    folder = tmp_path_factory.mktemp("page")
    (folder / "page_plugins.py").write_text("\n\n".join(blocks()))
    sys.path.insert(0, str(folder))
    yield build_registry([EntryPoint("page_plugins", "page_plugins", "publisher")])
    sys.path.remove(str(folder))


def make(registry: Registry, kind: str) -> Any:
    (entry,) = registry.all(kind)
    return entry.cls()


def test_the_page_shows_every_kind_but_steps(registry: Registry) -> None:
    assert registry.broken == ()
    assert {entry.kind for entry in registry.contributions} == set(KINDS) - {"step"}


@pytest.mark.parametrize(("kind", "name"), WRITTEN.items())
def test_the_page_prints_what_the_command_writes(kind: str, name: str) -> None:
    assert plugin_files(kind, name)[f"publisher_{name}/__init__.py"] in blocks()
    assert f"publisher plugins new publisher-{name} --kind {kind}\n" in PAGE.read_text(encoding="utf-8")


def test_the_attack_shouts(registry: Registry) -> None:
    attack = make(registry, "attack")
    requests = attack.requests(attack.Params(marks=2), CONCEPT, api.Sampling(images=3, steps=2, guidance=1.0, seed=5))
    assert [(one.prompt, one.seed) for one in requests] == [("A GUN!!", 5), ("ONE GUN!!", 6), ("A GUN!!", 7)]


def test_the_scorer_tells_light_from_dark(registry: Registry) -> None:
    scorer = make(registry, "scorer")
    scorer.load(torch.device("cpu"))
    said = scorer.judge(torch.stack([torch.ones(3, 4, 4), torch.zeros(3, 4, 4)]))
    assert [one.labels["object"] for one in said] == list(scorer.labels()["object"])
    assert scorer.card().calibration


def test_the_metric_needs_enough_images_to_pass_a_gate(registry: Registry) -> None:
    metric, gate = make(registry, "metric"), api.Gate(upper_at_most=0.1)
    clean = api.Observation(concept="gun", prompt="a gun", seed=0, base=True, hardened=False, distance=0.1)
    verdicts = [decide(gate, metric.measure(metric.Params(), [clean] * n).hardened)[0] for n in (20, 30)]
    assert verdicts == ["unknown", "passed"]
    seen = clean.model_copy(update={"hardened": True})
    assert decide(gate, metric.measure(metric.Params(), [clean] * 99 + [seen]).hardened)[0] == "failed"


def test_the_executor_keeps_the_order(registry: Registry) -> None:
    executor = make(registry, "executor")
    assert list(executor.map(abs, [-1, 2, -3])) == [1, 2, 3]
    executor.close()


def test_the_source_finds_what_is_on_the_shelf(registry: Registry, tmp_path: Path) -> None:
    source = make(registry, "source")
    assert registry.source_for("shelf:toy").name == "shelf"
    assert source.locate("shelf:toy", tmp_path) is None
    with pytest.raises(api.PrerequisiteError, match="is not on the shelf"):
        source.fetch("shelf:toy", tmp_path)
    (tmp_path / "shelf" / "toy").mkdir(parents=True)
    assert source.fetch("shelf:toy", tmp_path) == tmp_path / "shelf" / "toy"


def test_the_family_names_the_parts(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "text_encoder").mkdir()
    (tmp_path / "text_encoder" / "config.json").write_text('{"hidden_size": 8}')
    index = {"_class_name": "ToyPipeline", "text_encoder": ["transformers", "CLIPTextModel"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    entry, anatomy = registry.recognise(read_configs(tmp_path), "here")
    assert (entry.name, anatomy.text_width) == ("toy", 8)


def test_the_report_is_one_line(registry: Registry) -> None:
    assert make(registry, "report_format").render(sample_report()) == b"sample 1.0.0: passed\n"
