from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_sd import CAT, DOG, quick, seeded, session

from publisher.api import UsageError
from publisher.api.diffusion.ddim import Ddim
from publisher.api.diffusion.denoiser import Denoiser
from publisher.api.diffusion.process import process_of
from publisher.api.diffusion.text import encode
from publisher.api.membranes import find_hosts
from publisher.testing.tiny import open_model
from publisher_membrane_bundle.data import AnchorMix
from publisher_membrane_bundle.membranes import Membranes, match_hosts
from publisher_membrane_bundle.objective import NoisyPoint, Objective, TextTriple
from publisher_membrane_bundle.params import Anchors
from publisher_membrane_bundle.pool import Pool, PoolSize
from publisher_membrane_bundle.train import train

SAID = (TextTriple("cat", "", "cat"), TextTriple("dog", "cat", "big dog"))
CPU = torch.device("cpu")


class Setup:
    """K membranes with some effect on the tiny model."""

    def __init__(self, folder: Path, count: int, uncond: float = 0.5) -> None:
        model = open_model(folder)
        self.texts = encode(model, ["", "cat", "dog", "big dog"], CPU)
        self.denoiser = Denoiser.load(model, CPU, torch.float32)
        self.membranes = Membranes(
            match_hosts(self.denoiser.network, find_hosts(model), model.anatomy),
            [str(i) for i in range(count)],
            2,
            1.0,
            CPU,
        )
        with torch.no_grad():
            self.membranes.flat.normal_(0, 0.1, generator=seeded("factors"))
        self.objective = Objective(self.denoiser, self.membranes, self.texts, 1.0, 10.0, uncond)
        self.anchors = AnchorMix(Anchors(uncond=uncond), (), self.texts)
        self.ddim = Ddim(process_of(model), 6, 3.0)

    def point(self, said: tuple[TextTriple, ...], owner: int = 0) -> NoisyPoint:
        samples = seeded("point")
        x = torch.randn(1, 4, 8, 8, generator=samples)
        return NoisyPoint(x, 500, said, self.anchors.sample("cat", samples), owner)

    def pool(self, count: int = 4, batch: int = 1) -> Pool:
        triples = [[said] for said in SAID[: len(self.membranes.concepts)]]
        return Pool(self.objective, self.ddim, self.anchors, triples, PoolSize(count, batch), seeded("pool"))


@pytest.mark.slow
def test_erasing_is_learned_and_the_anchors_stay(tiny_sd: Path, tmp_path: Path) -> None:
    trained = train(open_model(tiny_sd), [CAT], [], quick(steps=80, warmup=5, pool=6), session(tmp_path))
    numbers = {name: value for name, value, _ in trained.numbers}
    assert numbers["cat: erase residual"] < 0.7
    erase = trained.curves[0][2]
    assert numbers["cat: anchor loss"] < 0.1 * erase[0]


def test_concepts_that_share_forwards_get_what_each_gets_alone(tiny_sd: Path) -> None:
    both = Setup(tiny_sd, 2)
    with both.membranes.attached():
        shared = both.objective.backward([both.point(SAID, owner=1)])
    gradients = both.membranes.per_membrane(both.membranes.flat.grad)
    for i, said in enumerate(SAID):
        alone = Setup(tiny_sd, 1)
        for down_up, wide in zip(alone.membranes.factors.values(), both.membranes.factors.values(), strict=True):
            for part, source in zip(down_up, wide, strict=True):
                part[0] = source[i]
        with alone.membranes.attached():
            single = alone.objective.backward([alone.point((said,))])
        torch.testing.assert_close(shared.erase[i], single.erase[0], rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(shared.anchor[i], single.anchor[0], rtol=1e-4, atol=1e-7)
        for part, other in zip(gradients[i], alone.membranes.per_membrane(alone.membranes.flat.grad)[0], strict=True):
            torch.testing.assert_close(part, other, rtol=1e-2, atol=1e-4)


def test_several_points_of_one_step_are_averaged(tiny_sd: Path) -> None:
    setup = Setup(tiny_sd, 1)
    one, other = setup.point(SAID[:1]), NoisyPoint(torch.ones(1, 4, 8, 8), 100, SAID[:1], (), 0)
    with setup.membranes.attached():
        apart = [setup.objective.backward([point]).erase for point in (one, other)]
        together = setup.objective.backward([one, other]).erase
    torch.testing.assert_close(together, (apart[0] + apart[1]) / 2, rtol=1e-4, atol=1e-7)


def test_a_shut_membrane_computes_nothing_and_changes_no_bit(tiny_sd: Path) -> None:
    setup = Setup(tiny_sd, 1)
    x, t, text = torch.randn(1, 4, 8, 8), torch.tensor([500]), setup.texts["cat"]
    before = setup.denoiser.frozen(x, t, text)
    setup.membranes.flat.data.fill_(float("nan"))
    with setup.membranes.attached():
        assert torch.equal(setup.denoiser.frozen(x, t, text), before)
        with setup.membranes.open():
            assert setup.denoiser.frozen(x, t, text).isnan().any()
        assert torch.equal(setup.denoiser.frozen(x, t, text), before)
    assert torch.equal(setup.denoiser.frozen(x, t, text), before)


def test_folding_into_the_weights_is_the_open_membrane_and_is_undone_exactly(tiny_sd: Path) -> None:
    setup = Setup(tiny_sd, 1)
    x, t, text = torch.randn(1, 4, 8, 8), torch.tensor([500]), setup.texts["cat"]
    before = setup.denoiser.frozen(x, t, text)
    with setup.membranes.attached():
        with setup.membranes.open():
            opened = setup.denoiser.frozen(x, t, text)
        with setup.membranes.folded():
            folded = setup.denoiser.frozen(x, t, text)
    assert (opened - before).abs().max() > 1e-3
    torch.testing.assert_close(folded, opened, rtol=1e-4, atol=1e-4)
    assert torch.equal(setup.denoiser.frozen(x, t, text), before)


def test_gradients_of_the_branch_are_those_of_autograd(tiny_sd: Path) -> None:
    setup = Setup(tiny_sd, 1)
    x, t, text = torch.randn(1, 4, 8, 8), torch.tensor([500]), setup.texts["cat"]
    membranes = setup.membranes
    with membranes.attached(), membranes.open():
        setup.denoiser(x, t, text).square().mean().backward()
    stem = next(iter(membranes.layers))
    down, up = (part[0].clone().requires_grad_() for part in membranes.factors[stem])
    layer = membranes.layers[stem]
    with membranes.folded():
        folded = {path: value.clone() for path, value in setup.denoiser.network.named_parameters()}
    name = next(path for path, value in setup.denoiser.network.named_parameters() if value is layer.weight)
    folded[name] = layer.weight + (up.T @ down / 2).view_as(layer.weight)
    out = torch.func.functional_call(setup.denoiser.network, folded, (x, t, text.states)).sample
    expected = torch.autograd.grad(out.square().mean(), [down, up])
    for part, other in zip(membranes.per_membrane(membranes.flat.grad)[0][:2], expected, strict=True):
        torch.testing.assert_close(part, other, rtol=1e-3, atol=1e-6)


def test_trajectories_stand_staggered_and_start_anew_at_the_end(tiny_sd: Path) -> None:
    setup = Setup(tiny_sd, 2)
    pool = setup.pool(count=5)
    with setup.membranes.attached():
        pool.begin()
        assert sorted(pool.places.tolist()) == [0, 1, 2, 3, 4]
        first = int((pool.places == 4).nonzero()[0])
        for _ in range(first + 1):
            pool.step()
    assert pool.places[first] == 0
    assert pool.owners.tolist() == [0, 1, 0, 1, 0]


def test_a_step_of_the_pool_is_the_guided_ddim_step_of_the_open_model(tiny_sd: Path) -> None:
    setup = Setup(tiny_sd, 1)
    pool = setup.pool()
    with setup.membranes.attached():
        pool.begin()
        x, place = pool.x[:1].clone(), pool.places[:1].clone()
        with setup.membranes.open():
            t = pool.sampler.timesteps(place)
            target, uncond = (setup.denoiser.frozen(x, t, setup.texts[name]) for name in ("cat", ""))
        pool.step()
    torch.testing.assert_close(pool.x[:1], pool.sampler.step(x, place, target, uncond), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_the_membranes_of_a_bundle_train_at_once(tiny_sd: Path, tmp_path: Path) -> None:
    trained = train(open_model(tiny_sd), [CAT, DOG], [], quick(steps=60, warmup=5, lr=1e-2), session(tmp_path))
    assert list(trained.membranes) == ["cat", "dog"]
    assert len(trained.curves) == 6
    numbers = {name: value for name, value, _ in trained.numbers}
    assert max(numbers["cat: erase residual"], numbers["dog: erase residual"]) < 0.9


def test_prompts_to_keep_are_anchors_on_request(tiny_sd: Path, tmp_path: Path) -> None:
    mix = Anchors(uncond=0.34, gaussian=0, prompts=2)
    trained = train(open_model(tiny_sd), [CAT], ["dog", "ghost"], quick(anchors=mix), session(tmp_path))
    assert trained.curves[1][2][-1] > 0
    with pytest.raises(UsageError, match="there are none"):
        train(open_model(tiny_sd), [CAT], [], quick(anchors=mix), session(tmp_path))
