"""Several scorers behind one judge: who is asked about what, when they are loaded, and what they depend on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydantic import Field

from publisher.api import CheckRecord, Gate, Judgement, Params, ScorerCard
from publisher.evaluate.context import ReleaseScorer
from publisher.evaluate.scorers import identity
from publisher.model.inputs import input_digest
from support.grey import LABELS, SCOPE, GreyScorer, World, check, concept, kept, release_scorer

if TYPE_CHECKING:
    import torch


class Shifts(Params):
    """Parameters of a scorer."""

    by: int = Field(default=0, ge=0)
    """Added to the grey value."""


class Counts(GreyScorer):
    """Tells when it was loaded, what it was asked, and when it was unloaded."""

    def __init__(self, name: str, log: list[str]) -> None:
        super().__init__()
        self.as_name, self.log = name, log

    def labels(self) -> Mapping[str, Sequence[str]]:
        return dict.fromkeys(("object", "style"), LABELS[1:])

    def load(self, device: torch.device) -> None:
        self.log.append(f"load {self.as_name}")

    def unload(self) -> None:
        self.log.append(f"unload {self.as_name}")

    def judge(self, images: torch.Tensor) -> Sequence[Judgement]:
        self.log.append(f"{self.as_name} judges {len(images)}")
        return super().judge(images)


TWO_KINDS = SCOPE.model_copy(update={"concepts": (concept("cigarette"), concept("pistol", kind="style"))})


@pytest.fixture
def log(world: World) -> list[str]:
    """What two scorers by kind were asked, in the grey world."""
    log: list[str] = []
    scorers = {
        name: ReleaseScorer(name, Counts(name, log), (kind,))
        for name, kind in (("things", "object"), ("styles", "style"))
    }
    world.scope = TWO_KINDS
    world.tools = replace(world.tools, scorers=scorers, judges={"object": "things", "style": "styles"})
    return log


def evidence(world: World, *checks: object) -> tuple[Sequence[CheckRecord], list[str]]:
    found = world.evaluate(*checks)  # type: ignore[arg-type]
    lines = [line for data in found.evidence.values() for line in data.decode().splitlines()]
    return found.claims[0].checks, lines


def test_each_scorer_judges_the_images_of_its_kind_alone_and_one_is_loaded_at_a_time(
    world: World, log: list[str]
) -> None:
    records, lines = evidence(world, check(), check(id="style", concepts=("pistol",)))
    assert [(record.verdict, record.scorer) for record in records] == [("passed", "things"), ("passed", "styles")]
    loads = ["load things", "unload things", "load styles", "unload styles"]
    assert [line for line in log if "load" in line] == loads * 2  # once to see that they can be, once to judge
    judged = [line.split()[0] for line in log if "judges" in line]
    assert judged == sorted(judged, reverse=True)
    assert (judged.count("things"), judged.count("styles")) == (4, 6)  # of 4 batches, the second has both
    assert all('"labels":{"object"' in line for line in lines if '"check":"plain"' in line)
    assert all('"labels":{"style"' in line for line in lines if '"check":"style"' in line)


def test_a_check_of_two_kinds_has_both_scorers(world: World, log: list[str]) -> None:
    (record,), lines = evidence(world, check(concepts=("cigarette", "pistol")))
    assert (record.verdict, record.scorer, len(lines)) == ("passed", "things, styles", 120)


def test_a_kind_that_nobody_judges_makes_it_unknown_and_says_who_judges_what(world: World, log: list[str]) -> None:
    world.tools = replace(world.tools, judges={"object": "things"})
    (record,), _ = evidence(world, check(concepts=("pistol",)))
    assert (record.verdict, record.reason) == (
        "unknown",
        "no scorer judges the kind 'style' of 'pistol'; judged are: object by 'things'. Add one under evaluate.scorers",
    )


def test_a_metric_of_pixels_needs_no_scorer(world: World) -> None:
    world.tools = replace(world.tools, scorers={}, judges={})
    near = kept(metric="image-distance", gate=Gate(upper_at_most=0.1))
    records, lines = evidence(world, near, check())
    assert [(record.verdict, record.scorer) for record in records] == [("passed", ""), ("unknown", "")]
    assert all('"base_hit":null' in line for line in lines)


def test_a_scorer_that_breaks_does_not_touch_a_metric_of_pixels(world: World) -> None:
    class Breaks(GreyScorer):
        def judge(self, images: torch.Tensor) -> Sequence[Judgement]:
            raise RuntimeError("no kernel image")

    near = kept(metric="image-distance", gate=Gate(upper_at_most=0.1))
    records, _ = evidence(world.scorer(Breaks()), near, check())
    assert [record.verdict for record in records] == ["passed", "unknown"]


class Doubts(GreyScorer):
    """Is unsure of some images, and sees everything in others."""

    def __init__(self, unsure: str = "", both: str = "") -> None:
        super().__init__()
        self.unsure, self.both = unsure, both

    def judge(self, images: torch.Tensor) -> Sequence[Judgement]:
        return [self.doubted(said) for said in super().judge(images)]

    def doubted(self, said: Judgement) -> Judgement:
        if self.unsure in ("*", said.labels["object"]):
            return said.model_copy(update={"labels": {}, "scores": {}, "unsure": ("object",)})
        if said.labels["object"] == self.both:
            return said.model_copy(update={"seen": {"object": ("pizza", "cigarette")}})
        return said


def test_what_a_scorer_is_unsure_of_counts_against_the_claim(world: World) -> None:
    world.scorer(Doubts(unsure="pizza"))  # what the hardened model shows in place of a cigarette
    (gone, stays), lines = evidence(world, check(), kept(concepts=("cat", "pizza")))
    assert gone.measurement is not None
    assert (gone.verdict, gone.measurement.hardened.value, gone.measurement.hardened.n) == ("failed", 1.0, 60)
    assert gone.measurement.details["unsure"] == {"base": 0, "hardened": 60}
    assert "could not judge count against the claim: 60 of the hardened model" in gone.measurement.notes[-1]
    assert stays.measurement is not None
    half = stays.measurement.hardened.n // 2
    assert (stays.measurement.hardened.value, stays.measurement.details["unsure"]) == (
        -0.5,
        {"base": half, "hardened": half},
    )
    assert sum('"unsure":["object"]' in line for line in lines) == 60 + half


def test_a_scorer_that_is_always_unsure_never_leads_to_passed(world: World) -> None:
    records, _ = evidence(world.scorer(Doubts(unsure="*")), check(), kept())
    assert [record.verdict for record in records] == ["failed", "failed"]


def test_an_image_that_shows_several_things_shows_each_of_them(world: World) -> None:
    (gone,), _ = evidence(world.scorer(Doubts(both="pizza")), check())
    assert gone.measurement is not None
    assert gone.measurement.hardened.value == 1.0


class Reads(GreyScorer):
    """Reads a file."""

    Params = Shifts

    def card(self) -> ScorerCard:
        self.files["sheet.json"].read_bytes()
        return super().card()


def reads(folder: Path, **params: int) -> ReleaseScorer:
    (folder / "sheet.json").write_text("{}")
    scorer = Reads(Shifts(**params))  # type: ignore[arg-type]
    scorer.files = {"sheet.json": folder / "sheet.json"}
    entry = release_scorer(scorer)
    return replace(entry, inputs={"sheet.json": input_digest("sheet.json", folder / "sheet.json")})


def test_the_card_holds_parameters_and_inputs(world: World, tmp_path: Path) -> None:
    entry = reads(tmp_path, by=3)
    world.tools = replace(world.tools, scorers={"grey": entry})
    card = world.evaluate(check()).scorers["grey"]
    assert (card.use, card.version, card.params, card.inputs) == ("grey", "1", {"by": 3}, dict(entry.inputs))
    assert card.kinds == ("object", "person", "unsafe")


def test_an_input_that_changed_since_the_plan_makes_it_unknown(world: World, tmp_path: Path) -> None:
    world.tools = replace(world.tools, scorers={"grey": reads(tmp_path)})
    (tmp_path / "sheet.json").write_text('{"threshold": 0}')
    (record,), _ = evidence(world, check())
    assert record.reason == "the scorer 'grey' was planned with another 'sheet.json': it has changed"


def test_parameters_and_inputs_are_part_of_what_trials_are_kept_under(tmp_path: Path) -> None:
    one = reads(tmp_path)
    (tmp_path / "other").mkdir()
    other = replace(one, inputs={"sheet.json": "0" * 64})
    assert identity(one) == identity(reads(tmp_path))
    assert len({str(identity(entry)) for entry in (one, other, reads(tmp_path, by=1))}) == 3


def test_a_failure_to_unload_is_a_warning(world: World) -> None:
    class Sticks(GreyScorer):
        def unload(self) -> None:
            raise OSError("busy")

    warned: list[str] = []
    world.setting = replace(world.setting, warn=warned.append)
    assert world.scorer(Sticks()).evaluate(check()).verdict == "passed"
    assert set(warned) == {"the scorer 'grey' was not unloaded: OSError: busy"}
