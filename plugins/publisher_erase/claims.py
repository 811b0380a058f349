"""What an erasure promises, how each promise is tested, and what it does not say."""

from __future__ import annotations

from publisher.api import Anatomy, Claim, Concept, Scope
from publisher.api.claims import erased
from publisher_erase.params import EraseParams

FILTER = "This edits how text reaches the denoiser. What it knows to generate stays in the other weights."
UNDONE = "Whoever has the base model's weights can put the edited ones back, or find embeddings that pass."
OTHER_WORDS = "Other words, other languages, weighted or very long prompts and learned embeddings are not covered."
IMAGES = "Image-to-image, adapters (LoRA, IP-Adapter) and fine-tuning are not covered."
POOLED = "The pooled text vector, which enters beside cross-attention, is not edited and still carries the concept."
BESIDE = "A pooled text vector beside cross-attention is not edited, and still carries the concept."
DOORS = (
    "The text entry is edited, and the pooled vector's if there is one. Keys and values inside the blocks are not: "
    "what they read depends on image and noise level, so no closed form holds for it."
)
CROSS = (
    "All text reaches this denoiser by the keys and values of its cross-attention, which read nothing else. What they "
    "read is edited for all of them, so the edit holds at every noise level and for every image."
)
GIVEN = "Embeddings that are given to the pipeline, adapters on the text encoders and image inputs pass the edit by."


SURGICAL = (
    "What changes is the guidance term: prompts read as their alternative's. Embeddings that are found for this model, "
    "and fine-tuning, bring the concept back about as fast as after a closed form."
)
ROBUST = (
    "The denoiser was trained against attackers that look for text states. Expect searches of more steps, with other "
    "pictures or larger rates, to get through. What holds is what this release measured."
)
RECONSTRUCTED = "The method is our own, or reconstructed from an abstract: no published figure is of it."


def erase_claims(concepts: tuple[Concept, ...], scope: Scope, params: EraseParams) -> tuple[Claim, ...]:
    """Return all claims of one step; those about synonyms and kept concepts only where there are any."""
    bypasses: tuple[str, ...] = (FILTER, UNDONE, OTHER_WORDS, IMAGES, BESIDE)
    if params.method == "surgical":
        bypasses = (SURGICAL, RECONSTRUCTED, UNDONE, OTHER_WORDS, IMAGES)
    if params.method == "robust":
        bypasses = (ROBUST, RECONSTRUCTED, UNDONE, OTHER_WORDS, IMAGES)
    return erased(concepts, scope, binds="in-weights", limits=bypasses)


def limits(anatomy: Anatomy) -> tuple[str, ...]:
    """Return what the plan says of this kind of model beyond the claims' own limits."""
    if "text-entry" in anatomy.capabilities:
        return (CROSS if anatomy.cross_attention else DOORS, GIVEN)
    return (POOLED,) if anatomy.pooled_text else ()
