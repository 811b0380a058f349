from __future__ import annotations

from typing import Any

import pytest
import torch
from denoising_cases import batch_of, make_denoising, seeded, theta_of
from immunize_cases import SKULL
from torch import Tensor

from publisher_immunize.adversary import Adversary
from publisher_immunize.denoiser import NOTHING, Denoising
from publisher_immunize.outer import OuterGradient, OuterLevel

VALUES = ("attn2.to_k.weight", "attn2.to_v.weight")
ATTENTION = (*VALUES, "attn2.to_q.weight", "attn2.to_out.0.weight")
ONLY_CONCEPT: dict[str, Any] = {"prior": 0.0, "lam": 0.0, "mu": 0.0}


def step(
    denoising: Denoising, theta: dict[str, Tensor], kept: int = 0, order: tuple[int, ...] = (0, 1)
) -> OuterGradient:
    """Take an inner and an outer step with samples that are the same each time."""
    groups = len(denoising.data.concepts)
    adversary = Adversary(denoising.params.inners[0], groups, denoising, seeded())
    adversary.learn(theta, [turned(denoising, 0, 0, order)])
    return OuterLevel(denoising)(theta, adversary, turned(denoising, 1, kept, order), None, None)


def turned(denoising: Denoising, seed: int, kept: int, order: tuple[int, ...]) -> Any:
    """Return the batch with its groups in another order."""
    batch = batch_of(denoising, seed, kept)
    if batch.groups == 1:
        return batch
    rows = [n * batch.rows + i for n in order for i in range(batch.rows)]
    texts = tuple(batch.texts[i] for i in rows)
    return type(batch)(batch.groups, batch.own, batch.x[rows], batch.noise[rows], batch.t[rows], texts)


def test_the_merged_model_predicts_as_each_copy_on_its_own_keys_and_values() -> None:
    denoising = make_denoising(torch.float64)
    adversary = Adversary("cross-attention", 2, denoising, seeded())
    batch = batch_of(denoising)
    adversary.learn({}, [batch])
    outer = OuterLevel(denoising)
    merge = outer.merge(batch)
    _, change = outer.merged({}, adversary, merge)
    own = adversary.own()
    for path in denoising.host.keys_values:
        for n in range(2):
            rows = torch.cat([denoising.data.tokens(text) for text in batch.own_texts(n)])
            x = rows.expand(2, -1, -1)
            wanted = own.terms[path](x)[n]
            found = change.terms[path](rows[None])[0]
            assert float((found - wanted).norm() / wanted.norm()) < 1e-5


def test_n_concepts_in_n_concepts_merged() -> None:
    denoising = make_denoising()
    adversary = Adversary("cross-attention", 2, denoising, seeded())
    adversary.learn({}, [batch_of(denoising)])
    merge = OuterLevel(denoising).merge(batch_of(denoising))
    assert merge.share.shape[0] == 2
    assert bool((merge.share.sum(1) > 0).all())
    read = adversary.read(merge.rows)
    assert set(read) == set(denoising.host.keys_values)
    assert all(bool(value[n].abs().sum() > 0) for value in read.values() for n in range(2))


def test_the_order_of_the_concepts_does_not_matter() -> None:
    denoising = make_denoising(torch.float64)
    theta = theta_of(denoising, *ATTENTION)
    found = [step(denoising, theta, 1, order) for order in ((0, 1), (1, 0))]
    assert found[0].losses == pytest.approx(found[1].losses, rel=1e-9)
    for name, value in found[0].gradients.items():
        torch.testing.assert_close(value, found[1].gradients[name], rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("rule", ["sgd", "normalised"])
@pytest.mark.parametrize("inner", ["cross-attention", "lora"])
def test_the_exact_gradient_is_that_of_finite_differences(inner: str, rule: str) -> None:
    denoising = make_denoising(
        torch.float64, inner=inner, inner_order=2, inner_rule=rule, inner_steps=1, **ONLY_CONCEPT
    )
    theta = theta_of(denoising, *VALUES)
    found = step(denoising, theta)
    generator = seeded(9)
    way = {name: torch.randn(value.shape, generator=generator, dtype=torch.float64) for name, value in theta.items()}
    ends = []
    for sign in (1, -1):
        moved = {name: (value + sign * 1e-8 * way[name]).detach().requires_grad_() for name, value in theta.items()}
        ends.append(step(denoising, moved).losses[0])
    slope = sum(float((found.gradients[name] * way[name]).sum()) for name in theta)
    assert slope == pytest.approx((ends[0] - ends[1]) / 2e-8, rel=1e-3)


def test_through_the_merge_a_projection_hears_only_the_concepts_own_tokens() -> None:
    released = make_denoising(torch.float64, first_order=True, **ONLY_CONCEPT)
    paper = make_denoising(torch.float64, **ONLY_CONCEPT)
    theta = theta_of(paper, *ATTENTION)
    free, bound = step(released, theta), step(paper, theta)
    assert free.losses == pytest.approx(bound.losses, rel=1e-12)
    merge = OuterLevel(paper).merge(batch_of(paper, 1))
    for name, value in bound.gradients.items():
        if name.endswith(VALUES):
            torch.testing.assert_close(value, free.gradients[name] @ merge.p.T @ merge.rows, rtol=1e-6, atol=1e-10)
            assert not torch.allclose(value, free.gradients[name])
        else:
            torch.testing.assert_close(value, free.gradients[name], rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("inner", ["cross-attention", "lora"])
def test_one_concept_merged_is_imma_on_the_concepts_own_tokens(inner: str) -> None:
    """Merge one copy where every row that cross-attention reads is in T: it is that copy."""
    found = []
    for method in ("mima", "imma"):
        denoising = make_denoising(
            torch.float64,
            (SKULL,),
            method=method,
            inner=inner,
            first_order=True,
            inner_rule="normalised",
            **ONLY_CONCEPT,
        )
        for text, state in denoising.data.states.items():
            object.__setattr__(state, "states", denoising.data.tokens(text)[None])  # the texts' own tokens alone
        denoising.data.lengths.update(dict.fromkeys(denoising.data.lengths, 5))  # type: ignore[attr-defined]
        for state in denoising.data.states.values():
            object.__setattr__(state, "states", torch.cat([state.states[:, :1], state.states], 1))
        found.append(step(denoising, theta_of(denoising, *ATTENTION)))
    assert found[0].losses == pytest.approx(found[1].losses, rel=1e-6)
    for name, value in found[0].gradients.items():
        torch.testing.assert_close(value, found[1].gradients[name], rtol=1e-4, atol=1e-9)


def test_two_concepts_merged_are_not_two_immas() -> None:
    losses = [
        step(denoising := make_denoising(method=m, inner_rule="normalised"), theta_of(denoising, *VALUES)).losses[0]
        for m in ("mima", "imma")
    ]
    assert losses[0] != pytest.approx(losses[1], rel=1e-6)


def test_hold_is_content_where_the_adaptation_did_nothing() -> None:
    denoising = make_denoising(objective="hold")
    theta = theta_of(denoising, *VALUES)
    idle = Adversary("cross-attention", 2, denoising, seeded())
    found = OuterLevel(denoising)(theta, idle, batch_of(denoising), None, None)
    assert found.losses[0] == 0
    assert all(bool((g == 0).all()) for g in found.gradients.values())
    assert step(denoising, theta).losses[0] > 0


def test_a_bound_leaves_rows_alone_whose_loss_is_above_it() -> None:
    free = step(make_denoising(), theta_of(make_denoising(), *VALUES))
    for bound, moves in ((-free.losses[0] / 100, False), (-free.losses[0] * 100, True)):
        denoising = make_denoising(bound=bound, **ONLY_CONCEPT)
        found = step(denoising, theta_of(denoising, *VALUES))
        assert (found.losses[0] > 0) == moves
        assert any(bool((g != 0).any()) for g in found.gradients.values()) == moves


def test_a_term_whose_weight_is_0_pulls_at_nothing() -> None:
    denoising = make_denoising(strength=0.0, prior=0.0, lam=1.0, objective="hold")
    found = step(denoising, theta_of(denoising, *VALUES), 1)
    assert all(bool((g == 0).all()) for g in found.gradients.values())
    assert found.losses[0] > 0
    assert found.losses[2:] == (0.0, 0.0)


def test_kept_texts_pull_back_weights_that_have_moved() -> None:
    denoising = make_denoising(strength=0.0, prior=0.0, lam=1.0)
    theta = theta_of(denoising, *VALUES)
    keep = denoising.data.keep_batch(4, seeded())
    idle = Adversary("cross-attention", 2, denoising, seeded())
    outer = OuterLevel(denoising)
    assert outer(theta, idle, batch_of(denoising), lambda: outer.keep(theta, keep), None).losses[2] == 0
    with torch.no_grad():
        for value in theta.values():
            value.add_(0.1)
    found = outer(theta, idle, batch_of(denoising), lambda: outer.keep(theta, keep), None)
    assert found.losses[2] > 0
    assert all(bool((g != 0).any()) for g in found.gradients.values())


def test_innocents_are_to_be_learned_as_by_the_frozen_model() -> None:
    denoising = make_denoising(strength=0.0, prior=0.0, mu=1.0)
    theta = theta_of(denoising, *VALUES)
    images = denoising.data.kept[0]
    batches = [denoising.data.batch([images], "rare", (2, 0), seeded(seed)) for seed in range(2)]

    def innocent() -> OuterGradient:
        mine, other = (Adversary("cross-attention", 1, denoising, seeded()) for _ in range(2))
        mine.learn(theta, batches[:1])
        other.learn({}, batches[:1])
        idle = Adversary("cross-attention", 2, denoising, seeded())
        return OuterLevel(denoising)(theta, idle, batch_of(denoising), None, (mine, other, batches[1]))

    assert innocent().losses[3] == pytest.approx(0, abs=1e-12)
    with torch.no_grad():
        for value in theta.values():
            value.mul_(1.5)
    found = innocent()
    assert found.losses[3] > 0
    assert any(bool((g != 0).any()) for g in found.gradients.values())


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    found = []
    for on in (False, True):
        denoising = make_denoising(gradient_checkpointing=on, inner_rule="normalised")
        if on:
            denoising.host.network.enable_gradient_checkpointing()  # type: ignore[operator]
        found.append(step(denoising, theta_of(denoising, *ATTENTION), 1))
    for name, value in found[0].gradients.items():
        torch.testing.assert_close(value, found[1].gradients[name], rtol=1e-4, atol=1e-7)


def test_the_host_is_untouched_afterwards() -> None:
    denoising = make_denoising()
    before = {name: value.clone() for name, value in denoising.host.network.state_dict().items()}
    batch = batch_of(denoising)
    with torch.no_grad():
        plain = denoising.host.run({}, NOTHING, lambda: denoising.predict(batch))
    step(denoising, theta_of(denoising, *ATTENTION), 1)
    assert all(torch.equal(value, before[name]) for name, value in denoising.host.network.state_dict().items())
    with torch.no_grad():
        assert torch.equal(plain, denoising.host.run({}, NOTHING, lambda: denoising.predict(batch)))
