"""The real thing, small: the embedded model, its scorer, a few images in four steps."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from publisher.api import Check, Claim, Concept, Executor, Gate, Sampling, Scope
from publisher.builtin.attacks.asking import ASKING
from publisher.builtin.executors import Local
from publisher.builtin.executors.processes import ProcessesParams
from publisher.builtin.metrics import METRICS
from publisher.evaluate.checks import Evaluation, run_checks
from publisher.evaluate.context import ModelsUnderTest, ModelUnderTest, ReleaseScorer, Setting, StepClaim, Tools
from publisher.evaluate.images import close_models, opened
from publisher.evaluate.store import ImageStore
from publisher_emoji import caption, model_folder, vocabulary
from publisher_emoji.plugin import EmojiScorer
from support.anatomies import EMBEDDED
from support.working import Risky

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
SAMPLING = Sampling(steps=4, guidance=3.0, images=8)


def emoji(name: str) -> Concept:
    return Concept(
        id=name, name=name, label=name, prompts=tuple(caption(name, style) for style in vocabulary().style_names)
    )


SCOPE = Scope(concepts=(emoji("pizza"),), keep=(emoji("cat"), emoji("rocket")))
CLAIM = Claim(
    id="claim",
    sentence="pizza is gone, the rest is as it was",
    binds="in-weights",
    checks=(
        Check(id="gone", attack="plain", metric="concept-rate", concepts=("pizza",), gate=Gate(upper_at_most=0.75)),
        Check(
            id="kept",
            attack="plain",
            metric="kept-accuracy",
            concepts=("cat", "rocket"),
            gate=Gate(lower_at_least=-0.4),
        ),
        Check(
            id="near",
            attack="plain",
            metric="image-distance",
            concepts=("cat", "rocket"),
            gate=Gate(upper_at_most=0.1),
        ),
    ),
)


def evaluate(hardened: Path, images: Path | None, executor: Executor[Any] | None = None) -> Evaluation:
    tools = Tools(
        attacks={attack.name: attack() for attack in ASKING},
        metrics={metric.name: metric() for metric in METRICS},
        scorers={"emoji": ReleaseScorer("emoji", EmojiScorer(), ("object", "style"))},
        judges={"object": "emoji", "style": "emoji"},
        executor=executor or Local(),
    )
    models = ModelsUnderTest(ModelUnderTest.of(model_folder(), EMBEDDED), ModelUnderTest.of(hardened, EMBEDDED))
    setting = Setting("cpu", "float32", ImageStore(images))
    return run_checks([StepClaim(("step",), CLAIM)], SCOPE, models, tools, SAMPLING, setting)


def verdicts(result: Evaluation) -> dict[str, str]:
    return {check.id: check.verdict for claim in result.claims for check in claim.checks}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("images")


def test_a_model_that_was_left_alone_keeps_all_and_erases_nothing(store: Path) -> None:
    result = evaluate(model_folder(), store)
    assert verdicts(result) == {"gone": "failed", "kept": "passed", "near": "passed"}
    kept, near = result.claims[0].checks[1:]
    assert kept.measurement is not None
    assert near.measurement is not None
    assert (kept.measurement.hardened.value, near.measurement.hardened.value) == (0.0, 0.0)
    assert kept.measurement.details["base_accuracy"]["value"] == 1.0


def test_a_destroyed_model_fails_what_it_was_to_keep(store: Path, tmp_path: Path) -> None:
    """Let the U-Net say "no noise" always: only the checks on what stays tell this from erasure."""
    folder = tmp_path / "destroyed"
    shutil.copytree(model_folder(), folder)
    weights = load_file(folder / WEIGHTS)
    save_file({name: torch.zeros_like(t) if "conv_out" in name else t for name, t in weights.items()}, folder / WEIGHTS)
    assert verdicts(evaluate(folder, store)) == {"gone": "passed", "kept": "failed", "near": "failed"}


@pytest.mark.slow
def test_what_the_store_held_makes_no_difference(store: Path) -> None:
    """Show that a second run, from the store or from nothing, gives the same bytes."""
    first, again, alone = (evaluate(model_folder(), folder) for folder in (store, store, None))
    assert first == again == alone


@pytest.mark.slow
def test_processes_of_which_one_is_killed_give_the_same_bytes(store: Path, tmp_path: Path) -> None:
    executor = Risky(ProcessesParams(workers=2))
    executor.mark = tmp_path / "killed"
    try:
        apart = evaluate(model_folder(), None, executor)
    finally:
        executor.close()
    here = evaluate(model_folder(), store)
    assert executor.mark.exists()
    assert here.evidence
    assert (apart.evidence, apart) == (here.evidence, here)


def test_a_model_that_cannot_be_loaded_is_unknown(store: Path, tmp_path: Path) -> None:
    folder = tmp_path / "torn"
    shutil.copytree(model_folder(), folder)
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:1000])
    result = evaluate(folder, store)
    assert set(verdicts(result).values()) == {"unknown"}
    assert "the hardened model generated no image: ModelError" in result.claims[0].checks[0].reason


def test_a_search_keeps_small_models_loaded_until_all_are_forgotten() -> None:
    def load(variant: str = "") -> Any:
        return opened(model_folder(variant), EMBEDDED, None, "cpu", "float32")[0]

    first, other = load(), load("reference")
    assert (load() is first, load("reference") is other) == (True, True)
    close_models()
    assert load() is not first
    close_models()
