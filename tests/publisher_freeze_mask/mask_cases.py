"""Concepts, a running step; and a network of which two halves learn two things."""

from __future__ import annotations

import pathlib
from typing import Any

import torch
from torch import Tensor, nn

from publisher.api import Concept, Scope
from publisher.api.diffusion.text import Text
from publisher.api.freeze_mask import FILE, Candidate, FreezeMask
from publisher.engine.context import RunningStep
from publisher.model.state import State
from publisher.testing import tiny as testing
from publisher.testing.running import Silent, context_of
from publisher_freeze_mask.integrated_gradients import PathScores, path_scores
from publisher_freeze_mask.mixing import Loss, MixedNetwork
from publisher_freeze_mask.params import FreezeMaskParams
from publisher_freeze_mask.step import FreezeMaskStep

SKULL = Concept(
    id="skull",
    name="skull",
    synonyms=("death head",),
    prompts=("a skull emoji", "a skull emoji in noto style"),
    paraphrases=("a death head emoji",),
    description="a white face with black eyes",
    label="skull",
)
PIZZA = Concept(id="pizza", name="pizza", prompts=("a pizza emoji", "a pizza emoji in noto style"), label="pizza")
GHOST = Concept(id="ghost", name="ghost", prompts=("a ghost emoji",), label="ghost")
CAT = Concept(id="cat", name="cat", prompts=("a cat emoji", "a cat emoji in noto style"), label="cat")
SCOPE = Scope(concepts=(SKULL, PIZZA), keep=(GHOST, CAT))
SHORT = {
    "concepts": ["skull"],
    "innocents": ["ghost"],
    "images": 3,
    "keep_images": 3,
    "replicas": 0,
    "adapt": {"steps": 4, "lr": 1e-3, "batch": 2},
    "score": {"points": 2, "batches": 1, "batch": 3},
    "refine": {"steps": 2},
    "released": {"steps": 2, "batch": 2},
}
WIDTH = 16


def tiny_unet() -> Any:
    """Build one transformer of SD 1.x going down, two going up."""
    return testing.tiny_unet(WIDTH, text_effect=1.0)


def parse(**data: Any) -> FreezeMaskParams:
    """Return parameters of a short run."""
    merged = {**SHORT, **data}
    for part in ("adapt", "score", "refine", "released"):
        merged[part] = {**SHORT[part], **data.get(part, {})}  # type: ignore[dict-item]
    return FreezeMaskParams.parse(merged)


def run(
    model: State, tmp_path: pathlib.Path, progress: Silent | None = None, seed: int = 0, **data: Any
) -> RunningStep:
    """Plan and run; nothing is written but the artifact."""
    params = parse(**data)
    ctx = context_of(FreezeMaskStep, params, model, SCOPE, tmp_path, seed=seed, progress=progress)
    plan = FreezeMaskStep().plan(params, SCOPE, model)
    FreezeMaskStep().run(params, ctx)
    assert (plan.changes, ctx.changed()) == ({}, {})
    assert plan.artifacts == tuple(ctx.artifacts)
    return ctx


def mask_of(ctx: RunningStep) -> FreezeMask:
    """Return the mask that a run wrote."""
    return FreezeMask.model_validate_json(ctx.artifacts[FILE])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Halves(nn.Module):
    """Illegal data are read by ``left`` alone, innocent ones by ``right`` alone."""

    def __init__(self) -> None:
        super().__init__()
        generate = seeded()
        self.left = nn.Parameter(torch.randn(4, 3, generator=generate))
        self.right = nn.Parameter(torch.randn(4, 3, generator=generate))
        self.double()

    def loss(self, side: str, x: Tensor) -> Tensor:
        """Return the distance from 1 on every row of ``x (n, 3)``."""
        weight = self.left if side == "illegal" else self.right
        return (torch.tanh(x @ weight.T) - 1).square().mean()


CANDIDATES = {name: Candidate(shape=(4, 3)) for name in ("left", "right")}


def halves(rows: int = 0) -> tuple[Halves, MixedNetwork]:
    """Return the network, and the same ready to be mixed, at theta_pre."""
    network = Halves()
    before = {name: tensor.detach().clone() for name, tensor in network.named_parameters()}
    return network, MixedNetwork(network, before.__getitem__, dict.fromkeys(before, rows))


def fine_tuned(side: str, seed: int) -> tuple[dict[str, Tensor], Tensor]:
    """Return what AdamW adds to the halves on one side's data, sampled from a seed; and other data of that side."""
    network, place = halves()
    generate = seeded(seed)
    network.requires_grad_()
    adam = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(20):
        adam.zero_grad()
        network.loss(side, torch.rand(8, 3, generator=generate, dtype=torch.float64)).backward()  # type: ignore[no-untyped-call]
        adam.step()
    return place.delta(["left", "right"]), torch.rand(64, 3, generator=generate, dtype=torch.float64)


def scored(place: MixedNetwork, side: str, seed: int) -> tuple[dict[str, Tensor], PathScores, list[Loss]]:
    """Return a fine-tuning, its scores, and its loss where the network is."""
    delta, data = fine_tuned(side, seed)
    losses: list[Loss] = [lambda: place.network.loss(side, data)]  # type: ignore[operator]
    return delta, path_scores(place, delta, losses, 5), losses


def random_text(count: int, dtype: torch.dtype = torch.float64) -> Text:
    """Sample texts that mean nothing."""
    return Text(torch.randn(count, 4, WIDTH, generator=seeded(5), dtype=dtype))


def unet_case() -> tuple[MixedNetwork, dict[str, Tensor], Loss]:
    """Return a tiny U-Net in float64, an invented fine-tuning of some tensors, and a loss."""
    network = tiny_unet().double()
    before = {name: tensor.detach().clone() for name, tensor in network.named_parameters()}
    chosen = [name for name in before if name.endswith(("to_q.weight", "to_out.0.bias", "conv1.weight", "norm1.bias"))]
    generate = seeded(1)
    delta = {name: 0.03 * torch.randn(before[name].shape, generator=generate, dtype=torch.float64) for name in chosen}
    x, t = torch.randn(2, 4, 8, 8, generator=generate, dtype=torch.float64), torch.tensor([100, 700])
    states, noise = random_text(2).states, torch.randn(2, 4, 8, 8, generator=generate, dtype=torch.float64)

    def loss() -> Tensor:
        predicted: Tensor = network(x, t, states, return_dict=False)[0]
        return (predicted - noise).square().mean()

    rows = {name: 2 for name in chosen if name.endswith("to_q.weight")}
    return MixedNetwork(network, before.__getitem__, rows), delta, loss
