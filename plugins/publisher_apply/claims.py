"""What is promised of weights that were made elsewhere: that a concept is gone, and nothing of how."""

from __future__ import annotations

from publisher.api import Claim, Scope
from publisher.api.claims import erased

MADE_ELSEWHERE = "These weights were made elsewhere. What is said of how they were made was not checked."
UNDONE = "Anyone who has the base model can put its weights back where these differ."
OTHER_WORDS = "Other words, other languages, weighted or very long prompts and learned embeddings are not covered."
IMAGES = "Image-to-image, adapters (LoRA, IP-Adapter) and fine-tuning are not covered."
LIMITS = (MADE_ELSEWHERE, UNDONE, OTHER_WORDS, IMAGES)


def apply_claims(scope: Scope) -> tuple[Claim, ...]:
    """Return an eraser's claims: not from prompts, not from synonyms, kept concepts intact, empty prompt as before."""
    return erased(scope.concepts, scope, binds="in-weights", limits=LIMITS)
