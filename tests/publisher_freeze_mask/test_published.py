from __future__ import annotations

import torch
from mask_cases import random_text, tiny_unet
from naive_freeze import Encoders, Published, Rates, Rows
from torch import Tensor

from publisher.api.freeze_mask import Candidate
from publisher_freeze_mask.freezeasguard import released
from publisher_freeze_mask.mixing import Loss, MixedNetwork
from publisher_freeze_mask.params import ReleasedParams
from publisher_freeze_mask.units import Units

STEPS, RHO = 7, 0.3


def test_steps_are_those_of_the_published_loop_in_float64() -> None:
    network, theirs = tiny_unet().double(), tiny_unet().double()
    before = {name: tensor.detach().clone() for name, tensor in network.named_parameters()}
    sample = torch.Generator().manual_seed(3)
    delta = {
        name: 0.03 * torch.randn(value.shape, generator=sample, dtype=torch.float64) for name, value in before.items()
    }
    units = Units({name: Candidate(shape=tuple(value.shape)) for name, value in before.items()})
    place = MixedNetwork(network, before.__getitem__, {})
    params = ReleasedParams(steps=STEPS, c_sparsity=100.0, user_lr=1e-2, interval=3)
    batches = [rows(step) for step in range(STEPS)]
    turns = iter(batches)

    def ours() -> tuple[Loss, Loss]:
        now = next(turns)

        def loss(part: Tensor) -> Tensor:
            predicted = network(now.images[part], now.t[part], text(now.ids)[part], return_dict=False)[0]
            found: Tensor = (predicted - now.noise[part]).square().mean()
            return found

        bad, good = now.illegal, ~now.illegal
        return (lambda: (loss(good) - loss(bad)) / 2), (lambda: (loss(good) + loss(bad)) / 2)

    start, x = released(place, units, delta, ours, rho=RHO, params=params, generator=torch.Generator().manual_seed(0))
    order = [units.keys.index((name, (0, 0))) for name in before]
    published = Published(
        theirs,
        lambda noisy, t, states: theirs(noisy, t, states, return_dict=False)[0],
        {name: value + delta[name] for name, value in before.items()},
        Encoders(image=lambda images: images, text=text, noisy=lambda latents, _noise, _t: latents),
        start[order],
        Rates(RHO, params.c_sparsity, params.mask_lr, params.user_lr, params.temperature),
    )
    for turn, batch in enumerate(batches):
        (published.user_step if turn % params.interval else published.publisher_step)(batch)
    torch.testing.assert_close(x[order], torch.stack(published.x), rtol=1e-9, atol=1e-9)
    assert float((x - start).abs().min()) > 0


def rows(seed: int) -> Rows:
    sample = torch.Generator().manual_seed(seed)
    images, noise = torch.randn(2, 2, 4, 8, 8, generator=sample, dtype=torch.float64)
    t = torch.randint(1000, (2,), generator=sample)
    return Rows(images, torch.arange(2), noise, t, torch.tensor([True, False]))


def text(ids: Tensor) -> Tensor:
    return random_text(2).states[ids]
