"""What a release promises of slices: that some are not in the weights, and how that shows in images."""

from __future__ import annotations

from collections.abc import Iterable

from publisher.api import Check, Claim, Concept, Gate, Scope, UsageError
from publisher.api.claims import kept
from publisher_slices.params import SliceParams

BY_WORDS = "That a style is not drawn by these words does not say that no other words, images or training give it."
THESE_PICTURES = (
    "Measured on four pictures that the attacker does not train on, before and while he trains on others of the slice; "
    "the slices that stay may make all pictures of their kind a little better known."
)
BASE = "Nothing is said of the base model's own data, nor of copies of earlier releases."
TRAINER = (
    "That the trainer used the files that the ledger names is shown by training a stage again, and by nothing else."
)
NOTHING_ELSE = Gate(upper_at_most=0.0)
"""Gate of the exact claim: every image is the base model's, to the pixel."""


def slice_claims(params: SliceParams, scope: Scope) -> tuple[Claim, ...]:
    """Return all claims of one step.

    Raises:
        UsageError: ``words`` names a concept that the manifest has not.
    """
    words = {name: _concept(scope, name, concept) for name, concept in params.words.items()}
    gone = tuple(concept.id for name, concept in words.items() if name in params.deleted)
    found = [_exact(params, scope, gone)] if params.last else []
    for name, concept in words.items():
        found.append(_withdrawn(name, concept, params) if name in params.deleted else _staying(name, concept, params))
        if name in params.deleted and concept.images:
            found.append(_pictures(name, concept, params))
    return (*found, *kept(_others(scope, words.values()), binds="in-weights"))


def _others(scope: Scope, words: Iterable[Concept]) -> Scope:
    """Return the scope without the concepts that slices brought: the base model cannot generate those."""
    named = {one.id for one in words}
    return scope.model_copy(update={"keep": tuple(one for one in scope.keep if one.id not in named)})


def _exact(params: SliceParams, scope: Scope, withdrawn: tuple[str, ...]) -> Claim:
    gone = ", ".join(params.deleted)
    what = f"no update computed from {gone} is" if gone else "nothing but the ledger's stages is"
    check = Check(
        id="exact",
        attack="take-out-slices",
        attack_params={"deleted": list(params.deleted)},
        metric="image-distance",
        concepts=tuple(one.id for one in scope.concepts[:1]),
        gate=NOTHING_ELSE,
    )
    sentence = f"{what} in the weights: with the stages that stay taken out, every image is the base model's"
    return Claim(
        id="exact",
        sentence=sentence,
        binds="in-weights",
        limits=(TRAINER, BASE),
        checks=(check,),
        deletes=tuple(sorted(withdrawn)),
    )


def _withdrawn(name: str, concept: Concept, params: SliceParams) -> Claim:
    check = Check(
        id=f"{name}.withdrawn",
        attack="plain",
        metric="rate-above-base",
        concepts=(concept.id,),
        gate=Gate(upper_at_most=params.more_than_base),
    )
    sentence = f"the words of the withdrawn slice {name} give {concept.name} no more often than in the base model"
    return Claim(id=check.id, sentence=sentence, binds="in-weights", limits=(BY_WORDS, BASE), checks=(check,))


def _pictures(name: str, concept: Concept, params: SliceParams) -> Claim:
    budget = {"images": 8, "seeds": 3, "evaluation_steps": [0, 5, 10], "images_per_evaluation": 1, "controls": ["base"]}
    check = Check(
        id=f"{name}.pictures",
        attack=params.attack,
        attack_params=budget | params.attack_params,
        metric="head-start",
        concepts=(concept.id,),
        gate=Gate(upper_at_most=params.head_start),
    )
    sentence = (
        f"pictures of the withdrawn slice {name} are fitted no better than by the base model, which never saw them"
    )
    return Claim(id=check.id, sentence=sentence, binds="in-weights", limits=(THESE_PICTURES, BASE), checks=(check,))


def _staying(name: str, concept: Concept, params: SliceParams) -> Claim:
    check = Check(
        id=f"{name}.stays",
        attack="plain",
        metric="drawn-rate",
        concepts=(concept.id,),
        gate=Gate(lower_at_least=params.still_drawn),
    )
    sentence = f"the slice {name}, which stays, is drawn when its words ask for {concept.name}"
    return Claim(id=check.id, sentence=sentence, binds="in-weights", limits=(), checks=(check,))


def _concept(scope: Scope, name: str, concept: str) -> Concept:
    try:
        return scope.concept(concept)
    except KeyError as error:
        hint = "Define it under 'concepts' or 'keep', with the prompts that ask for it."
        raise UsageError(f"names the concept {concept!r}, which is none", where=f"words.{name}", hint=hint) from error
