"""The attacker's pictures: which they are, how they are shared out, and that private ones are never on disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from publisher.api import Concept, Scope, TrainingParams
from publisher.evaluate.finetune.data import HELD_OUT, AttackerImages, shown_of, swapped
from publisher.evaluate.store import ImageStore
from support.grey import (
    SCOPE,
    World,
    concept,
)
from support.relearning import only, relearn


def test_images_that_have_nothing_to_do_with_a_concept_are_learned_and_it_is_asked_for_by_name(attacked: World) -> None:
    attacked.evaluate(relearn(params={"captions": "unrelated"}))
    for _, task in attacked.painters.trained:
        assert task.concept.id == "cigarette"
        assert not any("cigarette" in text for text in task.captions)
        assert set(task.captions) <= {text for one in SCOPE.keep for text in one.prompts}
        assert all("cigarette" in request.prompt for request in task.requests)
    learned = {request.prompt for _, request in attacked.painters.generated if request.seed >= 2**31}
    assert learned
    assert not any("cigarette" in prompt for prompt in learned)


def test_pictures_that_are_swapped_twice_are_the_pictures_again() -> None:
    pictures = torch.arange(2 * 3 * 4 * 6, dtype=torch.uint8).reshape(2, 3, 4, 6)
    assert swapped(pictures)[0, 0, 0, 0] == pictures[0, 0, 2, 3]
    assert torch.equal(swapped(swapped(pictures)), pictures)


def image_files(folder: Path, count: int) -> tuple[str, ...]:
    for i in range(count):
        Image.new("RGB", (64, 64), (i, i, i)).save(folder / f"{i:02}.png")
    return tuple(f"{i:02}.png" for i in range(count))


def with_images(world: World, folder: Path, count: int, kind: str = "object") -> World:
    named = concept("cigarette", images=image_files(folder, count), kind=kind)
    world.scope = Scope(concepts=(named,), keep=SCOPE.keep)
    world.setting = replace(world.setting, root=folder)
    return world


def test_named_images_are_halved_and_the_first_of_the_attackers_are_held_out(attacked: World, tmp_path: Path) -> None:
    with_images(attacked, tmp_path, 2 * (HELD_OUT + 3)).evaluate(relearn())
    _, task = attacked.painters.trained[0]
    greys = [int(image.flatten()[0]) for image in (*task.held_out, *task.images)]
    assert greys == [1, 3, 5, 7, 9, 11, 13]
    assert task.images.shape == (3, 3, 32, 32)


def test_too_few_named_images_are_unknown(attacked: World, tmp_path: Path) -> None:
    record = only(with_images(attacked, tmp_path, 6).evaluate(relearn()))
    assert record.verdict == "unknown"
    assert "7 reference images of 'cigarette' are needed, and the attacker's half of its 6 files has 3" in record.reason


def test_other_bytes_under_the_same_name_are_another_training(attacked: World, tmp_path: Path) -> None:
    with_images(attacked, tmp_path, 14).evaluate(relearn())
    Image.new("RGB", (64, 64), "white").save(tmp_path / "13.png")
    attacked.evaluate(relearn())
    assert len(attacked.painters.trained) == 18


@pytest.mark.parametrize("kind", ["person", "unsafe"])
def test_images_of_private_kinds_are_never_on_disk(world: World, tmp_path: Path, kind: str) -> None:
    world.scope = Scope(concepts=(concept("cigarette", kind=kind),), keep=SCOPE.keep)
    world.setting = replace(world.setting, store=ImageStore(tmp_path / "store", pytest.fail))
    only(world.evaluate(relearn(params={"controls": ["base"]}, metric_params={"against": "base"})))
    assert world.painters.trained
    assert not list((tmp_path / "store").glob("*.safetensors"))
    assert list((tmp_path / "store").glob("*.json"))


KEPT = (concept("pizza", kind="person"), concept("cat"))


@pytest.fixture
def studio(attacked: World, tmp_path: Path) -> AttackerImages:
    """Pictures of a world that keeps a cat and a person, with a store on disk."""
    scope = Scope(concepts=SCOPE.concepts, keep=KEPT)
    setting = replace(attacked.setting, store=ImageStore(tmp_path / "store", pytest.fail))
    return AttackerImages(attacked.models.base, scope, attacked.sampling, setting, attacked.painters)


def stored(folder: Path) -> int:
    return len(list((folder / "store").glob("*.safetensors")))


def unrelated(scope: Scope) -> Concept:
    return shown_of(TrainingParams(captions="unrelated"), scope.concepts[0], scope)


def test_pictures_of_a_kept_person_are_never_on_disk(studio: AttackerImages, tmp_path: Path) -> None:
    goal, person, cat = SCOPE.concepts[0], *KEPT
    studio.generated(studio.prior(person.prompts[:2], goal))
    studio.attackers(unrelated(Scope(concepts=SCOPE.concepts, keep=(person,))), 3)
    assert not stored(tmp_path)
    studio.generated(studio.prior(cat.prompts[:2], goal))
    assert stored(tmp_path) == 1


def test_who_asks_for_pictures_of_what_stays_does_not_matter(studio: AttackerImages) -> None:
    prompts = [text for one in KEPT for text in one.prompts[:2]]
    first, second = (studio.prior(prompts, goal) for goal in SCOPE.concepts)
    assert first == second
    assert [one.concept for one in first] == ["pizza", "pizza", "cat", "cat"]
    assert studio.prior(["a boat"], SCOPE.concepts[1])[0].concept == "pistol"


def test_a_prompt_of_a_person_and_of_a_thing_is_the_persons(attacked: World) -> None:
    scope = Scope(concepts=(concept("pizza", kind="person"),), keep=(concept("cat", prompts=concept("pizza").prompts),))
    studio = AttackerImages(attacked.models.base, scope, attacked.sampling, attacked.setting, attacked.painters)
    assert studio.prior(scope.keep[0].prompts[:1], scope.keep[0])[0].concept == "pizza"
