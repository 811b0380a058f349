"""Text states derived from the base model: the algebra, and a change of the projections that they undo."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from searching import emoji, reflected

from publisher.api import Check, Claim, ImageRequest, Sampling, Scope
from publisher.api.diffusion.text import Text
from publisher.builtin.attacks.derived import DerivedEmbedding, derived
from publisher.builtin.executors import Local
from publisher.builtin.metrics.finds import FoundExcess
from publisher.evaluate.checks import run_checks
from publisher.evaluate.context import ModelsUnderTest, ModelUnderTest, ReleaseScorer, Setting, StepClaim, Tools
from publisher.evaluate.searching.target import text_weights
from publisher.runtime.generate import generate
from publisher.runtime.pipelines import load
from publisher_emoji import model_folder
from publisher_emoji.plugin import EmojiScorer
from support.anatomies import EMBEDDED


def matrices(seed: int, *shapes: tuple[int, int]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def residual(weights: list[torch.Tensor], base: list[torch.Tensor], rho: float) -> float:
    """Return how far the projections of derived states are from those of the base model, relative to these."""
    (state,) = matrices(7, (6, 1))
    found, wanted = (torch.cat([one @ rows for one in some]) for some, rows in ((weights, state), (base, state)))
    reached = torch.cat([one @ derived(weights, base, rho) @ state for one in weights])
    assert float((found - wanted).norm()) > 0.1
    return float((reached - wanted).norm() / wanted.norm())


def test_an_invertible_edit_of_all_layers_is_undone_exactly() -> None:
    base, (edit,) = matrices(1, (8, 6), (5, 6)), matrices(2, (6, 6))
    weights = [one @ edit for one in base]
    assert residual(weights, base, 0.0) < 1e-9
    assert residual(weights, base, 0.0) < residual(weights, base, 0.1) < residual(weights, base, 10.0)


def test_what_a_singular_edit_took_cannot_be_derived() -> None:
    base, edit = matrices(1, (8, 6), (5, 6)), torch.diag(torch.tensor([0.0, 1, 1, 1, 1, 1], dtype=torch.float64))
    assert residual([one @ edit for one in base], base, 0.0) > 0.05


def test_one_layer_can_be_solved_by_hand() -> None:
    assert derived([torch.tensor([[2.0]])], [torch.tensor([[3.0]])], 2.0).item() == pytest.approx(2 * 3 / (4 + 2))


def test_states_that_undo_an_invertible_edit_give_the_base_model_s_images(tmp_path: Path) -> None:
    base, edited = (
        load(folder, EMBEDDED, torch.device("cpu"), torch.float32)
        for folder in (model_folder(), reflected(tmp_path / "edited"))
    )
    prompts = emoji("pizza").prompts[:3]
    asked = [
        ImageRequest(concept="pizza", prompt=prompt, seed=i, steps=4, guidance=1.0) for i, prompt in enumerate(prompts)
    ]
    wanted, hidden = (generate(one, asked).int() for one in (base, edited))
    assert (hidden - wanted).abs().max() > 50
    plain = EMBEDDED.read_text(edited, list(prompts))
    undone = derived([one.double() for one in text_weights(edited)], [one.double() for one in text_weights(base)], 0.0)
    states = Text((plain.states.double() @ undone.T).float())
    assert (generate(edited, asked, states).int() - wanted).abs().max() <= 1


def test_it_brings_back_what_a_linear_edit_hides_and_nothing_from_permuted_layers(tmp_path: Path) -> None:
    tools = Tools(
        attacks={"derived-embedding": DerivedEmbedding()},
        metrics={"found-excess": FoundExcess()},
        scorers={"emoji": ReleaseScorer("emoji", EmojiScorer(), ("object", "style"))},
        judges={"object": "emoji"},
        executor=Local(),
    )
    params = {"rho": [0.001], "images": 6, "images_per_find": 6, "finds": 1}
    check = Check(
        id="derived", attack="derived-embedding", attack_params=params, metric="found-excess", concepts=("pizza",)
    )
    claim = Claim(id="claim", sentence="pizza is gone", binds="in-weights", checks=(check,))
    hardened = ModelUnderTest.of(reflected(tmp_path / "hardened"), EMBEDDED)
    result = run_checks(
        [StepClaim(("step",), claim)],
        Scope(concepts=(emoji("pizza"),), keep=(emoji("cat"),)),
        ModelsUnderTest(ModelUnderTest.of(model_folder(), EMBEDDED), hardened),
        tools,
        Sampling(steps=4, guidance=3.0),
        Setting("cpu", "float32"),
    )
    record = result.claims[0].checks[0]
    found = {one.model: (one.stop, [find.hits for find in one.finds]) for one in record.searches}
    assert found == {"hardened": ("found", [6]), "base": ("found", [6]), "shuffled": ("nothing", [])}
    assert (record.verdict, record.measurement and record.measurement.hardened.value) == ("reported", 1.0)
