"""What the step is going to do with texts: which prompts are erased, towards which, and which are kept.

All of it is checked before any algebra, from the manifest's words. Which tensors are edited: ``tensors.py``. Imports no
torch.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, replace

from publisher.api import Concept, ModelInfo, Scope, UsageError, split_at_name
from publisher.api.choosing import ENDINGS, kept_notes, names_in, require_apart
from publisher_erase.claims import is_refused, promised_searches
from publisher_erase.params import EraseParams
from publisher_erase.presets import TRIED_CONCEPTS, is_untried, steps_tried
from publisher_erase.tensors import seems_few_step

MANY = 10
"""Number of concepts above which closed-form edits are known to break the model."""
TRAILING = (
    "the scheduler's timestep_spacing is trailing, as of models that were distilled to few steps (turbo): such a model "
    "has no guidance to move, and its files do not say so; take method uce if this is one"
)
"""What the plan of a training says of a model that may be distilled."""


@dataclass(frozen=True)
class Tokens:
    """One prompt, tokenised and padded for every encoder of the pipeline."""

    text: str
    """Prompt as text."""
    ids: tuple[tuple[int, ...], ...]
    """Token numbers, one padded sequence for each encoder. Prompts with equal ids are one prompt to the model."""
    length: int
    """Number of positions up to and including the end token, or the end of a template."""
    framing: int = 2
    """Number of positions of a text without words: start and end token, or a template."""

    @property
    def empty(self) -> bool:
        """Whether there is no word."""
        return self.length <= self.framing


@dataclass(frozen=True)
class Selection:
    """The texts of one edit."""

    concepts: tuple[tuple[Concept, tuple[tuple[str, str], ...]], ...]
    """Concepts to erase, each with its prompts and what each is to read as."""
    keep: tuple[str, ...]
    """Prompts to keep, the empty one first."""
    warnings: tuple[str, ...]
    """Warnings that the user should read before the run."""

    def keeping(self, prompt: str) -> Selection:
        """Return the same with a prompt to keep, such as the one that guidance compares with."""
        return replace(self, keep=tuple(dict.fromkeys((*self.keep, prompt))))


@dataclass(frozen=True)
class TokenSelection:
    """The texts of one edit after tokenising, without repeats."""

    concepts: tuple[tuple[tuple[Tokens, Tokens], ...], ...]
    """Prompts of each concept, each with its target."""
    keep: tuple[Tokens, ...]
    """Prompts to keep."""


def select(params: EraseParams, scope: Scope) -> Selection:
    """Choose the texts.

    Raises:
        UsageError: no concept, or a name that the manifest's concepts do not have.
    """
    concepts = _chosen(params, scope)
    for name in () if params.targets == "auto" else params.targets:
        _known(name, [concept.id for concept in concepts], "targets")
    pairs = tuple((concept, _pairs(concept, params)) for concept in concepts)
    kept = [prompt for concept in scope.keep for prompt in concept.prompts]
    keep = tuple(dict.fromkeys(("", *kept, *scope.keep_prompts)))
    return Selection(pairs, keep, _warnings(len(concepts), len(keep)))


def substitute(prompt: str, words: Sequence[str], target: str) -> str:
    """Replace the concept's words in ``prompt`` by ``target``; an empty target gives the empty prompt.

    The longest of ``words`` that occurs, as whole words and in any case, is replaced throughout. A prompt in which none
    occurs becomes the target alone.
    """
    if not target.strip():
        return ""
    for word in sorted(words, key=len, reverse=True):
        texts = split_at_name(prompt, word)
        if len(texts) > 1:
            return target.join(texts)
    return target


def tokenise(selection: Selection, tokens: Callable[[str], Tokens]) -> TokenSelection:
    """Tokenise every text, drop repeats (texts that are one text to the model), and refuse contradictions.

    Raises:
        UsageError: an empty prompt to erase; a prompt that equals its target, another concept's target, or a prompt to
            keep; one that two concepts have with different targets; a concept whose prompts are all another's.
    """
    keep = _distinct([tokens(text) for text in selection.keep])
    seen: dict[tuple[tuple[int, ...], ...], Tokens] = {}
    concepts = []
    for concept, texts in selection.concepts:
        pairs = []
        for text, target in texts:
            pair = (tokens(text), tokens(target))
            if pair[0].ids not in seen:
                pairs.append(pair)
            elif seen[pair[0].ids].ids != pair[1].ids:
                raise UsageError(
                    f"the prompt {text!r} of concept {concept.id!r} was there before with another target",
                    hint="Two concepts share it, or one has it twice: leave it to one of them.",
                )
            seen.setdefault(pair[0].ids, pair[1])
            _check_pair(concept, *pair)
        if not pairs:
            raise UsageError(
                f"all prompts of concept {concept.id!r} are also another concept's", hint="Drop one of them."
            )
        concepts.append(tuple(pairs))
    _refuse_overlap(seen, keep, "has to be kept")
    _refuse_overlap(seen, [target for pairs in concepts for _, target in pairs], "is the target of a concept")
    return TokenSelection(tuple(concepts), keep)


def require_targets(params: EraseParams, selection: Selection, scope: Scope) -> None:
    """Refuse words that are to take a concept's place and name one that is to go, by this step or by another one.

    Raises:
        UsageError: with both concepts; of a training also where its own concept is called so among other words.
    """
    for concept, words in _targets(params, selection):
        for other in (*scope.concepts, *scope.others):
            if any(other is not concept or _is(words, name) for name in names_in(words, other, plural=True)):
                raise UsageError(
                    f"the target {words!r} of concept {concept.id!r} names {other.id!r}, which is to go itself",
                    hint="Choose words for something that stays.",
                )
        said = names_in(words, concept)
        if params.training is not None and said:
            raise UsageError(
                f"the target {words!r} of concept {concept.id!r} says {said[0]!r}, as that concept is called: method "
                f"{params.method} would train the model to generate it",
                hint="Choose words for something else, which stays.",
            )


def require_consistent(params: EraseParams, selection: Selection) -> None:
    """Refuse what would make the terms of a training fight each other.

    Raises:
        UsageError: a prompt to keep that calls a concept by its name or a synonym, or nothing to keep.
    """
    require_apart((concept for concept, _ in selection.concepts), selection.keep)
    if not any(prompt.strip() for prompt in selection.keep):
        raise UsageError(
            f"there is nothing to keep, and method {params.method} holds what is listed alone",
            hint="List concepts under 'keep', neighbours of what goes first.",
        )


def naming_notes(params: EraseParams, selection: Selection) -> tuple[str, ...]:
    """Return a note for each concept that its target or a prompt to keep calls by name, where that is not refused."""
    found = [
        f"the target {words!r} of {concept.id!r} says {name!r}, as that concept is called: if the model shows it for "
        "these words, nothing is erased; choose words for something else"
        for concept, words in _targets(params, selection)
        for name in names_in(words, concept, plural=True)[:1]
    ]
    return (*found, *kept_notes((concept for concept, _ in selection.concepts), selection.keep))


def training_notes(params: EraseParams, selection: Selection, model: ModelInfo) -> tuple[str, ...]:
    """Return what the user should know of a training before it runs: its cost in rows, and what was never tried."""
    training = params.training
    if training is None:
        return ()
    concepts, kept = len(selection.concepts), min(len(selection.keep), training.kept_pool)
    rows = concepts * (training.pool + 1) * training.denoising_steps + kept * training.kept_steps
    steps = training.steps or 0
    said = f"{steps} steps on {rows} rows of trajectories, lr {training.lr:g}, start {training.init}"
    if params.robust is not None and params.robust.lam_adversarial:
        attack = params.robust.attack
        searches = -(-steps // attack.every) * attack.fresh * concepts
        searches *= sum(kind != "derived" for kind in attack.kinds)
        said += f"; {searches} searches of {attack.steps} steps by attackers ({', '.join(attack.kinds)})"
    found = [said]
    wanted = math.ceil(concepts * steps_tried(params, model))
    if is_untried(model):
        found.append(f"steps and rates of method {params.method} were never tried on a model of this size")
    elif concepts > TRIED_CONCEPTS and steps < wanted:
        found.append(
            f"{concepts} concepts share {steps} steps, which were chosen for {TRIED_CONCEPTS}, and some may stay: set "
            f"{params.method}.steps to {wanted} or more"
        )
    if seems_few_step(model):
        found.append(TRAILING)
    found += _unpromised(params, selection)
    empty = [concept.id for concept, pairs in selection.concepts if any(not target for _, target in pairs)]
    if empty and params.targets != "auto":
        found.append(f"{', '.join(empty)}: towards the empty prompt, which did badly where it was tried; name a target")
    return tuple(found)


def _unpromised(params: EraseParams, selection: Selection) -> list[str]:
    """Return what ``robust`` does not promise here of searches for text states, and why."""
    if params.robust is None:
        return []
    promised = promised_searches(params)
    refused = [concept.id for concept, _ in selection.concepts if is_refused(concept, "concept-inversion")]
    if not promised:
        return ["nothing is promised of searches for text states: promises is empty, or none runs on this family"]
    if refused and "concept-inversion" in promised:
        return [f"{', '.join(refused)}: concept-inversion is never run for a concept of the kind unsafe, nor promised"]
    return []


def _targets(params: EraseParams, selection: Selection) -> list[tuple[Concept, str]]:
    """Return the concepts, each with the words that are to take its place."""
    targets = {} if params.targets == "auto" else params.targets
    return [(concept, targets.get(concept.id, "")) for concept, _ in selection.concepts]


def _is(text: str, words: str) -> bool:
    """Return whether a text is these words, or their plural, but for an article."""
    apart = (tuple(part.strip().lower() for part in split_at_name(text, words + end)) for end in ENDINGS)
    return any(parts in [(article, "") for article in ("", "a", "an", "the")] for parts in apart)


def check_rows(params: EraseParams) -> None:
    """Refuse a rule that looks at fewer rows, or at others, than carry the concept where text enters at once.

    Raises:
        UsageError: any rule but ``content``, or the default that becomes it.
    """
    if params.rows not in ("content", "mean-pad"):
        raise UsageError(
            f"rows: {params.rows} is a rule of cross-attention, and text enters this model at once",
            hint="Leave rows out: every word, the end token and the padding carry the concept there.",
        )


def _chosen(params: EraseParams, scope: Scope) -> tuple[Concept, ...]:
    ids = [concept.id for concept in scope.concepts]
    for name in params.concepts:
        _known(name, ids, "concepts")
    chosen = tuple(concept for concept in scope.concepts if not params.concepts or concept.id in params.concepts)
    if not chosen:
        raise UsageError("there is no concept to erase", hint="Name at least one under 'concepts' in the manifest.")
    return chosen


def _known(name: str, ids: Sequence[str], where: str) -> None:
    if name in ids:
        return
    near = difflib.get_close_matches(name, ids, 1)
    raise UsageError(
        f"{where} names {name!r}, which is not a concept that this step erases",
        hint=f"Did you mean {near[0]!r}?" if near else f"They are: {', '.join(ids)}.",
    )


def _pairs(concept: Concept, params: EraseParams) -> tuple[tuple[str, str], ...]:
    prompts = (*concept.prompts, *(concept.paraphrases if params.synonyms else ()))
    words = (concept.name, *concept.synonyms)
    target = "" if params.targets == "auto" else params.targets.get(concept.id, "")
    return tuple((prompt, substitute(prompt, words, target)) for prompt in prompts)


def _warnings(concepts: int, keep: int) -> tuple[str, ...]:
    found = []
    if concepts > MANY:
        found.append(
            f"{concepts} concepts in one edit: closed-form erasure is known to break models above about {MANY}"
        )
    if concepts > 1 and keep == 1:
        found.append("several concepts and nothing to keep but the empty prompt: expect damage; list what has to stay")
    return tuple(found)


def _distinct(prompts: Sequence[Tokens]) -> tuple[Tokens, ...]:
    return tuple({prompt.ids: prompt for prompt in reversed(prompts)}.values())[::-1]


def _check_pair(concept: Concept, prompt: Tokens, target: Tokens) -> None:
    if prompt.empty:
        raise UsageError(
            f"concept {concept.id!r} has an empty prompt", hint="The empty prompt can be kept, not erased."
        )
    if prompt.ids == target.ids:
        raise UsageError(
            f"concept {concept.id!r}: the prompt {prompt.text!r} is its own target {target.text!r}",
            hint="Choose a target that differs (letter case does not count).",
        )


def _refuse_overlap(erased: Container[tuple[tuple[int, ...], ...]], others: Sequence[Tokens], what: str) -> None:
    for other in others:
        if other.ids in erased:
            raise UsageError(
                f"the prompt {other.text!r} has to be erased and {what}", hint="Remove it from one of the two lists."
            )
