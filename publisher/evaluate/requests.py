"""What a check asks the models for: the attack's requests, validated, without what must not be generated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError

from publisher.api import Attack, Check, Concept, ImageRequest, Params, PromptFile, Sampling, Scope, TrainingParams
from publisher.errors import CRASHES
from publisher.evaluate.context import Tools, Unmeasured
from publisher.runtime.refusals import is_refused

MAX_REQUESTS = 200_000
PRIVATE_KINDS = ("person", "unsafe")
"""Kinds of concepts whose images are kept in memory only: never on disk, never in a report."""
_P = TypeVar("_P", bound=Params)
_T = TypeVar("_T")


@dataclass(frozen=True)
class Asked:
    """The images that one check needs."""

    requests: tuple[ImageRequest, ...]
    """Distinct, in the order of the check's concepts."""
    refused: int
    """Requests that were dropped because nobody may generate them."""


def ask(check: Check, scope: Scope, tools: Tools, sampling: Sampling) -> Asked:
    """Collect a check's requests.

    Raises:
        Unmeasured: an unknown name, malformed parameters, an attack that breaks its contract, a concept without any
            request left.
    """
    attack = named(tools.attacks, check.attack, "attack")
    if not check.concepts:
        raise Unmeasured("the check names no concept, so nothing is asked: list ids under its 'concepts'")
    wanted: dict[ImageRequest, None] = {}
    refused = 0
    places = {name: place for place, name in enumerate(tools.neighbours or [one.id for one in scope.keep])}
    for concept in _asked_for(check, scope):
        params = params_for(parsed(type(attack).Params, check.attack_params, "attack"), concept, scope)
        wide = sampling.for_kept(len(scope.keep), places[concept.id]) if concept.id in places else sampling
        requests = _requests(attack, params, concept, wide)
        allowed = [request for request in requests if not is_refused(request.prompt, concept)]
        refused += len(requests) - len(allowed)
        if not allowed:
            raise Unmeasured(_nothing_to_ask(check.attack, concept.id, len(requests)))
        wanted |= dict.fromkeys(allowed)
        if len(wanted) > MAX_REQUESTS:
            raise Unmeasured(f"the check asks for more than {MAX_REQUESTS} images")
    return Asked(tuple(wanted), refused)


def named(found: Mapping[str, _T], name: str, kind: str) -> _T:
    """Return the plugin's instance of this name.

    Raises:
        Unmeasured: there is none.
    """
    if name not in found:
        raise Unmeasured(f"there is no {kind} {name!r}")
    return found[name]


def parsed(model: type[_P], data: Mapping[str, object], kind: str) -> _P:
    """Parse the parameters of a plugin.

    Raises:
        Unmeasured: they do not fit its model.
    """
    try:
        return model.parse(data)
    except (ValidationError, TypeError, ValueError) as error:
        raise Unmeasured(f"the parameters of the {kind} are malformed: {one_line(error)}") from error


def params_for(params: _P, concept: Concept, scope: Scope) -> _P:
    """Return an attack's parameters for one concept: for what stays, a training may write other captions.

    Raises:
        Unmeasured: the attack cannot have these captions.
    """
    if not isinstance(params, TrainingParams) or params.kept_captions is None or concept not in scope.keep:
        return params
    captions = {"captions": params.kept_captions, "kept_captions": None}
    return parsed(type(params), params.as_json() | captions, "attack")


def concepts(check: Check, scope: Scope) -> list[Concept]:
    """Return the check's concepts, each once.

    Raises:
        Unmeasured: one is not in the scope.
    """
    try:
        return [scope.concept(name) for name in dict.fromkeys(check.concepts)]
    except KeyError as error:
        raise Unmeasured(str(error.args[0])) from error


def _asked_for(check: Check, scope: Scope) -> list[Concept]:
    """Return the check's concepts, with its own prompts where it brings some.

    Raises:
        Unmeasured: a concept is not in the scope, or a list of prompts was not read.
    """
    found = concepts(check, scope)
    if isinstance(check.prompts, PromptFile):
        raise Unmeasured(f"the prompts of {check.prompts.file!r} were not read")
    if not check.prompts:
        return found
    return [one.model_copy(update={"prompts": check.prompts, "paraphrases": check.prompts}) for one in found]


def one_line(error: BaseException) -> str:
    """Return an exception's type and message on one line of bounded length."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def _requests(attack: Attack[Any], params: Params, concept: Concept, sampling: Sampling) -> Sequence[ImageRequest]:
    try:
        requests = list(attack.requests(params, concept.model_copy(deep=True), sampling))
    except CRASHES as error:  # a plugin may raise anything; its check becomes unknown
        raise Unmeasured(f"the attack {attack.name!r} crashed: {one_line(error)}") from error
    if not all(isinstance(request, ImageRequest) and request.concept == concept.id for request in requests):
        raise Unmeasured(f"the attack {attack.name!r} returned something else than requests for {concept.id!r}")
    return requests


def _nothing_to_ask(attack: str, concept: str, refused: int) -> str:
    if refused:
        return f"all {refused} requests for {concept!r} combine sexual content with minors and are never generated"
    return f"the attack {attack!r} has nothing to ask for {concept!r}"
