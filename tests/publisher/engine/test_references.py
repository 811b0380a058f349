"""A step that asks for reference images gets them, and its result depends on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from publisher import api
from publisher.engine import run as running
from publisher.engine.plan import PlannedStep
from publisher.engine.references import ReferencePlan
from publisher.engine.run import harden
from publisher.errors import PluginError, PublisherError, UsageError
from publisher.model.state import State
from publisher.runtime.references import ReferenceSettings
from publisher.testing.running import Silent
from support.toys import CONCEPT, Add, AddParams

Make = Callable[..., PlannedStep]


class Looking(Add):
    """Asks for two images."""

    name = "looking"
    references = True
    seen: tuple[api.References, ...] = ()
    wanted = "gun"

    def run(self, params: AddParams, ctx: api.StepContext) -> None:
        type(self).seen = (*self.seen, ctx.references(self.wanted, 2))
        super().run(params, ctx)


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Looking, "seen", ())


@pytest.fixture
def looking(planned: Make, tmp_path: Path) -> Callable[..., PlannedStep]:
    """The step with three image files, four of which would be two for each half."""

    def make(base: State, count: int = 3, **changes: Any) -> PlannedStep:
        for i in range(count):
            Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / f"{i}.png")
        concept = CONCEPT.model_copy(update={"images": tuple(f"{i}.png" for i in range(count))})
        scope = api.Scope(concepts=(concept,))
        plan = ReferencePlan.of(scope, api.Sampling(steps=2, guidance=2.0, **changes), tmp_path)
        step = planned(Looking)
        identity = replace(step.identity, scope=scope, references=plan.identity(base.base.digest))
        return replace(step, identity=identity, references=plan)

    return make


@pytest.fixture
def base(base: State, monkeypatch: pytest.MonkeyPatch) -> State:
    """The toy model generates 4 x 4 pixels, all of them white."""
    monkeypatch.setattr(
        "publisher.runtime.references.generate_images",
        lambda reference_settings, requests: torch.ones(len(requests), 3, 4, 4),
    )
    return base


def run(base: State, step: PlannedStep, work: Path) -> running.Hardened:
    return harden(base, [step], work, Silent(), lambda _hook, _event: None)


def test_a_step_gets_the_publishers_half_of_the_named_images(
    base: State, looking: Callable[..., PlannedStep], tmp_path: Path
) -> None:
    run(base, looking(base), tmp_path / "work")
    (found,) = Looking.seen
    assert found.images[:, 0, 0, 0].mul(255).tolist() == [0, 2]
    assert found.prompts == ("a gun", "a gun")


def test_without_named_images_the_base_model_generates(
    base: State, looking: Callable[..., PlannedStep], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[ReferenceSettings] = []

    def generate(reference_settings: ReferenceSettings, requests: tuple[api.ImageRequest, ...]) -> torch.Tensor:
        seen.append(reference_settings)
        return torch.ones(len(requests), 3, 4, 4)

    monkeypatch.setattr("publisher.runtime.references.generate_images", generate)
    run(base, looking(base, count=0), tmp_path / "work")
    assert [
        (reference_settings.folder, reference_settings.steps, reference_settings.guidance)
        for reference_settings in seen
    ] == [(base.base.path, 2, 2.0)]
    assert Looking.seen[0].images.min() == 1


def test_the_same_images_are_the_same_result_and_other_bytes_another(
    base: State, looking: Callable[..., PlannedStep], tmp_path: Path
) -> None:
    run(base, looking(base), tmp_path / "work")
    assert run(base, looking(base), tmp_path / "work").cached == ("add",)
    step = looking(base)
    Image.new("RGB", (8, 8), "white").save(tmp_path / "2.png")
    plan = step.references
    assert plan is not None
    changed = replace(step, identity=replace(step.identity, references=plan.identity(base.base.digest)))
    assert run(base, changed, tmp_path / "work").cached == ()


@pytest.mark.parametrize("change", [{"steps": 3}, {"guidance": 3.0}])
def test_how_images_are_generated_is_in_the_key(
    base: State, looking: Callable[..., PlannedStep], tmp_path: Path, change: dict[str, Any]
) -> None:
    scope = api.Scope(concepts=(CONCEPT,))
    one = ReferencePlan.of(scope, api.Sampling(steps=2, guidance=2.0), tmp_path).identity("base")
    fields = {"steps": 2, "guidance": 2.0, **change}
    other = ReferencePlan.of(scope, api.Sampling(**fields), tmp_path).identity("base")
    identity = looking(base).identity
    assert replace(identity, references=one).key("s") != replace(identity, references=other).key("s")


def test_a_file_that_changes_during_the_run_stops_it(
    base: State, looking: Callable[..., PlannedStep], tmp_path: Path
) -> None:
    step = looking(base)
    Image.new("RGB", (8, 8), "white").save(tmp_path / "2.png")
    with pytest.raises(PublisherError, match="changed meanwhile"):
        run(base, step, tmp_path / "work")


def test_unknown_concepts_and_too_few_images_are_said(
    base: State, looking: Callable[..., PlannedStep], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="the publisher's half of its 2 files has 1"):
        run(base, looking(base, count=2), tmp_path / "work")
    monkeypatch.setattr(Looking, "wanted", "sword")
    with pytest.raises(UsageError, match="no concept 'sword'"):
        run(base, looking(base), tmp_path / "work")


def test_a_step_that_does_not_say_so_gets_none(base: State, planned: Make, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="'references = True'"):
        run(base, planned(Looking), tmp_path / "work")
