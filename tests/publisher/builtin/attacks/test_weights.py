from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from publisher.api import Concept, Sampling
from publisher.builtin.attacks.asking import spread
from publisher.builtin.attacks.weights import (
    WEIGHTS,
    Cast,
    CastParams,
    CopyAttention,
    CopyAttentionParams,
    MergeParams,
    MergeWithBase,
)
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


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1])
def test_a_mixture_has_something_of_both(alpha: float) -> None:
    with pytest.raises(ValidationError, match="alpha"):
        MergeParams(alpha=alpha)


@pytest.mark.parametrize(("to", "most"), [("float16", 2**-11), ("bfloat16", 2**-8), ("int8", 1 / 254)])
def test_a_cast_moves_no_weight_further_than_half_a_step_of_its_numbers(to: str, most: float) -> None:
    weight = torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(1))
    found = Cast().alter(CastParams.parse({"to": to}), EMBEDDED, "unet", OTHER, weight, weight)
    largest = weight.flatten(1).abs().amax(1)[:, None, None]
    assert 0 < ((found - weight).abs() / largest).max() <= most * 1.001
    assert found.dtype == weight.dtype
    if to == "int8":
        assert max(len(row.unique()) for row in (found.flatten(1) / largest[:, 0] * 127).round()) <= 12
        assert Cast().alter(CastParams(), EMBEDDED, "unet", OTHER, weight * 0, weight).equal(weight * 0)


@pytest.mark.parametrize(("moved", "lost"), [(0.001, True), (0.1, False)])
def test_a_cast_loses_what_moved_weights_by_less_than_a_step_and_nothing_more(moved: float, *, lost: bool) -> None:
    base = torch.tensor([[1.27, 0.50, -0.30], [2.54, 0.10, 0.04]])  # steps of 0.01 and 0.02
    hardened = base + torch.tensor([[0.0, moved, -moved], [0.0, moved, moved]])
    cast = [Cast().alter(CastParams(), EMBEDDED, "unet", OTHER, one, base) for one in (hardened, base)]
    assert cast[0].allclose(cast[1]) == lost


def test_a_cast_leaves_vectors_and_whole_numbers_and_takes_what_the_release_never_touched() -> None:
    for tensor in (HARDENED, torch.tensor([[1, 2]])):
        assert Cast().alter(CastParams(), EMBEDDED, "unet", OTHER, tensor, BASE).equal(tensor)
    assert Cast.every_tensor
    assert not MergeWithBase.every_tensor


@pytest.mark.parametrize("attack", WEIGHTS)
def test_then_they_ask_in_plain_words(attack: type[CopyAttention | MergeWithBase]) -> None:
    sampling = Sampling(images=5)
    assert attack().requests(attack.Params(), CAT, sampling) == spread(CAT, CAT.prompts, sampling)  # type: ignore[arg-type]
