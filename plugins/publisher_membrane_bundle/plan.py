"""What the step is going to do: which concepts, which texts, and what the user should know. Imports no torch."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from publisher.api import Concept, ModelInfo, Scope, UsageError, split_at_name
from publisher.api.diffusion.process import process_of
from publisher.api.membranes import Transport
from publisher_membrane_bundle.params import MembraneParams

MANY = 20
"""Number of membranes above which the user is warned where there is no cap."""


@dataclass(frozen=True)
class Target:
    """The texts of one membrane: each is to read as its surrogate."""

    concept: str
    """Id of the concept in the manifest."""
    texts: tuple[str, ...]
    """Texts to be erased (c_t)."""
    surrogates: tuple[str, ...]
    """Surrogate of each text (c_s); empty: the empty prompt."""
    positives: tuple[str, ...]
    """Positive of each text (c_p): the text itself unless the manifest says otherwise."""


def choose(params: MembraneParams, scope: Scope) -> tuple[Concept, ...]:
    """Choose the concepts that get a membrane, in the manifest's order.

    Raises:
        UsageError: none, or a name that the manifest's concepts to go do not have.
    """
    ids = [concept.id for concept in scope.concepts]
    _known(params.concepts, ids, "concepts")
    chosen = tuple(concept for concept in scope.concepts if not params.concepts or concept.id in params.concepts)
    if not chosen:
        raise UsageError("there is no concept for a membrane", hint="Name at least one under 'concepts'.")
    ids = [concept.id for concept in chosen]
    _known(params.reuse, ids, "from")
    _known(surrogates_of(params), ids, "surrogates")
    _known(params.positives, ids, "positives")
    _known(params.aliases, ids, "aliases")
    return chosen


def require_trainer(params: MembraneParams, model: ModelInfo) -> None:
    """Refuse the authors' loop for a model of another noise process than theirs.

    Raises:
        ModelError: the model's noise process is not known.
        UsageError: it is flow matching.
    """
    if params.trainer == "exact" and process_of(model).prediction == "flow":
        raise UsageError(
            "trainer: exact is the authors' loop over the noise schedule of DDPM, and this model is of flow matching",
            hint="Take trainer: pool. The losses are the same, on velocity; with preset: paper give it by name.",
        )


def require_drawn(params: MembraneParams, model: ModelInfo) -> None:
    """Refuse to ask a denoiser what a prompt is about to generate where it reads more than text states.

    Raises:
        UsageError: it is a transformer, or reads several text encoders.
    """
    anatomy = model.anatomy
    asked = params.mode == "bundle" and params.transport.prediction
    if asked and (anatomy.denoiser != "unet" or len(anatomy.text_encoders) > 1):
        raise UsageError(
            f"transport.prediction asks a U-Net of one text encoder, and this model is of the family {anatomy.family}",
            hint="Leave it out: the membranes then open by words.",
        )


def targets(params: MembraneParams, chosen: Sequence[Concept]) -> tuple[Target, ...]:
    """Return what is to be trained; concepts with a file to reuse are left out.

    Raises:
        UsageError: a text is its own surrogate.
    """
    return tuple(_target(params, concept) for concept in chosen if concept.id not in params.reuse)


def surrogates_of(params: MembraneParams) -> dict[str, str]:
    """Return the surrogates that were given or decided; none before ``auto`` is."""
    return {} if params.surrogates == "auto" else params.surrogates


def texts_of(params: MembraneParams, concept: Concept) -> tuple[str, ...]:
    """Return the texts that stand for a concept, in training and for the cosine of its permeability."""
    return (concept.name,) if params.train_on == "name" else tuple(dict.fromkeys(concept.prompts))


def notes(params: MembraneParams, chosen: Sequence[Concept]) -> tuple[str, ...]:
    """Return what the user should know before the run."""
    found = []
    if params.mode == "bundle":
        found.append(
            "the weights stay as they are: only publisher.load attaches the membranes, plain diffusers does not"
        )
        if params.transport.threshold == 0 and params.transport.score != "overlap":
            found.append(
                "without a threshold every prompt opens every membrane a little: no image stays exactly the same"
            )
        if any(concept.kind == "style" for concept in chosen):
            found.append("a membrane leaves a style in some images: erase it where it must be gone")
    if params.mode == "merge" and params.transport != Transport():
        found.append("transport has no effect in mode merge: merged membranes do not see the prompt")
    if len(chosen) > MANY and params.transport.cap is None:
        found.append(f"{len(chosen)} membranes and no cap: short prompts open many of them at once")
    return tuple(found)


def _target(params: MembraneParams, concept: Concept) -> Target:
    texts = texts_of(params, concept)
    surrogates = tuple(_with(text, concept.name, surrogates_of(params).get(concept.id, "")) for text in texts)
    positive = params.positives.get(concept.id, "")
    positives = tuple(_with(text, concept.name, positive) if positive.strip() else text for text in texts)
    for text, surrogate in zip(texts, surrogates, strict=True):
        if text.casefold() == surrogate.casefold():
            raise UsageError(
                f"concept {concept.id!r}: the text {text!r} is its own surrogate",
                hint="Give other words under 'surrogates'.",
            )
    return Target(concept.id, texts, surrogates, positives)


def _with(text: str, name: str, words: str) -> str:
    """Replace the concept's name in ``text``; without the name return the words alone, and for no words no text."""
    if not words.strip():
        return ""
    texts = split_at_name(text, name)
    return words.join(texts) if len(texts) > 1 else words


def _known(names: Iterable[str], ids: Sequence[str], option: str) -> None:
    for name in names:
        if name not in ids:
            near = difflib.get_close_matches(name, ids, 1)
            raise UsageError(
                f"{option!r} names {name!r}, which is no concept of this step",
                hint=f"Did you mean {near[0]!r}?" if near else f"They are: {', '.join(ids)}.",
            )
