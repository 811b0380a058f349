from __future__ import annotations

import pytest
import torch
from benches import batch_of, make_bench, seeded, theta_of

from publisher.api import UsageError
from publisher_immunize.bench import Bench
from publisher_immunize.host import NOTHING
from publisher_immunize.inner import Adversary
from publisher_immunize.params import Inner

KINDS: tuple[Inner, ...] = ("full", "cross-attention", "lora", "dreambooth", "textual-inversion")
QUICK: tuple[Inner, ...] = ("cross-attention", "lora", "textual-inversion")
WHOLE: tuple[Inner, ...] = ("full", "dreambooth")
RESTORED = [*QUICK, *(pytest.param(kind, marks=pytest.mark.slow) for kind in WHOLE)]
KEY = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"


def loss_after(bench: Bench, adversary: Adversary, seed: int = 0) -> float:
    batch, change = batch_of(bench, seed), adversary.own()
    with torch.no_grad():
        return float(bench.host.run({}, change, lambda: bench.losses(batch, change)).mean())


@pytest.mark.parametrize("kind", KINDS)
def test_every_adaptation_lowers_the_loss_that_it_trains_on(kind: Inner) -> None:
    bench = make_bench(inner=kind, inner_lr=1e-3, inner_rule="normalised")
    adversary = Adversary(kind, 2, bench, seeded())
    before = loss_after(bench, adversary)
    adversary.learn({}, [batch_of(bench)] * 4)
    assert loss_after(bench, adversary) < before


@pytest.mark.parametrize("kind", KINDS)
def test_an_adversary_that_has_not_learned_changes_nothing(kind: Inner) -> None:
    bench = make_bench(inner=kind)
    change = Adversary(kind, 2, bench, seeded()).own()
    batch = batch_of(bench)
    with torch.no_grad():
        plain = bench.host.run({}, NOTHING, lambda: bench.predict(batch))
        changed = bench.host.run({}, change, lambda: bench.predict(batch, change))
    assert torch.equal(plain, changed)


def test_the_factors_are_the_plain_gradients_of_each_concepts_own_copy() -> None:
    bench = make_bench(torch.float64)
    adversary = Adversary("cross-attention", 2, bench, seeded())
    batch = batch_of(bench)
    adversary.learn({}, [batch])
    rows = torch.randn(6, 32, generator=seeded(5), dtype=torch.float64)
    read = adversary.read(rows)
    for path in bench.host.keys_values:
        for n in range(2):
            weight = bench.host.tensor(f"{path}.weight").clone().requires_grad_()
            part = slice(n * batch.rows, (n + 1) * batch.rows)

            def work(part: slice = part, weight: torch.Tensor = weight) -> torch.Tensor:
                one = type(batch)(1, 2, batch.x[part], batch.noise[part], batch.t[part], batch.texts[part])
                return torch.autograd.grad(bench.losses(one).mean(), weight)[0]

            delta = -1e-2 * bench.host.run({f"{path}.weight": weight}, NOTHING, work)
            torch.testing.assert_close(read[path][n], delta @ rows.T, rtol=1e-8, atol=1e-12)


def test_the_normalised_rule_moves_every_projection_by_the_learning_rate() -> None:
    bench = make_bench(torch.float64, inner_rule="normalised")
    adversary = Adversary("cross-attention", 2, bench, seeded())
    adversary.learn({}, [batch_of(bench)])
    for whole in adversary.read(torch.eye(32, dtype=torch.float64)).values():
        torch.testing.assert_close(whole.square().mean((1, 2)).sqrt(), torch.full((2,), 1e-2, dtype=torch.float64))


def test_steps_of_one_learn_equal_learns_of_one_step() -> None:
    bench = make_bench(torch.float64)
    once, twice = (Adversary("cross-attention", 2, bench, seeded()) for _ in range(2))
    batches = [batch_of(bench, seed) for seed in range(3)]
    once.learn({}, batches)
    for batch in batches:
        twice.learn({}, [batch])
        twice.restore(twice.state())
    assert loss_after(bench, once, 7) == pytest.approx(loss_after(bench, twice, 7), rel=1e-12)


@pytest.mark.parametrize("kind", RESTORED)
def test_a_restored_adversary_goes_on_like_the_first(kind: Inner) -> None:
    bench = make_bench(inner=kind)
    first, second = Adversary(kind, 2, bench, seeded()), Adversary(kind, 2, bench, seeded(1))
    first.learn({}, [batch_of(bench)])
    second.restore(first.state())
    first.restore(first.state())
    for one in (first, second):
        one.learn({}, [batch_of(bench, 1)])
    for name, value in first.state().items():
        assert torch.equal(value, second.state()[name]), name


def test_a_step_over_bfloat16_weights_does_not_vanish() -> None:
    bench = make_bench(torch.bfloat16, inner_lr=1e-4)
    adversary = Adversary("cross-attention", 2, bench, seeded())
    adversary.learn({}, [batch_of(bench)])
    whole = adversary.read(torch.eye(32))[KEY]
    assert whole.dtype == torch.float32
    size = whole.abs().mean()
    assert size > 0
    # In the weights it would be lost: next to all of its entries are below their last bit.
    weight = bench.host.network.get_parameter(f"{KEY}.weight").detach()
    kept = (weight + whole.to(torch.bfloat16) != weight).float().mean()
    assert kept < 0.1


def test_second_order_deltas_depend_on_the_weights_and_first_order_ones_do_not() -> None:
    for order in (1, 2):
        bench = make_bench(inner_order=order)
        theta = theta_of(bench, "attn2.to_k.weight")
        adversary = Adversary("cross-attention", 2, bench, seeded())
        adversary.learn(theta, [batch_of(bench)])
        assert adversary.read(torch.eye(32))[KEY].requires_grad == (order == 2)


def test_a_loss_that_is_no_number_says_what_to_lower() -> None:
    bench = make_bench()
    name = KEY.replace("to_k", "to_v.weight")
    theta = {name: bench.host.tensor(name) * float("nan")}
    with pytest.raises(UsageError, match="no number any more") as error:
        Adversary("cross-attention", 2, bench, seeded()).learn(theta, [batch_of(bench)])
    assert "inner_lr" in str(error.value)
