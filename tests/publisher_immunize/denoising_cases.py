"""A denoising in memory: a tiny U-Net, invented texts and latents, in any dtype."""

from __future__ import annotations

from typing import Any

import torch
from immunize_cases import CAT, GHOST, PIZZA, SKULL
from torch import Tensor

from publisher.api import Concept
from publisher.api.choosing import captions_of
from publisher.api.diffusion.denoiser import Denoiser
from publisher.api.diffusion.latents import Noising
from publisher.api.diffusion.process import read_process
from publisher.api.diffusion.text import Text
from publisher.testing.tiny import tiny_unet
from publisher_immunize.data import ConceptBatch, ConceptImages, ImmunizeData
from publisher_immunize.denoiser import Denoising, PatchedDenoiser
from publisher_immunize.params import ImmunizeParams
from support.anatomies import EMBEDDED

WIDTH, POSITIONS = 32, 8
SCHEDULER = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
FILLED = {
    "bound": None,
    "inner": "cross-attention",
    "inner_lr": 1e-2,
    "lr": 1e-3,
    "steps": 3,
    "batch": 2,
    "prior_batch": 1,
    "images": 4,
    "keep_images": 2,
    "captions": ["name"],
}


class Double(Denoiser):
    """Float64 in and out."""

    def __call__(self, x: Tensor, t: Tensor, text: Text) -> Tensor:
        out: Tensor = self.network(x.to(self.dtype), t, text.states.to(self.dtype), return_dict=False)[0]
        return out


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def training_data(concepts: tuple[Concept, ...] = (SKULL, PIZZA), dtype: torch.dtype = torch.float32) -> ImmunizeData:
    """Sample text states, random but for the start token, which all share; each text has five tokens of its own."""
    generator = seeded(3)

    def images(concept: Concept) -> ConceptImages:
        prompts = [concept.prompts[i % len(concept.prompts)] for i in range(4)]
        latents = torch.randn(4, 4, 8, 8, generator=generator, dtype=torch.float64).to(dtype)
        kinds = ("name", "rare")
        return ConceptImages(concept, latents, {kind: captions_of(concept, kind, prompts, "xjy") for kind in kinds})

    shown, kept = tuple(map(images, concepts)), (images(GHOST), images(CAT))
    own = (line for one in (*shown, *kept) for lines in one.captions.values() for line in lines)
    keep_texts = (*GHOST.prompts, *CAT.prompts)
    texts = dict.fromkeys((*keep_texts, *(p for concept in concepts for p in concept.prompts), *own))
    start = torch.randn(1, WIDTH, generator=generator)
    states = {
        text: Text(torch.cat([start, torch.randn(POSITIONS - 1, WIDTH, generator=generator)])[None].to(dtype))
        for text in texts
    }
    return ImmunizeData(
        shown, kept, keep_texts, states, dict.fromkeys(texts, 5), Noising(read_process("DDIMScheduler", SCHEDULER))
    )


def make_denoising(
    dtype: torch.dtype = torch.float32, concepts: tuple[Concept, ...] = (SKULL, PIZZA), **data: Any
) -> Denoising:
    params = ImmunizeParams.parse({**FILLED, **data})
    unet = tiny_unet(WIDTH)
    if dtype != torch.float32:
        unet = unet.to(dtype)
    denoiser = (Double if dtype == torch.float64 else Denoiser)(unet, EMBEDDED)
    host = PatchedDenoiser(denoiser, second=params.inner_order == 2)
    return Denoising(host, training_data(concepts, torch.promote_types(dtype, torch.float32)), params)


def theta_of(denoising: Denoising, *endings: str) -> dict[str, Tensor]:
    """Return the weights whose names end so, ready to be trained."""
    chosen = [name for name in denoising.host.names if name.endswith(endings)]
    return {name: denoising.host.tensor(name).clone().requires_grad_() for name in chosen}


def batch_of(denoising: Denoising, seed: int = 0, kept: int = 0, groups: int | None = None) -> ConceptBatch:
    shown = denoising.data.concepts[:groups]
    generated = denoising.data.batch(shown, "name", (2, kept), seeded(seed))
    noise = generated.noise.to(denoising.host.work)
    return ConceptBatch(generated.groups, generated.own, generated.x, noise, generated.t, generated.texts)
