"""What an erasure promises, how each promise is tested, and what it does not say."""

from __future__ import annotations

from publisher.api import Anatomy, Claim, Concept, Scope
from publisher.api.claims import erased

FILTER = "This edits how text reaches the denoiser. What it knows to generate stays in the other weights."
UNDONE = "Whoever has the base model's key and value projections can put them back, or find embeddings that pass."
OTHER_WORDS = "Other words, other languages, weighted or very long prompts and learned embeddings are not covered."
IMAGES = "Image-to-image, adapters (LoRA, IP-Adapter) and fine-tuning are not covered."
POOLED = "The pooled text vector, which enters beside cross-attention, is not edited and still carries the concept."


def erase_claims(concepts: tuple[Concept, ...], scope: Scope) -> tuple[Claim, ...]:
    """Return all claims of one step; those about synonyms and kept concepts only where there are any."""
    bypasses = (FILTER, UNDONE, OTHER_WORDS, IMAGES, f"Where a model has one: {POOLED[0].lower()}{POOLED[1:]}")
    return erased(concepts, scope, binds="in-weights", limits=bypasses)


def limits(anatomy: Anatomy) -> tuple[str, ...]:
    """Return what the plan says of this kind of model beyond the claims' own limits."""
    return (POOLED,) if anatomy.pooled_text else ()
