from __future__ import annotations

import torch
from denoising_cases import batch_of, make_denoising, seeded
from naive_mima import CROSS, Published

from publisher_immunize.adversary import Adversary
from publisher_immunize.train import Immunization


def test_pairs_of_steps_are_those_of_the_published_loop_in_float64() -> None:
    """Leave out what it does otherwise: it keeps the inner step, and takes the first of equal rows, not their mean."""
    denoising = make_denoising(
        torch.float64, first_order=True, inner_lr=1e-3, merge={"texts": 100}, batch=2, prior_batch=1, steps=3
    )
    theirs = make_denoising(torch.float64)
    states, captions = denoising.data.states, [*denoising.data.keep_texts]
    captions += [prompt for images in denoising.data.concepts for prompt in images.concept.prompts]
    published = Published(
        theirs.host.network,
        lambda text: states[text].states[0],
        lambda text: denoising.data.lengths[text],
        denoising.data.noising,
        list(dict.fromkeys(captions)),
        rates=(1e-3, 1e-3),
        ridge=denoising.params.merge.ridge,
    )
    theta = {name: denoising.host.tensor(name).clone() for name in denoising.host.names if CROSS.search(name)}
    run = Immunization(denoising, theta, lambda _: seeded())
    for turn in range(3):
        inner, outer = batch_of(denoising, 2 * turn), batch_of(denoising, 2 * turn + 1, 1)
        adversary = Adversary("cross-attention", 2, denoising, seeded())
        adversary.learn(run.theta, [inner])
        run.clip(run.outer(run.theta, adversary, outer, None, None).gradients)
        run.move(turn)
        published.step(inner, outer)
    moved = 0.0
    for name, value in run.theta.items():
        torch.testing.assert_close(value.detach(), published.weights[name].detach(), rtol=1e-5, atol=1e-7)
        moved += float((value.detach() - denoising.host.tensor(name)).abs().sum())
    assert moved > 0
