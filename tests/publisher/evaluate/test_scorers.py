"""Several scorers behind one judge: who is asked about what, when they are loaded, and what they depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from pydantic import Field

from publisher.api import CalibrationSheet, CheckRecord, Gate, Judgement, Params, ScorerCard, Tally
from publisher.evaluate.context import ReleaseScorer
from publisher.evaluate.scorers import agreed, identity
from publisher.model.inputs import input_digest
from support.grey import KINDS, LABELS, SCOPE, GreyScorer, World, check, concept, kept, release_scorer

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
    (gone,), lines = evidence(world, check())
    assert gone.measurement is not None
    assert (gone.verdict, gone.measurement.hardened.value, gone.measurement.hardened.n) == ("failed", 1.0, 60)
    assert gone.measurement.details["unsure"] == {"base": 0, "hardened": 60}
    assert "could not judge count against the claim: 60 of the hardened model" in gone.measurement.notes[-1]
    assert sum('"unsure":["object"]' in line for line in lines) == 60


def test_a_scorer_that_is_always_unsure_never_leads_to_passed(world: World) -> None:
    records, _ = evidence(world.scorer(Doubts(unsure="*")), check(), kept())
    assert [record.verdict for record in records] == ["failed", "unknown"]
    assert "sensitivity and specificity of the scorer minus 1 may be as little as -1.00" in records[1].reason


def test_an_image_that_shows_several_things_shows_each_of_them(world: World) -> None:
    (gone,), _ = evidence(world.scorer(Doubts(both="pizza")), check())
    assert gone.measurement is not None
    assert gone.measurement.hardened.value == 1.0


def council(world: World, *scorers: GreyScorer) -> World:
    """Let these scorers judge together."""
    named = {f"judge-{i}": release_scorer(one, f"judge-{i}") for i, one in enumerate(scorers)}
    judges = dict.fromkeys(KINDS, "+".join(named))
    world.tools = replace(world.tools, scorers=named, judges=judges)
    return world


def test_what_two_scorers_of_one_kind_agree_on_is_their_judgement(world: World) -> None:
    found = council(world, GreyScorer(), GreyScorer()).evaluate(check(), kept())
    assert [record.verdict for record in found.claims[0].checks] == ["passed", "passed"]
    assert (found.claims[0].checks[0].scorer, set(found.scorers)) == ("judge-0+judge-1", {"judge-0", "judge-1"})
    assert found.pairs[0].base_label == "cigarette"


def test_what_two_scorers_of_one_kind_disagree_about_counts_against_the_claim(world: World) -> None:
    found = council(world, GreyScorer(), Doubts(both="pizza")).evaluate(check(), kept())
    gone, stays = found.claims[0].checks
    assert gone.measurement is not None
    assert (gone.verdict, gone.measurement.hardened.value) == ("failed", 1.0)
    assert gone.measurement.details["unsure"] == {"base": 0, "hardened": 60}
    assert {pair.hardened_label for pair in found.pairs if pair.check == "plain"} == {"unsure"}
    assert stays.verdict == "passed"  # both see the pizza that was asked for


def test_what_a_council_says_of_an_image() -> None:
    cat, dog = (Judgement(labels={"object": one}, scores={"object": 0.9}) for one in ("cat", "dog"))
    many = Judgement(labels={}, scores={}, seen={"object": ("cat", "pig")})
    assert agreed([cat]) is cat
    shows = [agreed([cat, many]).shows(concept(name)) for name in ("cat", "pig", "dog")]
    assert shows == [True, None, False]
    assert agreed([cat, dog]).disputed == {"object": ("cat", "dog")}
    assert agreed([cat, cat]).scores == {"object": 0.9}
    unsure = Judgement(labels={}, scores={}, unsure=("object",))
    assert agreed([cat, unsure]).shows(concept("dog")) is None


class Looks(GreyScorer):
    """Has features, the grey value as an angle, and matches what the prompt names."""

    def features(self, images: torch.Tensor) -> torch.Tensor:
        import torch

        angle = images.mean((1, 2, 3)).mul(255)
        return torch.stack([angle.cos(), angle.sin()], dim=1)

    def match(self, images: torch.Tensor, texts: Sequence[str]) -> list[float]:
        said = [one.labels["object"] for one in self.judge(images)]
        return [0.3 if label in text else 0.1 for label, text in zip(said, texts, strict=True)]


def test_metrics_of_features_and_of_texts_are_measured_by_the_scorer_that_has_them(world: World) -> None:
    far = check(id="far", metric="set-distance", gate=None)
    near = kept(id="near", metric="set-distance", gate=Gate(upper_at_most=0.1))
    match = check(id="match", metric="prompt-match", gate=Gate(lower_at_least=-0.1))
    found = council(world, GreyScorer(), Looks()).evaluate(far, near, match)
    away, stays, fits = found.claims[0].checks
    assert [one.verdict for one in (away, stays, fits)] == ["reported", "passed", "failed"]
    assert away.measurement is not None
    assert away.measurement.details["name"] == "set-distance[judge-1]"
    assert away.measurement.hardened.value == pytest.approx(1000 * 2 * (1 - np.exp((np.cos(2) - 1) / 100)))
    assert fits.measurement is not None
    assert fits.measurement.hardened.value == pytest.approx(-0.2)
    lines = {name: data.decode().splitlines() for name, data in found.evidence.items()}
    assert '"base_match":0.3' in lines["evidence/match.jsonl"][0]
    assert "base_match" not in lines["evidence/far.jsonl"][0]


@pytest.mark.parametrize(("metric", "lacks"), [("set-distance", "features"), ("prompt-match", "cosines with texts")])
def test_a_scorer_without_features_or_texts_makes_such_a_metric_unknown(world: World, metric: str, lacks: str) -> None:
    (record,), _ = evidence(world, check(metric=metric))
    assert record.reason == f"the metric {metric!r} needs {lacks}, and the scorer 'grey' gives none"


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


def sheet(**changes: object) -> CalibrationSheet:
    """Return a sheet of the grey scorer about cigarettes, of images of 32 x 32 pixels."""
    fields: dict[str, object] = {"scorer": "grey", "version": "1", "weights": "0" * 64, "params": {}, "size": (32, 32)}
    fields |= {"kind": "object", "label": "cigarette", "method": "labelled", "seed": 0, "salt": "", "digests": ("", "")}
    counts = {"positives": Tally(hits=47, n=50), "negatives": Tally(hits=1, n=50)}
    return CalibrationSheet(**{**fields, **counts, **changes})  # type: ignore[arg-type]


def with_sheet(world: World, **changes: object) -> World:
    entry = replace(release_scorer(GreyScorer()), sheets={"calibration/grey.json": sheet(**changes)})
    world.tools = replace(world.tools, scorers={"grey": entry})
    return world


def test_a_calibration_sheet_corrects_the_number_and_travels_with_the_evidence(world: World) -> None:
    found = with_sheet(world, size=world.models.base.anatomy.latents.image_size).evaluate(check(), kept())
    gone, stays = found.claims[0].checks
    assert gone.measurement is not None
    assert gone.measurement.hardened.high == pytest.approx(0.06491, abs=1e-5)
    assert gone.measurement.details["errors"]["cigarette"]["source"] == "calibration/grey.json"
    assert CalibrationSheet.parse(json.loads(found.evidence["calibration/grey.json"])).positives.hits == 47
    card = found.scorers["grey"]
    assert card.calibration.endswith("cigarette: seen in 47 of 50 images of it and in 1 of 50 others")
    digest = hashlib.sha256(found.evidence["calibration/grey.json"]).hexdigest()
    assert card.sheets == {"calibration/grey.json": digest}
    assert stays.measurement is not None
    assert stays.measurement.details["errors"]["source"] == ""


@pytest.mark.parametrize(
    ("changes", "differs"),
    [
        ({"size": (64, 64)}, "its size is (64, 64), here it is "),
        ({"weights": "1" * 64}, f"its weights is '{'1' * 64}', here it is '{'0' * 64}'"),
        ({"version": "2"}, "its version is '2', here it is '1'"),
        ({"params": {"threshold": 0.5}}, "its params have 'threshold' 0.5, here it is missing"),
    ],
)
def test_a_sheet_of_something_else_makes_it_unknown(world: World, changes: dict[str, object], differs: str) -> None:
    size = {"size": world.models.base.anatomy.latents.image_size}
    (record,), _ = evidence(with_sheet(world, **{**size, **changes}), check())
    assert record.verdict == "unknown"
    assert record.reason.startswith("the calibration sheet of 'grey' about 'cigarette' does not hold here: " + differs)


def test_a_sheet_that_leaves_open_whether_the_scorer_sees_anything_makes_it_unknown(world: World) -> None:
    size = world.models.base.anatomy.latents.image_size
    poor = {"positives": Tally(hits=12, n=50), "negatives": Tally(hits=10, n=50)}
    (record,), _ = evidence(with_sheet(world, size=size, **poor), check())
    assert record.verdict == "unknown"
    assert "the scorer may be no better than chance about 'cigarette': 12 of 50 seen, 10 of 50" in record.reason


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
