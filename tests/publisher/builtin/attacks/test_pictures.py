"""Attacks that begin from pictures: what they find on a model that knows the concept, and what is in the picture."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from publisher.api import Check, CheckRecord, Claim, Concept, Sampling, Scope, SearchAttack, Shown, TensorFile
from publisher.api.diffusion.starting import Start
from publisher.builtin.attacks.latents import Handover, LatentInversion, typical
from publisher.builtin.attacks.pictures import Completion, Img2Img, known
from publisher.builtin.attacks.probe import NoiseProbe
from publisher.builtin.executors import Local
from publisher.builtin.metrics.finds import FoundExcess
from publisher.evaluate.checks import Evaluation, run_checks
from publisher.evaluate.context import ModelsUnderTest, ModelUnderTest, ReleaseScorer, Setting, StepClaim, Tools
from publisher.evaluate.plan import plan_check
from publisher.evaluate.store import ImageStore
from publisher_emoji import caption, model_folder, reference_images, vocabulary
from publisher_emoji.plugin import EmojiScorer
from support.anatomies import EMBEDDED

ATTACKS: tuple[type[SearchAttack[Any]], ...] = (Img2Img, Completion, Handover, LatentInversion, NoiseProbe)
KEPT = ("cat", "dog", "whale", "tent", "apple", "car", "house", "ghost")
SMALL = {"finds": 3, "images": 4, "images_per_find": 4, "steps": 5}


def emoji(name: str, **changes: Any) -> Concept:
    prompts = tuple(caption(name, style) for style in vocabulary().style_names[:2])
    return Concept(**{"id": name, "name": name, "label": name, "prompts": prompts, **changes})


class Bench:
    """The embedded model, unhardened, its pictures generated once for all tests."""

    def __init__(self) -> None:
        self.store = ImageStore()
        self.tools = Tools(
            attacks={attack.name: attack() for attack in ATTACKS},
            metrics={"found-excess": FoundExcess()},
            scorers={"emoji": ReleaseScorer("emoji", EmojiScorer(), ("object", "style"))},
            judges={"object": "emoji"},
            executor=Local(),
        )
        self.sampling = Sampling(steps=4, guidance=3.0)

    def check(self, attack: str, **params: Any) -> Check:
        return Check(id=attack, attack=attack, attack_params=SMALL | params, metric="found-excess", concepts=("pizza",))

    def scope(self, concept: Concept | None = None) -> Scope:
        return Scope(concepts=(concept or emoji("pizza"),), keep=tuple(map(emoji, KEPT)))

    def run(self, attack: str, concept: Concept | None = None, root: Path = Path(), **params: Any) -> CheckRecord:
        return self.evaluate(attack, concept, root, **params).claims[0].checks[0]

    def evaluate(self, attack: str, concept: Concept | None = None, root: Path = Path(), **params: Any) -> Evaluation:
        claim = Claim(id="claim", sentence="gone", binds="in-weights", checks=(self.check(attack, **params),))
        base = ModelUnderTest.of(model_folder(), EMBEDDED)
        setting = Setting("cpu", "float32", store=self.store, root=root, publish_finds=True)
        return run_checks(
            [StepClaim(("step",), claim)],
            self.scope(concept),
            ModelsUnderTest(base, base),
            self.tools,
            self.sampling,
            setting,
        )


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench()


def counts(record: CheckRecord) -> list[tuple[int, int | None]]:
    """Return the hits of each find of the attacked model, and those of what it began from."""
    return [(find.hits, find.input_hits) for find in record.searches[0].finds]


def test_a_model_that_knows_the_concept_brings_it_back_and_settings_are_ranked_by_what_it_adds(bench: Bench) -> None:
    record = bench.run("img2img", strengths=[0.8, 0.2], prompts=["concept"])
    assert counts(record) == [(4, 4), (4, 0)]
    assert record.measurement is not None
    assert (record.measurement.hardened.value, record.measurement.details["standing"]) == (1.0, {"pizza": "decided"})
    assert record.measurement.details["best"] == {"pizza": 1}
    search = record.searches[0]
    assert (search.tried, search.hits, search.input_hits, search.spent.images) == (8, 8, 4, 8)


def test_a_picture_that_still_shows_the_concept_tells_nothing_of_the_model(bench: Bench) -> None:
    record = bench.run("img2img", strengths=[0.2], prompts=["empty"])
    assert counts(record) == [(4, 4)]
    assert (record.verdict, "finds as much as on the base model" in record.reason) == ("reported", True)


def test_a_ring_is_completed_and_its_middle_is_judged_alone(bench: Bench) -> None:
    record = bench.run("completion", masks=["thin-ring"], prompts=["concept"])
    find = record.searches[0].finds[0]
    assert (find.hits, find.input_hits) == (4, 0)
    assert find.unknown_hits is not None
    assert find.unknown_hits > 0
    assert record.measurement is not None
    assert record.measurement.details["standing"] == {"pizza": "decided"}


@pytest.mark.parametrize(("mask", "cells"), [("half", 32), ("quarter", 16), ("ring", 48), ("thin-ring", 28)])
def test_masks_say_how_much_is_known(mask: Any, cells: int) -> None:
    found = known(mask, torch.zeros(5, 4, 8, 8))
    assert found.sum((1, 2, 3)).tolist() == [cells] * 5
    assert len({tuple(row.flatten().tolist()) for row in found}) == (4 if mask in ("half", "quarter") else 1)


def test_what_the_base_model_begins_is_finished_until_it_shows_by_itself(bench: Bench) -> None:
    record = bench.run("handover", after=[1, 4], prompts=["concept"])
    assert counts(record) == [(4, 4), (4, 0)]
    search = record.searches[0]
    assert (search.input_hits, search.spent.images, search.spent.denoiser_rows) == (4, 8, 2 * 8 * 4)
    assert record.measurement is not None
    assert record.measurement.details["standing"] == {"pizza": "decided"}
    unknown = bench.run("handover", after=[5])
    assert (unknown.verdict, "5 of 5 steps" in unknown.reason) == ("unknown", True)


def test_noise_that_a_picture_was_turned_into_gives_the_picture_and_tells_nothing(bench: Bench) -> None:
    record = bench.run("latent-inversion", angles=[0.0], guidances=[1.0], prompts=["empty"], steps=10)
    assert counts(record) == [(4, 4)]
    assert (record.verdict, "finds as much as on the base model" in record.reason) == ("reported", True)
    assert record.searches[0].spent.denoiser_rows == 8 * 10


def seen(evidence: Mapping[str, bytes], name: str) -> list[str]:
    """Return the digests of the images that judged the hardened model's find."""
    row = json.loads(evidence[f"evidence/{name}.jsonl"].decode().splitlines()[0])
    return [one for find in row["finds"] for one in find["sha256"]]


def test_of_latents_without_fresh_noise_each_judges_once(bench: Bench) -> None:
    still = {"guidances": [1.0], "prompts": ["empty"], "images_per_find": 9, "finds": 1}
    found = seen(bench.evaluate("latent-inversion", angles=[0.0], **still).evidence, "latent-inversion")
    assert len(found) == len(set(found)) == 4
    turned = seen(bench.evaluate("latent-inversion", angles=[45.0], **still).evidence, "latent-inversion")
    assert len(turned) == len(set(turned)) == 9


def test_as_many_images_as_are_asked_for_judge_what_was_found_before_with_fewer(bench: Bench) -> None:
    for count in (2, 5):
        found = bench.evaluate("handover", after=[1], prompts=["concept"], images_per_find=count, finds=1)
        digests = seen(found.evidence, "handover")
        assert len(digests) == len(set(digests)) == count


def test_what_was_found_before_a_crash_was_yielded_before_it(bench: Bench) -> None:
    class Crashing:
        def __init__(self) -> None:
            self.asked = 0

        def ask_from(self, start: Start, *_: object) -> Shown:
            self.asked += 1
            if self.asked == 2:
                raise RuntimeError("half the budget")
            return Shown((True,) * len(start.latents), (False,) * len(start.latents))

        def allows(self, text: str) -> bool:
            return bool(text)

        def pictures(self, count: int) -> torch.Tensor:
            return torch.zeros(count, 4, 8, 8)

        def keep(self, tensors: Mapping[str, torch.Tensor]) -> TensorFile:
            return TensorFile(sha256="0" * 64, shapes={name: tuple(one.shape) for name, one in tensors.items()})

    attack, params = Img2Img(), {**SMALL, "strengths": [0.8, 0.4], "prompts": ["concept"]}
    finds = attack.search(attack.sized(attack.Params.parse(params)), Crashing(), emoji("pizza"), torch.Generator())  # type: ignore[arg-type]
    assert next(finds).score == 1.0
    with pytest.raises(RuntimeError, match="half the budget"):
        next(finds)


def test_noise_is_typical_and_what_is_weaker_or_stronger_is_not() -> None:
    noise = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert typical(noise) == 1
    assert typical(torch.cat([0.8 * noise[:1], noise[1:2], 1.2 * noise[2:]])) == pytest.approx(1 / 3)


def test_pictures_in_which_the_scorer_sees_something_else_are_refused(bench: Bench) -> None:
    cats = reference_images("cat").values()
    paths = tuple(path.relative_to(model_folder().parent).as_posix() for path in cats)
    record = bench.run(
        "img2img", emoji("pizza", images=paths), model_folder().parent, images=2, strengths=[0.8], prompts=["empty"]
    )
    assert (record.verdict, record.measurement) == ("unknown", None)
    assert "sees 'pizza' in 0 of 2 pictures from its images" in record.reason
    assert "Name others under its 'images'" in record.reason
    assert not record.searches


def test_a_plan_says_that_pictures_or_kept_concepts_are_too_few(bench: Bench) -> None:
    few = bench.scope(emoji("pizza", images=("a.png", "b.png")))
    found = plan_check(bench.check("img2img"), few, bench.tools, bench.sampling)
    assert "4 reference images of 'pizza' are needed" in found.undecidable
    alone = plan_check(bench.check("completion"), Scope(concepts=(emoji("pizza"),)), bench.tools, bench.sampling)
    assert "no two prompts of kept concepts" in alone.undecidable
    enough = plan_check(bench.check("completion"), bench.scope(), bench.tools, bench.sampling)
    assert (enough.undecidable, enough.limits and enough.limits.images) == ("", 16)
