from __future__ import annotations

import pytest
import torch
from denoising_cases import batch_of, make_denoising, seeded, theta_of

from publisher.api import UsageError
from publisher_immunize.adversary import Adversary
from publisher_immunize.denoiser import NOTHING, Denoising
from publisher_immunize.params import Inner

KINDS: tuple[Inner, ...] = ("full", "cross-attention", "lora", "dreambooth", "textual-inversion")
QUICK: tuple[Inner, ...] = ("cross-attention", "lora", "textual-inversion")
WHOLE: tuple[Inner, ...] = ("full", "dreambooth")
EVERY = [*QUICK, *(pytest.param(kind, marks=pytest.mark.slow) for kind in WHOLE)]
KEY = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"


def loss_after(denoising: Denoising, adversary: Adversary, seed: int = 0) -> float:
    batch, change = batch_of(denoising, seed), adversary.own()
    with torch.no_grad():
        return float(denoising.host.run({}, change, lambda: denoising.losses(batch, change)).mean())


@pytest.mark.parametrize("kind", EVERY)
def test_every_adaptation_lowers_the_loss_that_it_trains_on(kind: Inner) -> None:
    denoising = make_denoising(inner=kind, inner_lr=1e-3, inner_rule="normalised")
    adversary = Adversary(kind, 2, denoising, seeded())
    before = loss_after(denoising, adversary)
    adversary.learn({}, [batch_of(denoising)] * 4)
    assert loss_after(denoising, adversary) < before


@pytest.mark.parametrize("kind", KINDS)
def test_an_adversary_that_has_not_learned_changes_nothing(kind: Inner) -> None:
    denoising = make_denoising(inner=kind)
    change = Adversary(kind, 2, denoising, seeded()).own()
    batch = batch_of(denoising)
    with torch.no_grad():
        plain = denoising.host.run({}, NOTHING, lambda: denoising.predict(batch))
        changed = denoising.host.run({}, change, lambda: denoising.predict(batch, change))
    assert torch.equal(plain, changed)


def test_the_factors_are_the_plain_gradients_of_each_concepts_own_copy() -> None:
    denoising = make_denoising(torch.float64)
    adversary = Adversary("cross-attention", 2, denoising, seeded())
    batch = batch_of(denoising)
    adversary.learn({}, [batch])
    rows = torch.randn(6, 32, generator=seeded(5), dtype=torch.float64)
    read = adversary.read(rows)
    for path in denoising.host.keys_values:
        for n in range(2):
            weight = denoising.host.tensor(f"{path}.weight").clone().requires_grad_()
            part = slice(n * batch.rows, (n + 1) * batch.rows)

            def work(part: slice = part, weight: torch.Tensor = weight) -> torch.Tensor:
                one = type(batch)(1, 2, batch.x[part], batch.noise[part], batch.t[part], batch.texts[part])
                return torch.autograd.grad(denoising.losses(one).mean(), weight)[0]

            delta = -1e-2 * denoising.host.run({f"{path}.weight": weight}, NOTHING, work)
            torch.testing.assert_close(read[path][n], delta @ rows.T, rtol=1e-8, atol=1e-12)


def test_the_normalised_rule_moves_every_projection_by_the_learning_rate() -> None:
    denoising = make_denoising(torch.float64, inner_rule="normalised")
    adversary = Adversary("cross-attention", 2, denoising, seeded())
    adversary.learn({}, [batch_of(denoising)])
    for whole in adversary.read(torch.eye(32, dtype=torch.float64)).values():
        torch.testing.assert_close(whole.square().mean((1, 2)).sqrt(), torch.full((2,), 1e-2, dtype=torch.float64))


def test_steps_of_one_learn_equal_learns_of_one_step() -> None:
    denoising = make_denoising(torch.float64)
    once, twice = (Adversary("cross-attention", 2, denoising, seeded()) for _ in range(2))
    batches = [batch_of(denoising, seed) for seed in range(3)]
    once.learn({}, batches)
    for batch in batches:
        twice.learn({}, [batch])
        twice.restore(twice.state())
    assert loss_after(denoising, once, 7) == pytest.approx(loss_after(denoising, twice, 7), rel=1e-12)


@pytest.mark.parametrize("kind", EVERY)
def test_a_restored_adversary_goes_on_like_the_first(kind: Inner) -> None:
    denoising = make_denoising(inner=kind)
    first, second = Adversary(kind, 2, denoising, seeded()), Adversary(kind, 2, denoising, seeded(1))
    first.learn({}, [batch_of(denoising)])
    second.restore(first.state())
    first.restore(first.state())
    for one in (first, second):
        one.learn({}, [batch_of(denoising, 1)])
    for name, value in first.state().items():
        assert torch.equal(value, second.state()[name]), name


def test_a_step_over_bfloat16_weights_does_not_vanish() -> None:
    denoising = make_denoising(torch.bfloat16, inner_lr=1e-4)
    adversary = Adversary("cross-attention", 2, denoising, seeded())
    adversary.learn({}, [batch_of(denoising)])
    whole = adversary.read(torch.eye(32))[KEY]
    assert whole.dtype == torch.float32
    size = whole.abs().mean()
    assert size > 0
    # In the weights it would be lost: next to all of its entries are below their last bit.
    weight = denoising.host.network.get_parameter(f"{KEY}.weight").detach()
    kept = (weight + whole.to(torch.bfloat16) != weight).float().mean()
    assert kept < 0.1


def test_second_order_deltas_depend_on_the_weights_and_first_order_ones_do_not() -> None:
    for order in (1, 2):
        denoising = make_denoising(inner_order=order)
        theta = theta_of(denoising, "attn2.to_k.weight")
        adversary = Adversary("cross-attention", 2, denoising, seeded())
        adversary.learn(theta, [batch_of(denoising)])
        assert adversary.read(torch.eye(32))[KEY].requires_grad == (order == 2)


def test_a_loss_that_is_no_number_says_what_to_lower() -> None:
    denoising = make_denoising()
    name = KEY.replace("to_k", "to_v.weight")
    theta = {name: denoising.host.tensor(name) * float("nan")}
    with pytest.raises(UsageError, match="no number any more") as error:
        Adversary("cross-attention", 2, denoising, seeded()).learn(theta, [batch_of(denoising)])
    assert "inner_lr" in str(error.value)
