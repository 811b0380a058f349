"""What tests of attached membranes share: entries, images, merged denoisers."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch

from publisher.api import Anatomy
from publisher.api.membranes import Membrane, MembraneEntry, weight_change
from publisher.safeguards.membranes.hosts import live_hosts
from support.membrane_files import random_membrane

Members = list[tuple[MembraneEntry, Membrane]]


def entry(concept: str, **changes: Any) -> MembraneEntry:
    plain = {"file": f"{concept}.safetensors", "sha256": "0" * 64, "words": (concept,), "texts": (concept,), "rank": 1}
    return MembraneEntry(**{"concept": concept, **plain, **changes})


def members_for(
    denoiser: Any, concepts: Sequence[str] = ("pizza", "cat"), anatomy: Anatomy | None = None, **changes: Any
) -> Members:
    """Return random membranes, of rank 1 and 2 in turn."""
    hosts = {stem: host for stem, (host, _) in live_hosts(denoiser, anatomy).items()}
    return [
        (entry(concept, rank=1 + i % 2, **changes), random_membrane(hosts, seed=i, rank=1 + i % 2, prompts=(concept,)))
        for i, concept in enumerate(concepts)
    ]


def images(pipeline: Any, prompts: str | list[str], *, seed: int = 0, **options: Any) -> torch.Tensor:
    """Generate by two steps with guidance, image ``i`` from seed ``seed + i``."""
    number = (1 if isinstance(prompts, str) else len(prompts)) * options.get("num_images_per_prompt", 1)
    generated: torch.Tensor = pipeline(
        prompts,
        generator=[torch.Generator().manual_seed(seed + i) for i in range(number)],
        output_type="pt",
        **{"num_inference_steps": 2, "guidance_scale": 3.0, **options},
    ).images
    return generated


def merged(denoiser: Any, members: Members, gammas: Sequence[float], anatomy: Anatomy | None = None) -> Any:
    """Return a copy with the membranes in its weights."""
    other = copy.deepcopy(denoiser)
    with torch.no_grad():
        for stem, (host, layer) in live_hosts(other, anatomy).items():
            branches = [(gamma, one.branches[stem]) for gamma, (_, one) in zip(gammas, members, strict=True)]
            layer.weight += weight_change(branches, host.shape)
    return other


def distance(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Return the distance relative to the wanted one."""
    found, wanted = found.detach(), wanted.detach()
    return float((found - wanted).norm() / wanted.norm())
