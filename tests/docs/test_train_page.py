"""The page about plugins that train is true: its code is printed as it is run, and keeps its contract."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from publisher import api
from publisher.api.freeze_mask import Frozen
from publisher.runtime.pipelines import load
from publisher.testing.battery import broken_rules
from publisher.testing.common import answer_all
from publisher.testing.plugin import PluginUnderTest
from support.anatomies import anatomy_of
from support.tiny_sdxl import save_tiny_sdxl

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "plugins" / "train.md"
THIRD_PARTY = ROOT / "tests" / "third_party"
FILES = ("publisher_hush/__init__.py", "publisher_hush/train.py", "publisher_biases/__init__.py")
CONCEPT = api.Concept(id="gun", name="gun", prompts=("a gun", "one gun"), label="gun")


@pytest.fixture(scope="module")
def modules() -> Iterator[dict[str, ModuleType]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(THIRD_PARTY)
        yield {name: importlib.import_module(name) for name in ("publisher_hush", "publisher_biases")}


def test_the_page_prints_the_code_that_is_run() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert [(THIRD_PARTY / name).read_text(encoding="utf-8") in blocks for name in FILES] == [True] * len(FILES)


@pytest.mark.slow
def test_both_keep_their_contracts(modules: dict[str, ModuleType]) -> None:
    step = PluginUnderTest(modules["publisher_hush"].Hush, {"steps": 4, "every": 1})
    attack = PluginUnderTest(modules["publisher_biases"].Biases, {"batch": 2})
    answer_all([step, attack])
    assert (broken_rules(step), broken_rules(attack)) == ({}, {})


def test_the_attack_that_trains_changes_the_biases_it_chooses_and_honours_a_mask(
    tmp_path: Path, modules: dict[str, ModuleType]
) -> None:
    attack = modules["publisher_biases"].Biases()
    params = attack.Params(layers="time_embedding", batch=2)
    folder = save_tiny_sdxl(tmp_path / "model")
    pipeline = load(folder, anatomy_of(folder), torch.device("cpu"), torch.float32)
    before = {name: weight.clone() for name, weight in pipeline.unet.named_parameters()}
    latents = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    frozen: Frozen = {"time_embedding.linear_1.bias": ()}
    data = api.TrainingData(latents, attack.captions(params, CONCEPT) * 2, latents[:0], (), CONCEPT, frozen)
    learner = attack.learner(params, pipeline, data, torch.Generator().manual_seed(0))
    losses = [learner.step() for _ in range(2)]
    assert all(loss > 0 for loss in losses)
    changed = {name for name, weight in pipeline.unet.named_parameters() if not weight.equal(before[name])}
    assert changed == {"time_embedding.linear_2.bias"}
