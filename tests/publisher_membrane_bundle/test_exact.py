from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from naive_spm import Network, Published
from tiny_sd import CAT, quick, seeded, session

from publisher.api.membranes import Membrane
from publisher.testing.tiny import open_model
from publisher_membrane_bundle.params import MembraneParams
from publisher_membrane_bundle.plan import Target
from publisher_membrane_bundle.train import TrainedMembranes, train

TWO = Target("cat", ("cat", "big cat"), ("", "dog"), ("cat", "lion"))


def published(folder: Path, target: Target, params: MembraneParams) -> tuple[list[tuple[float, float]], Network]:
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    tokens = {
        text: pipeline.tokenizer(text, padding="max_length", max_length=32, return_tensors="pt").input_ids
        for text in ("", *target.texts, *target.surrogates, *target.positives)
    }
    with torch.no_grad():
        embeddings = {text: pipeline.text_encoder(ids)[0] for text, ids in tokens.items()}
    loop = Published(
        pipeline.unet,
        dict(pipeline.scheduler.config),
        embeddings,
        list(zip(target.texts, target.surrogates, target.positives, strict=True)),
        params.steps,
        params.lr,
        params.warmup,
        params.cycles,
        params.rank,
        params.alpha,
        params.lam,
        params.eta,
        params.denoising_steps,
        seeded("init/cat"),
        seeded("exact/cat"),
    )
    return loop.losses, loop.run()


def compare(folder: Path, scratch: Path, target: Target, params: MembraneParams) -> tuple[TrainedMembranes, Network]:
    ours = train(open_model(folder), [target], [], params, session(scratch))
    theirs, network = published(folder, target, params)
    erase, anchor, _ = (curve[2] for curve in ours.curves)
    torch.testing.assert_close(torch.tensor(erase), torch.tensor([pair[0] for pair in theirs]), rtol=1e-4, atol=1e-9)
    torch.testing.assert_close(torch.tensor(anchor), torch.tensor([pair[1] for pair in theirs]), rtol=2e-3, atol=1e-9)
    return ours, network


def distance(membrane: Membrane, network: Network) -> float:
    """Return the distance of all weight changes, relative to their norm."""
    apart, norm = 0.0, 0.0
    for name, module in network.modules.items():
        branch = membrane.branches[name]
        change = branch.up @ branch.down
        other = (module.lora_up.weight.flatten(1) @ module.lora_down.weight.flatten(1)).detach()
        apart += float((change - other).square().sum())
        norm += float(other.square().sum())
    return (apart / norm) ** 0.5


@pytest.mark.slow
def test_20_steps_are_the_published_loop_step_by_step(tiny_sd: Path, tmp_path: Path) -> None:
    params = MembraneParams(trainer="exact", steps=20, warmup=3, cycles=3, lr=1e-3, lam=30.0)
    ours, network = compare(tiny_sd, tmp_path, CAT, params)
    assert distance(ours.membranes["cat"], network) < 0.02
    assert {name: value for name, value, _ in ours.numbers}["cat: erase residual"] < 1


@pytest.mark.slow
def test_several_texts_rank_surrogate_and_eta_are_the_published_ones(tiny_sd: Path, tmp_path: Path) -> None:
    params = quick(trainer="exact", rank=2, alpha=1.0, eta=2.5)
    ours, network = compare(tiny_sd, tmp_path, TWO, params)
    assert distance(ours.membranes["cat"], network) < 0.02


@pytest.mark.slow
def test_a_model_that_predicts_velocity_is_trained_as_published(tiny_sd_v: Path, tmp_path: Path) -> None:
    compare(tiny_sd_v, tmp_path, CAT, quick(trainer="exact"))


def test_membranes_of_several_concepts_are_as_if_trained_alone(tiny_sd: Path, tmp_path: Path) -> None:
    dog = Target("dog", ("dog",), ("",), ("dog",))
    params, model = quick(trainer="exact", steps=3), open_model(tiny_sd)
    both = train(model, [dog, CAT], [], params, session(tmp_path / "both"))
    alone = train(model, [CAT], [], params, session(tmp_path / "alone"))
    for stem, branch in alone.membranes["cat"].branches.items():
        assert torch.equal(branch.up, both.membranes["cat"].branches[stem].up)


def test_dynamic_resolution_samples_smaller_latents(
    tiny_sd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from publisher_membrane_bundle.objective import NoisyPoint, Objective

    seen: set[tuple[int, ...]] = set()
    backward = Objective.backward

    def watched(self: Objective, points: list[NoisyPoint]) -> object:
        seen.update(tuple(point.x.shape[2:]) for point in points)
        return backward(self, points)

    monkeypatch.setattr(Objective, "backward", watched)
    train(open_model(tiny_sd), [CAT], [], quick(trainer="exact", steps=6, dynamic_resolution=True), session(tmp_path))
    assert len(seen) > 1
    assert all(4 <= side <= 7 for sides in seen for side in sides)
