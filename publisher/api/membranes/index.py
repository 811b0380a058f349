"""What a package says about its membranes: which there are, and how a prompt opens them."""

from __future__ import annotations

import json
from typing import Literal

from pydantic import Field

from publisher.api.params import Params

FOLDER = "membranes"
"""Where membranes lie below ``release/``."""
INDEX = f"{FOLDER}/index.json"
STOP_WORDS = ("a", "an", "and", "at", "by", "for", "from", "in", "is", "of", "on", "or", "the", "to", "with")


def _none(value: object) -> bool:
    return value is None


class PredictionGate(Params):
    """Opening by what a prompt is about to generate: what the denoiser predicts, and what for the concept's texts.

    Not in the paper.
    """

    threshold: float = Field(default=0.55, gt=0, le=1)
    """From this likeness on a membrane is open, whatever the words. Prompts that are to stay have to lie below it."""
    strength: float = Field(default=2.0, gt=0, le=10)
    """Permeability of a membrane that is opened so, times its own strength: it was trained on the concept's texts, and
    on other words it does less."""
    points: int = Field(default=4, ge=1, le=64)
    """Number of noises that it is a mean over; each costs a row of the denoiser for each prompt."""
    timestep: float = Field(default=0.9, ge=0, le=1)
    """Noise level of the question, as a share of the denoiser's timesteps; 1 is pure noise."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of the noises, which are the same for every prompt."""


class Transport(Params):
    """Facilitated transport: how far a membrane opens for a prompt (the permeability gamma, eq. 10 and 11).

    ``score = max(cosine, overlap)``; then ``gamma = strength * score**power * gate(score)``, and all of a prompt's
    gammas are scaled down together where their sum exceeds ``cap``. With ``prediction``, gamma is at least that rule's
    strength where the prompt is about to generate the concept.
    """

    score: Literal["max", "cosine", "overlap"] = "max"
    """``cosine``: of the flattened text states of prompt and concept. ``overlap``: share of the concept's tokens that
    are in the prompt. ``max``, the larger one, is the paper's."""
    power: Literal[1, 2] = 1
    """1: as in the paper. 2: as the authors' code computes (it multiplies both factors by gamma)."""
    strength: float = Field(default=1.0, ge=0, le=10)
    """Multiplies every permeability; the paper doubles it for styles and nudity."""
    threshold: float = Field(default=0.0, ge=0, le=1)
    """Below this score a membrane stays shut: the prompt gives the base model's image bit for bit. The paper has none,
    and its cosine is never 0."""
    softness: float = Field(default=0.0, ge=0, le=1)
    """Width of a ramp above the threshold from shut to open; 0: a step."""
    cap: float | None = Field(default=None, gt=0, le=100)
    """Largest sum of one prompt's permeabilities; short prompts open many membranes at once."""
    prediction: PredictionGate | None = Field(default=None, exclude_if=_none)
    """Open as well by what the prompt is about to generate; only of U-Nets that read text states alone, as those of
    Stable Diffusion 1 and 2. None: by words alone, as in the paper."""
    stop_words: tuple[str, ...] = STOP_WORDS
    """Words that do not count in the overlap (of a concept that has others). Empty: every token counts, as in the
    paper."""


class MembraneEntry(Params):
    """One membrane of a package."""

    concept: str
    """Id of the concept in the manifest."""
    file: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,127}\.safetensors$")
    """Beside the index."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of the file."""
    words: tuple[str, ...] = Field(min_length=1)
    """Name and aliases: what the overlap is counted with."""
    texts: tuple[str, ...] = Field(min_length=1)
    """What the prompt's text states are compared with."""
    rank: int = Field(ge=1)
    strength: float = Field(default=1.0, ge=0, le=10)
    """Multiplies this membrane's permeability."""
    trained_on: str = ""
    """Digest of the model that it was trained on; empty: unknown (a file from elsewhere)."""


class MembraneIndex(Params):
    """``release/membranes/index.json``: what the pipeline attaches, and how it opens."""

    membranes: Literal[1] = 1
    """Version of this schema."""
    mode: Literal["bundle", "merge"]
    """``bundle``: the weights are untouched, the pipeline attaches the membranes. ``merge``: they are in the weights
    already, with constant permeability; a pipeline must not attach them again."""
    transport: Transport = Transport()
    entries: tuple[MembraneEntry, ...] = Field(min_length=1)

    def as_file(self) -> bytes:
        """Return the bytes of ``index.json``: equal indexes give equal bytes."""
        return (json.dumps(self.as_json(), indent=2, sort_keys=True, ensure_ascii=True) + "\n").encode()
