"""Which prompts are erased, towards which, and which are kept: the manifest's words, checked before any algebra."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from publisher.api import Concept, Scope, UsageError
from publisher_erase.params import EraseParams

MANY = 10
"""Above this many concepts closed-form edits are known to break the model."""


@dataclass(frozen=True)
class Tokens:
    """One prompt, tokenised and padded for every encoder of the pipeline."""

    text: str
    ids: tuple[tuple[int, ...], ...]
    """One padded sequence for each encoder. Prompts with equal ids are one prompt to the model."""
    length: int
    """Positions up to and including EOS."""

    @property
    def empty(self) -> bool:
        """No word: only BOS and EOS."""
        return self.length <= 2


@dataclass(frozen=True)
class Selection:
    """Texts of one edit."""

    concepts: tuple[tuple[Concept, tuple[tuple[str, str], ...]], ...]
    """Each concept to erase, with its prompts and what each is to read as."""
    keep: tuple[str, ...]
    """Prompts to keep, the empty one first."""
    warnings: tuple[str, ...]
    """What the user should know before it is run."""


@dataclass(frozen=True)
class TokenSelection:
    """The same after tokenising, without repeats."""

    concepts: tuple[tuple[tuple[Tokens, Tokens], ...], ...]
    keep: tuple[Tokens, ...]


def select(params: EraseParams, scope: Scope) -> Selection:
    """Choose the texts.

    Raises:
        UsageError: no concept, or a name that the manifest's concepts do not have.
    """
    concepts = _chosen(params, scope)
    for name in params.targets:
        _known(name, [concept.id for concept in concepts], "targets")
    pairs = tuple((concept, _pairs(concept, params)) for concept in concepts)
    kept = [prompt for concept in scope.keep for prompt in concept.prompts]
    keep = tuple(dict.fromkeys(("", *kept, *scope.keep_prompts)))
    return Selection(pairs, keep, _warnings(len(concepts), len(keep)))


def substitute(prompt: str, words: Sequence[str], target: str) -> str:
    """``prompt`` with the concept's words replaced by ``target``; the empty prompt for an empty target.

    The longest of ``words`` that occurs, as whole words and in any case, is replaced throughout. A prompt in which none
    occurs becomes the target alone.
    """
    if not target.strip():
        return ""
    for word in sorted(words, key=len, reverse=True):
        pattern = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)", re.IGNORECASE)
        if pattern.search(prompt):
            return pattern.sub(lambda _: target, prompt)
    return target


def tokenise(selection: Selection, tokens: Callable[[str], Tokens]) -> TokenSelection:
    """Tokenise every text, drop repeats (texts that are one text to the model), and refuse contradictions.

    Raises:
        UsageError: an empty prompt to erase; a prompt that equals its target, another concept's target, or a prompt to
            keep; a concept whose prompts are all another's.
    """
    keep = _distinct([tokens(text) for text in selection.keep])
    seen: set[tuple[tuple[int, ...], ...]] = set()
    concepts = []
    for concept, texts in selection.concepts:
        pairs = []
        for text, target in texts:
            pair = (tokens(text), tokens(target))
            if pair[0].ids not in seen:
                seen.add(pair[0].ids)
                pairs.append(pair)
            _check_pair(concept, *pair)
        if not pairs:
            raise UsageError(
                f"all prompts of concept {concept.id!r} are also another concept's", hint="Drop one of them."
            )
        concepts.append(tuple(pairs))
    _refuse_overlap(seen, keep, "has to be kept")
    _refuse_overlap(seen, [target for pairs in concepts for _, target in pairs], "is the target of a concept")
    return TokenSelection(tuple(concepts), keep)


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
    target = params.targets.get(concept.id, "")
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


def _refuse_overlap(erased: set[tuple[tuple[int, ...], ...]], others: Sequence[Tokens], what: str) -> None:
    for other in others:
        if other.ids in erased:
            raise UsageError(
                f"the prompt {other.text!r} has to be erased and {what}", hint="Remove it from one of the two lists."
            )
