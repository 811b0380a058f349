"""What is promised of weights that were made elsewhere: that a concept is gone, and nothing of how."""

from __future__ import annotations

from typing import Literal

from publisher.api import Claim, Concept, Scope
from publisher.api.claims import kept, not_generated, unconditional

MADE_ELSEWHERE = "These weights were made elsewhere. What is said of how they were made was not checked."
UNDONE = "Whoever has the base model can put its weights back where these differ."
OTHER_WORDS = "Other words, other languages, weighted or very long prompts and learned embeddings are not covered."
IMAGES = "Image-to-image, adapters (LoRA, IP-Adapter) and fine-tuning are not covered."
LIMITS = (MADE_ELSEWHERE, UNDONE, OTHER_WORDS, IMAGES)


def apply_claims(scope: Scope) -> tuple[Claim, ...]:
    """Return an eraser's claims: not from prompts, not from synonyms, kept concepts intact, empty prompt as before."""
    asked: list[tuple[Concept, Literal["plain", "paraphrase"]]] = [(concept, "plain") for concept in scope.concepts]
    asked += [(concept, "paraphrase") for concept in scope.concepts if concept.paraphrases]
    gone = [not_generated(concept, attack, binds="in-weights", limits=LIMITS) for concept, attack in asked]
    return (*gone, *kept(scope, binds="in-weights"), unconditional(scope.concepts[0], binds="in-weights"))
