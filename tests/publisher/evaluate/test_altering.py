"""Attacks that mix the base model's tensors in: what they see, what is generated, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from publisher.api import (
    Access,
    Anatomy,
    CheckRecord,
    Concept,
    Gate,
    ImageRequest,
    NoParams,
    Sampling,
    WeightAttack,
)
from publisher.evaluate.altering import altered
from publisher.evaluate.context import ModelUnderTest, Unmeasured
from publisher.evaluate.plan import Models, images, plan_check
from publisher.model.digest import sha256_json
from publisher.report.rows import row
from support.anatomies import EMBEDDED
from support.grey import World, check, faithful, write_model, write_safeguards


class Restore(WeightAttack[NoParams]):
    """Puts the base model's tensors back."""

    name, version, access = "restore", "1", Access.BASE

    def __init__(self) -> None:
        self.seen: list[str] = []

    def requests(self, params: NoParams, concept: Concept, sampling: Sampling) -> list[ImageRequest]:
        steps = {"steps": sampling.steps, "guidance": sampling.guidance}
        prompts = concept.prompts[: sampling.images]
        return [ImageRequest(concept=concept.id, prompt=p, seed=i, **steps) for i, p in enumerate(prompts)]

    def alter(
        self,
        params: NoParams,
        anatomy: Anatomy,
        component: str,
        name: str,
        hardened: torch.Tensor,
        base: torch.Tensor,
    ) -> torch.Tensor:
        assert anatomy == EMBEDDED
        self.seen.append(f"{component}/{name}")
        return base


class Halving(Restore):
    """Breaks its contract."""

    def alter(
        self, params: NoParams, anatomy: Anatomy, component: str, name: str, *tensors: torch.Tensor
    ) -> torch.Tensor:
        changed: torch.Tensor = tensors[-1][:1]
        return changed


class Crashing(Restore):
    """Fails."""

    def alter(
        self, params: NoParams, anatomy: Anatomy, component: str, name: str, *tensors: torch.Tensor
    ) -> torch.Tensor:
        raise RuntimeError("no")


def with_weights(model: ModelUnderTest, **tensors: torch.Tensor) -> ModelUnderTest:
    save_file(tensors, model.folder / "unet" / "diffusion_pytorch_model.safetensors")
    return ModelUnderTest.of(model.folder, EMBEDDED, model.safeguards)


@pytest.fixture
def restore() -> Restore:
    return Restore()


@pytest.fixture
def world(world: World, restore: Restore) -> World:
    """The hardened model differs in one of two tensors."""
    same = torch.arange(4.0)
    models = world.models
    world.models = replace(
        models,
        base=with_weights(models.base, key=torch.zeros(2), same=same),
        hardened=with_weights(models.hardened, key=torch.ones(2), same=same),
    )
    world.tools = replace(world.tools, attacks={**world.tools.attacks, "restore": restore})
    return world


def test_every_tensor_that_differs_goes_through_the_attack_and_no_other(world: World, restore: Restore) -> None:
    with altered(restore, NoParams(), world.models.hardened, world.models.base, world.setting) as model:
        tensors = load_file(model.folder / "unet" / "diffusion_pytorch_model.safetensors")
        assert (model.folder / "scheduler" / "scheduler_config.json").is_file()
    assert restore.seen == ["unet/key"]
    assert tensors["key"].equal(torch.zeros(2))
    assert tensors["same"].equal(torch.arange(4.0))
    hardened = load_file(world.models.hardened.folder / "unet" / "diffusion_pytorch_model.safetensors")
    assert hardened["key"].equal(torch.ones(2))


def test_an_attack_on_every_tensor_also_sees_what_the_release_left_as_it_was(world: World) -> None:
    attack = type("Whole", (Restore,), {"every_tensor": True})()
    with altered(attack, NoParams(), world.models.hardened, world.models.base, world.setting):
        assert attack.seen == ["unet/key", "unet/same"]


def test_the_altered_model_is_asked_and_the_hardened_one_is_not(world: World) -> None:
    result = world.evaluate(check(), check(id="restored", attack="restore"))
    plain, restored = result.claims[0].checks
    assert (plain.verdict, restored.verdict) == ("passed", "failed")
    assert restored.measurement is not None
    assert restored.measurement.hardened.value == 1.0
    assert {pair.check for pair in result.pairs} == {"plain"}
    assert "evidence/restored.jsonl" in result.evidence


def test_the_altered_folder_is_gone_afterwards_and_its_images_are_reused(world: World, tmp_path: Path) -> None:
    world.setting = replace(world.setting, work=tmp_path / "states")
    world.evaluate(check(id="restored", attack="restore"))
    assert list((tmp_path / "states").iterdir()) == []
    generated = len(world.painters.generated)
    world.evaluate(check(id="restored", attack="restore"))
    assert len(world.painters.generated) == generated


def test_an_attacker_with_weights_drops_the_membranes(world: World, tmp_path: Path) -> None:
    held = write_safeguards(tmp_path / "r")
    world.models = replace(world.models, hardened=replace(world.models.hardened, safeguards=held, attached="g"))
    (record,) = world.evaluate(check(id="restored", attack="restore", gate=None)).claims[0].checks
    assert (record.verdict, record.membranes) == ("reported", "off")


@pytest.mark.parametrize(
    ("attack", "reason"),
    [(Halving(), "put something else than F32 (2,) into unet/key"), (Crashing(), "crashed: RuntimeError: no")],
)
def test_a_broken_attack_is_unknown(world: World, attack: Restore, reason: str) -> None:
    world.tools = replace(world.tools, attacks={"restore": attack})
    (record,) = world.evaluate(check(id="restored", attack="restore")).claims[0].checks
    assert record.verdict == "unknown"
    assert reason in record.reason


def test_a_fault_in_the_tensors_fails_a_check_whatever_its_images_show(world: World, restore: Restore) -> None:
    world.tools = replace(world.tools, attacks={"restore": restore})
    wide = check(id="restored", attack="restore", metric="changed-images", gate=Gate(upper_at_most=1.0))
    (fine,) = world.evaluate(wide).claims[0].checks
    restore.fault = lambda _: "1 tensor is nobody's"  # type: ignore[method-assign]
    (found,) = world.evaluate(wide).claims[0].checks
    assert (fine.verdict, found.verdict, found.reason) == ("passed", "failed", "1 tensor is nobody's")
    assert found.measurement == fine.measurement
    (reported,) = world.evaluate(check(id="restored", attack="restore", gate=None)).claims[0].checks
    assert reported.verdict == "reported"


def test_models_with_other_tensors_cannot_be_mixed(world: World, restore: Restore) -> None:
    models = replace(world.models, base=with_weights(world.models.base, key=torch.zeros(3), same=torch.arange(4.0)))
    with (
        pytest.raises(Unmeasured, match="other tensors"),
        altered(restore, NoParams(), models.hardened, models.base, world.setting),
    ):
        pytest.fail("they were mixed")


def test_a_model_stored_in_another_dtype_is_mixed_in_its_own(world: World, restore: Restore) -> None:
    hardened = world.models.hardened
    half = with_weights(world.models.base, key=torch.full((2,), 0.5, dtype=torch.float16), same=torch.arange(4.0))
    with altered(restore, NoParams(), hardened, half, world.setting) as made:
        (path,) = made.folder.glob("unet/*.safetensors")
        found = load_file(path)
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}
    assert found["key"].tolist() == [0.5, 0.5]


class Rounding(Restore):
    """Goes through every tensor, and may break the model."""

    every_tensor, may_break = True, True

    def alter(
        self, params: NoParams, anatomy: Anatomy, component: str, name: str, *tensors: torch.Tensor
    ) -> torch.Tensor:
        return tensors[0] * 0.75


@pytest.fixture
def rounded(world: World, tmp_path: Path) -> Callable[..., CheckRecord]:
    """Make the check with a model's altered copy showing of each label what is given, and the label itself else."""
    write_model(tmp_path / "never")
    never = ModelUnderTest.of(tmp_path / "never", EMBEDDED)
    retrained = with_weights(never, key=torch.full((2,), 2.0), same=torch.arange(4.0))
    world.models = replace(world.models, retrained=retrained)
    attack = Rounding()
    world.tools = replace(world.tools, attacks={**world.tools.attacks, "rounding": attack})
    world.setting = replace(world.setting, work=tmp_path / "states")
    models = {"base": world.models.base, "hardened": world.models.hardened, "retrained": retrained}
    base = world.models.base.digest
    names = {f"altered-{sha256_json(['restore', '1', {}, one.digest, base])}": name for name, one in models.items()}

    def measured(gate: Gate | None = None, **shows: dict[str, str]) -> CheckRecord:
        def paint(model: str, request: ImageRequest) -> str:
            label = faithful(model, request)
            return shows.get(names.get(model, ""), {}).get(label, label)

        (claim,) = world.paint(paint).evaluate(check(id="rounded", attack="rounding", gate=gate)).claims
        return claim.checks[0]

    return measured


GONE = {"cigarette": "pizza"}


def test_controls_are_altered_in_the_same_way_and_stand_in_the_record(rounded: Callable[..., CheckRecord]) -> None:
    record = rounded(hardened=GONE, retrained=GONE)
    assert {name: (one.value, one.n) for name, one in record.controls.items()} == {
        "base": (1.0, 60),
        "retrained": (0.0, 60),
        "kept before": (1.0, 120),
        "kept": (1.0, 120),
    }
    assert (record.verdict, rounded(Gate(upper_at_most=0.1), hardened=GONE, retrained=GONE).verdict) == (
        "reported",
        "passed",
    )
    assert "the retrained reference, altered too: 0%" in "; ".join(row(record).remarks)


@pytest.mark.parametrize(
    ("shows", "verdict", "reason"),
    [
        ({"hardened": {"pizza": "nothing"}, "retrained": GONE}, "unknown", "a broken model"),
        ({"hardened": GONE, "retrained": {}}, "unknown", "as much as the base model"),
        ({"hardened": GONE, "retrained": GONE, "base": GONE}, "unknown", "keeps this gate too"),
    ],
)
def test_a_number_that_its_controls_have_too_says_nothing(
    rounded: Callable[..., CheckRecord], shows: dict[str, dict[str, str]], verdict: str, reason: str
) -> None:
    gate = Gate(upper_at_most=0.1) if "cigarette" in shows["hardened"] else None
    record = rounded(gate, **shows)
    assert record.verdict == verdict
    assert reason in record.reason


def test_a_failed_gate_stays_failed_whatever_its_controls_say(rounded: Callable[..., CheckRecord]) -> None:
    record = rounded(Gate(upper_at_most=0.1), hardened={"pizza": "nothing"})
    assert record.verdict == "failed"
    assert record.controls["kept"].value == 0.5


def test_a_plan_counts_the_images_of_controls(rounded: Callable[..., CheckRecord], world: World) -> None:
    rounded(hardened=GONE)
    asked = check(id="rounded", attack="rounding", gate=None)
    plan = plan_check(asked, world.scope, world.tools, world.sampling, Models(retrained=True))
    assert images([plan]) == {"base": 180, "off": 120, "altered": 3 * 60 + 120}
    assert sum(model.startswith("altered") for model, _ in world.painters.generated) == 3 * 60 + 120


def test_evidence_of_controls_is_kept_and_an_attack_that_breaks_nothing_asks_for_nothing_else(world: World) -> None:
    record = world.evaluate(check(id="restored", attack="restore", gate=None))
    assert record.claims[0].checks[0].controls == {}
    assert list(record.evidence) == ["evidence/restored.jsonl"]
