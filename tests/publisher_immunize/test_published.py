from __future__ import annotations

from pathlib import Path

import torch
from benches import batch_of, make_bench, seeded
from naive_mima import CROSS, Published

from publisher.api.diffusion.checkpoints import Checkpoints
from publisher_immunize.inner import Adversary
from publisher_immunize.loop import Run


def test_pairs_of_steps_are_those_of_the_published_loop_in_float64(tmp_path: Path) -> None:
    """Without what it does otherwise: it keeps the inner step, and takes the first of equal rows, not their mean."""
    bench = make_bench(
        torch.float64, first_order=True, inner_lr=1e-3, merge={"texts": 100}, batch=2, prior_batch=1, steps=3
    )
    theirs = make_bench(torch.float64)
    states, captions = bench.material.states, [*bench.material.keep_texts]
    captions += [prompt for album in bench.material.concepts for prompt in album.concept.prompts]
    published = Published(
        theirs.host.network,
        lambda text: states[text].states[0],
        lambda text: bench.material.lengths[text],
        bench.material.noising,
        list(dict.fromkeys(captions)),
        rates=(1e-3, 1e-3),
        ridge=bench.params.merge.ridge,
    )
    theta = {name: bench.host.tensor(name).clone() for name in bench.host.names if CROSS.search(name)}
    run = Run(bench, theta, lambda _: seeded(), Checkpoints(tmp_path, "x", "x"), lambda *_: None)
    for turn in range(3):
        inner, outer = batch_of(bench, 2 * turn), batch_of(bench, 2 * turn + 1, 1)
        adversary = Adversary("cross-attention", 2, bench, seeded())
        adversary.learn(run.theta, [inner])
        run.move(run.outer(run.theta, adversary, outer, None, None).gradients)
        published.step(inner, outer)
    moved = 0.0
    for name, value in run.theta.items():
        torch.testing.assert_close(value.detach(), published.weights[name].detach(), rtol=1e-5, atol=1e-7)
        moved += float((value.detach() - bench.host.tensor(name)).abs().sum())
    assert moved > 0
