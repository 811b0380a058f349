"""A tiny model, concepts, invented images, a running step; and a network of which two halves learn two things."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from publisher.api import Concept, Model, References, Scope
from publisher.api.diffusion.text import Text
from publisher.api.freeze_mask import FILE, Candidate, FreezeMask
from publisher.builtin.families import StableDiffusion1, StableDiffusionXL
from publisher.engine.cache import Identity
from publisher.engine.context import RunningStep
from publisher.engine.device import Device
from publisher.model.folder import ModelFolder, read_configs
from publisher.model.state import State
from publisher_emoji import model_folder
from publisher_freeze_mask.integrated_gradients import PathScores, path_scores
from publisher_freeze_mask.mixing import Loss, MixedNetwork
from publisher_freeze_mask.params import FreezeMaskParams
from publisher_freeze_mask.step import FreezeMaskStep
from support.toys import ORIGIN, Silent

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


def tiny_unet() -> UNet2DConditionModel:
    """Build one transformer of SD 1.x going down, two going up."""
    torch.manual_seed(0)
    made = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=WIDTH,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=4,
    )
    return made.eval().requires_grad_(requires_grad=False)


def save_tiny_model(target: pathlib.Path) -> pathlib.Path:
    """Write it in the ordinary layout."""
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(model_folder() / "tokenizer")
    text = CLIPTextConfig(
        hidden_size=WIDTH,
        intermediate_size=16,
        num_attention_heads=2,
        num_hidden_layers=1,
        vocab_size=len(tokenizer),
        max_position_embeddings=32,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        hidden_act="quick_gelu",
    )
    vae = AutoencoderKL(
        block_out_channels=(8,),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",),
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
    )
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=tiny_unet(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(target)
    return target


def model_of(folder: pathlib.Path) -> State:
    """Return a step's input, made of a folder."""
    configs = read_configs(folder)
    families = (StableDiffusion1(), StableDiffusionXL())
    anatomy = next(found for family in families if (found := family.recognise(configs)))
    return State(ModelFolder(folder, anatomy, configs), (), folder.parent / "states")


def images(concept: str, count: int) -> References:
    """Make images of the concept's colour."""
    found = SCOPE.concept(concept)
    generator = torch.Generator().manual_seed(sum(map(ord, concept)))
    colour = torch.rand(1, 3, 1, 1, generator=generator)
    pixels = (colour + 0.2 * torch.rand(count, 3, 8, 8, generator=generator)).clamp(0, 1)
    return References(pixels, tuple(found.prompts[i % len(found.prompts)] for i in range(count)))


def sets(counts: Mapping[str, int]) -> dict[str, References]:
    """Make images of several concepts."""
    return {concept: images(concept, count) for concept, count in counts.items()}


class Killed(Exception):  # noqa: N818 - no error: a signal
    """As if by a signal."""


class KillingAt(Silent):
    """Ends the run after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def update(self, stage: str, done: int, total: int, text: str = "") -> None:
        """Raise when it is time."""
        if done == self.step:
            raise Killed


def parse(**data: Any) -> FreezeMaskParams:
    """Return parameters of a short run."""
    merged = {**SHORT, **data}
    for part in ("adapt", "score", "refine", "released"):
        merged[part] = {**SHORT[part], **data.get(part, {})}  # type: ignore[dict-item]
    return FreezeMaskParams.parse(merged)


def run(
    model: Model, tmp_path: pathlib.Path, progress: Silent | None = None, seed: int = 0, **data: Any
) -> RunningStep:
    """Plan and run; nothing is written but the artifact."""
    params = parse(**data)
    identity = Identity(
        name="freeze-mask",
        version="1",
        origin=ORIGIN,
        id="freeze-mask",
        params=params.as_json(),
        scope=SCOPE,
        seed=seed,
        device=Device("cpu", "float32"),
        versions={},
    )
    ctx = RunningStep(identity, model, tmp_path, progress or Silent(), sets)
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
