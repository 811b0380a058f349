"""What membranes promise, how each promise is tested, and what it does not say."""

from __future__ import annotations

from typing import Literal

from publisher.api import Binding, Check, Claim, Concept, Gate, Scope
from publisher.api.claims import about, kept, kept_near, not_generated, unconditional
from publisher_membrane_bundle.params import MembraneParams

KEPT = Gate(value_at_least=-0.01, lower_at_least=-0.05)
"""Half of what other steps may lose: a membrane that stays shut loses nothing."""

REMOVABLE = (
    "The membranes are files beside untouched weights: anyone who loads the weights without them is free of them."
)
BY_WORDS = "A membrane opens by the prompt's words: other words, learned embeddings or another language leave it shut."
JUNK = (
    "It reads words alone, not what is generated: other spellings of the name and words that mean nothing can show the"
    " concept while it stays shut. The promise is about plain words, not about what somebody finds who tries spellings."
)
BY_PREDICTION = (
    "It opens as well by what the prompt is about to generate, as the denoiser says at the beginning of sampling."
    " Searches for prompts that show the concept less plainly, and pictures to begin from, can leave it shut."
)
CONSTANT = "The membranes are in the weights with constant strength: the prompt does not matter, nor does the pipeline."
UNDONE = "Whoever has the base model, or the membrane files, can subtract them again."
TRAINED = "The denoiser keeps what it knows: fine-tuning and adapters can bring the concept back."
IMAGES = "Image-to-image and inpainting were not tested."
REUSED = "Its membrane was trained on another model; what is measured here is measured on this one."


def membrane_claims(chosen: tuple[Concept, ...], scope: Scope, params: MembraneParams) -> tuple[Claim, ...]:
    """Return all claims of one step; those about synonyms and kept concepts only where there are any."""
    binds: Binding = "in-pipeline" if params.mode == "bundle" else "in-weights"
    claims = [_not_from(concept, "plain", binds, params) for concept in chosen]
    claims += [_not_from(concept, "paraphrase", binds, params) for concept in chosen if concept.paraphrases]
    claims += [*kept(scope, binds=binds, gate=KEPT), *kept_near(scope, binds=binds)]
    claims.append(unconditional(chosen[0], binds=binds))
    if params.mode == "bundle":
        claims += [_without(concept) for concept in chosen]
    return tuple(claims)


def limits(params: MembraneParams) -> tuple[str, ...]:
    """Say who can get around it."""
    opens = (BY_PREDICTION,) if params.transport.prediction else (BY_WORDS, JUNK)
    mode = (REMOVABLE, *opens) if params.mode == "bundle" else (CONSTANT, UNDONE)
    return (*mode, TRAINED, IMAGES)


def _not_from(
    concept: Concept, attack: Literal["plain", "paraphrase"], binds: Binding, params: MembraneParams
) -> Claim:
    reused = (REUSED,) if concept.id in params.reuse else ()
    condition = "while its membrane is attached" if params.mode == "bundle" else ""
    return not_generated(concept, attack, binds=binds, limits=(*reused, *limits(params)), condition=condition)


def _without(concept: Concept) -> Claim:
    """Return the row that says what the weights alone give."""
    name = f"{concept.id}.without"
    check = Check(id=name, attack="plain", metric="concept-rate", concepts=(concept.id,), membranes="off")
    return Claim(
        id=name,
        sentence=f"how often {concept.name} is generated without the membranes is stated: this is no protection",
        binds="in-pipeline",
        limits=(REMOVABLE, "The figure is what anybody gets who loads the weights alone.", about("prompt")),
        checks=(check,),
    )
