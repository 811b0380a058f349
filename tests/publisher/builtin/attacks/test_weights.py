from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from pydantic import ValidationError
from searching import emoji, reflected

from publisher.api import Concept, Sampling, WeightAttack, spread_requests
from publisher.builtin.attacks.weights import (
    WEIGHTS,
    Cast,
    CastParams,
    CopyAttention,
    CopyAttentionParams,
    Format,
    MergeParams,
    MergeWithBase,
)
from publisher.evaluate.altering import altered
from publisher.evaluate.context import ModelUnderTest, Setting
from publisher.runtime.generate import generate
from publisher.runtime.pipelines import load
from publisher_emoji import model_folder
from publisher_emoji.plugin import EmojiScorer
from support.anatomies import EMBEDDED

HARDENED, BASE = torch.tensor([1.0, 2.0]), torch.tensor([3.0, -2.0])
CAT = Concept(id="cat", name="cat", label="cat", prompts=("a cat", "the cat"))
SELF, CROSS, OTHER = (
    f"down_blocks.0.attentions.0.{part}.weight" for part in ("x.attn1.to_q", "x.attn2.to_k", "proj_in")
)


@pytest.mark.parametrize(("which", "copied"), [("cross", {CROSS}), ("self", {SELF}), ("both", {SELF, CROSS})])
def test_the_chosen_attention_comes_from_the_base_and_nothing_else(which: str, copied: set[str]) -> None:
    params = CopyAttentionParams.parse({"which": which})
    for name in (SELF, CROSS, OTHER):
        expected = BASE if name in copied else HARDENED
        assert CopyAttention().alter(params, EMBEDDED, "unet", name, HARDENED, BASE).equal(expected)


def test_a_text_encoders_attention_is_none_of_the_denoisers() -> None:
    name = "text_model.encoder.layers.0.self_attn.k_proj.weight"
    assert CopyAttention().alter(CopyAttentionParams(), EMBEDDED, "text_encoder", name, HARDENED, BASE).equal(HARDENED)


@pytest.mark.parametrize(("alpha", "mixed"), [(0.1, [1.2, 1.6]), (0.5, [2.0, 0.0])])
def test_merging_moves_a_share_of_the_way_to_the_base(alpha: float, mixed: list[float]) -> None:
    found = MergeWithBase().alter(MergeParams(alpha=alpha), EMBEDDED, "unet", OTHER, HARDENED, BASE)
    torch.testing.assert_close(found, torch.tensor(mixed))


def test_merging_computes_in_float32_and_keeps_the_dtype() -> None:
    hardened, base = (tensor.to(torch.float16) * 20_000 for tensor in (HARDENED, BASE))
    found = MergeWithBase().alter(MergeParams(alpha=0.1), EMBEDDED, "unet", OTHER, hardened, base)
    assert found.dtype == torch.float16
    assert found.equal((hardened.float() * 0.9 + base.float() * 0.1).half())


def test_whole_numbers_are_not_mixed() -> None:
    ids = torch.tensor([1, 2])
    assert MergeWithBase().alter(MergeParams(), EMBEDDED, "text_encoder", "position_ids", ids, ids + 1).equal(ids)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -3.1])
def test_a_mixture_is_neither_of_the_two_models(alpha: float) -> None:
    with pytest.raises(ValidationError, match="alpha"):
        MergeParams(alpha=alpha)


@pytest.mark.parametrize(("alpha", "mixed"), [(2.0, [5.0, -6.0]), (-1.0, [-1.0, 6.0])])
def test_negation_goes_past_the_base_and_its_reverse_away_from_it(alpha: float, mixed: list[float]) -> None:
    found = MergeWithBase().alter(MergeParams(alpha=alpha), EMBEDDED, "unet", OTHER, HARDENED, BASE)
    torch.testing.assert_close(found, torch.tensor(mixed))


@pytest.mark.parametrize(("tensors", "mixed"), [("cross", {CROSS}), ("others", {SELF, OTHER, "text"})])
def test_a_group_is_mixed_and_the_others_stay(tensors: str, mixed: set[str]) -> None:
    params = MergeParams.parse({"alpha": 1.0, "tensors": tensors})
    for name in (SELF, CROSS, OTHER, "text"):
        component = "text_encoder" if name == "text" else "unet"
        found = MergeWithBase().alter(params, EMBEDDED, component, name, HARDENED, BASE)
        assert found.equal(BASE if name in mixed else HARDENED)


def cast(to: str, weight: torch.Tensor) -> torch.Tensor:
    return Cast().alter(CastParams.parse({"to": to}), EMBEDDED, "unet", OTHER, weight, weight)


HALF_STEPS = [
    ("float16", 2**-11),
    ("bfloat16", 2**-8),
    ("fp8", 2**-4),
    ("int8", 1 / 254),
    ("int4", 1 / 14),
    ("nf4", 0.16),
]


@pytest.mark.parametrize(("to", "most"), HALF_STEPS)
def test_a_cast_moves_no_weight_further_than_half_a_step_of_its_numbers(to: str, most: float) -> None:
    weight = torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(1))
    found = cast(to, weight)
    largest = weight.abs().max() if to == "nf4" else weight.flatten(1).abs().amax(1)[:, None, None]
    assert 0 < ((found - weight).abs() / largest).max() <= most * 1.001
    assert found.dtype == weight.dtype
    assert cast(to, found).allclose(found, atol=1e-6)
    assert cast(to, weight * 0).equal(weight * 0)


def test_normal_float_has_the_published_levels() -> None:
    published = torch.tensor([-1, -0.69619, -0.52507, -0.39492, -0.28444, -0.18477, -0.09105, 0])
    levels = cast("nf4", torch.linspace(-1, 1, 64)[None]).unique()
    assert len(levels) == 16
    torch.testing.assert_close(levels[:8], published, atol=1e-5, rtol=0)
    torch.testing.assert_close(levels[[8, 12, 15]], torch.tensor([0.07958, 0.44071, 1]), atol=1e-5, rtol=0)


def test_a_block_of_normal_float_has_a_scale_of_its_own_and_the_last_may_be_short() -> None:
    weight = torch.cat([torch.ones(1, 64), torch.full((1, 6), 1e-3)], dim=1)
    assert cast("nf4", weight).equal(weight)


def test_fp8_has_no_infinity() -> None:
    assert cast("fp8", torch.tensor([[1e4, -1e4, 1.0]])).tolist() == [[448.0, -448.0, 1.0]]


@pytest.mark.parametrize(("to", "gone"), [("prune-30", 3), ("prune-50", 5)])
def test_pruning_takes_the_smallest_weights_and_no_other(to: str, gone: int) -> None:
    weight = torch.tensor([[10.0, -9, 8, -7, 6], [-5, 4, -3, 2, -1]])
    assert cast(to, weight).equal(weight * (weight.abs() > gone))
    assert (cast(to, torch.ones(2, 5)) == 0).sum() == gone  # of equal ones as many


@pytest.mark.parametrize("to", get_args(Format))
def test_a_cast_loses_what_moved_weights_by_less_than_a_step_and_nothing_more(to: str) -> None:
    base = torch.tensor([[1.0, 0.5, -0.25, 0.0], [2.0, 0.015625, 0.25, 0.0]])  # exact in each of them, or pruned
    base = cast(to, base)
    step = {"float16": 1e-5, "bfloat16": 1e-4, "int8": 1e-3}.get(to, 4e-3)
    hidden, plain = base.clone(), base.clone()
    hidden[0, 1 if "prune" not in to else 3] += step
    plain[:, 0] = 0.75 * plain[:, 0]
    assert cast(to, hidden).equal(base)
    assert not cast(to, plain).allclose(base)


def test_a_cast_leaves_vectors_and_whole_numbers_and_takes_what_the_release_never_touched() -> None:
    for tensor in (HARDENED, torch.tensor([[1, 2]])):
        assert Cast().alter(CastParams(), EMBEDDED, "unet", OTHER, tensor, BASE).equal(tensor)
    assert Cast.every_tensor
    assert not MergeWithBase.every_tensor


@pytest.mark.parametrize("attack", WEIGHTS)
def test_then_they_ask_in_plain_words(attack: type[CopyAttention | MergeWithBase]) -> None:
    sampling = Sampling(images=5)
    assert attack().requests(attack.Params(), CAT, sampling) == spread_requests(CAT, CAT.prompts, sampling)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("attack", "params", "shown"),
    [
        (MergeWithBase(), {"alpha": 0.1}, 0),
        (MergeWithBase(), {"alpha": 0.9}, 6),
        (CopyAttention(), {"which": "self"}, 0),
        (CopyAttention(), {"which": "cross"}, 6),
        (Cast(), {"to": "int8"}, 0),
    ],
    ids=["merge a tenth", "merge nine tenths", "copy self", "copy cross", "cast"],
)
def test_on_the_embedded_model_what_an_edit_of_cross_attention_hides_comes_with_the_base_model_s_alone(
    tmp_path: Path, attack: WeightAttack[Any], params: dict[str, Any], shown: int
) -> None:
    hardened, base = (ModelUnderTest.of(one, EMBEDDED) for one in (reflected(tmp_path / "edited"), model_folder()))
    asked = spread_requests(emoji("pizza"), emoji("pizza").prompts, Sampling(images=6, steps=4, guidance=3.0))
    with altered(attack, attack.Params.parse(params), hardened, base, Setting("cpu", "float32")) as mixed:
        images = generate(load(mixed.folder, EMBEDDED, torch.device("cpu"), torch.float32), asked)
    scorer = EmojiScorer()
    scorer.load(torch.device("cpu"))
    assert [one.labels["object"] for one in scorer.judge(images.float() / 255)].count("pizza") == shown
