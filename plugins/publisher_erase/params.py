"""Parameters of the step ``erase``, with the papers' symbols."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from publisher.api import Params


class EraseParams(Params):
    """Parameters of ``erase``: concepts, their targets, what stays, and the strength of the edit."""

    method: Literal["uce", "rece"] = "uce"
    """Method. ``uce``: one closed-form edit. ``rece``: then ``epochs`` rounds against what still calls the concept
    up."""
    concepts: tuple[str, ...] = ()
    """Ids of the manifest's concepts to erase; empty: all of them."""
    targets: Literal["auto"] | dict[str, str] = "auto"
    """Concept id -> words that take the place of the concept's name in its prompts (g). Words of the same sort (another
    object) do less damage; an empty entry means the empty prompt. ``auto``, and for concepts without an entry: the
    nearest kept concept of the same kind, and of styles the farthest, by the text encoder's token embeddings."""
    synonyms: bool = False
    """Whether the concepts' paraphrases (prompts with synonyms in place of the name) are erased too."""
    rows: Literal["content", "mean-pad", "last-eos", "last", "tail", "all"] = "mean-pad"
    """Token positions that are edited: ``mean-pad`` (last word, end token, mean of the padding), ``content`` (the same
    with every word), ``last-eos``, ``last`` (UCE's rule of 2025), ``tail`` (UCE's rule of 2023), ``all`` (RECE's).
    Where text enters by one linear map, ``mean-pad`` becomes ``content``, and other rules are refused."""
    lam: float = Field(default=1e-3, gt=0, le=1e6)
    """Pull towards the old weights (lambda). The authors use 0.5 and 0.1 with ``lam_scale: absolute``."""
    lam_scale: Literal["relative", "absolute"] = "relative"
    """Unit of ``lam``. ``relative``: the mean of |c|^2, so that it means the same for every text encoder."""
    erase_scale: float = Field(default=1.0, ge=0, le=1e6)
    """Weight of the rows to erase (e)."""
    preserve_scale: float = Field(default=1.0, ge=0, le=1e6)
    """Weight of the retained prompts' mean (p, or lambda_1)."""
    epochs: int = Field(default=1, ge=0, le=5)
    """Number of rounds of RECE after the first edit; 0 is UCE alone. The authors take 1 to 3. Ignored by ``uce``."""
    joint: bool = True
    """Whether each round of RECE is solved from the original weights with all embeddings found so far; false edits on
    top of the round before, as the authors do."""
    rho: float = Field(default=0.1, gt=0, le=1e6)
    """Pull of the adversarial embeddings towards 0 (the code's regular_scale); the authors take 0.1 or 0.001."""

    @field_validator("concepts")
    @classmethod
    def _no_repeats(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError("a concept is named twice")
        return value
