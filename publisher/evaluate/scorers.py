"""The scorers of a release: which of them judges which concept, what it depends on, and when it is in memory.

Together they are one judge of every kind. At most one is loaded at a time, and only while nothing is generated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, Any, TypeVar

from publisher.api import Check, Concept, Judgement, Scorer, ScorerCard
from publisher.errors import CRASHES
from publisher.evaluate.context import COUNCIL, ReleaseScorer, Setting, Tools, Unmeasured
from publisher.evaluate.requests import one_line
from publisher.evaluate.sheets import known_errors, require_fit, sheet_bytes
from publisher.model.inputs import input_digest

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
Said = list[Judgement] | str
"""One judgement for each image, or why there is none."""
JUDGE, MATCH, FEATURES = "judge", "match", "features"
Task = tuple[str, str]
"""A scorer's id, and what it has to do with images: :data:`JUDGE`, :data:`MATCH` or :data:`FEATURES`."""


def judge_of(concept: Concept, check: Check, tools: Tools, *, judged: bool) -> str:
    """Return the id of the scorer that judges a concept's images; empty: nobody does, and nobody has to.

    Of several that judge together it is all their ids, with :data:`COUNCIL` between them.

    Args:
        concept: of the check.
        check: names a scorer, or leaves it to the kind of the concept.
        tools: the scorers.
        judged: the check's metric reads judgements.

    Raises:
        Unmeasured: no scorer judges the concept, and one has to.
    """
    name = check.scorer or tools.judges.get(concept.kind, "")
    try:
        if not name:
            judges = ", ".join(f"{kind} by {judge!r}" for kind, judge in tools.judges.items()) or "nothing"
            what = f"no scorer judges the kind {concept.kind!r} of {concept.id!r}"
            raise Unmeasured(f"{what}; judged are: {judges}. Add one under evaluate.scorers")  # noqa: TRY301
        if not all(one in tools.scorers for one in name.split(COUNCIL)):
            raise Unmeasured(f"there is no scorer {name!r}")  # noqa: TRY301
        for scorer in tools.members(name):
            _require_label(scorer, concept)
            if judged:
                require_fit(scorer, concept)
    except Unmeasured:
        if judged or check.scorer:
            raise
        return ""
    return name


def _require_label(scorer: ReleaseScorer, concept: Concept) -> None:
    """Make sure that the scorer has a label for the concept; without one it would never see it.

    Raises:
        Unmeasured: it has not.
    """
    known = _asked(scorer, scorer.scorer.labels)
    if concept.kind not in scorer.kinds or concept.kind not in known:
        raise Unmeasured(f"the scorer {scorer.id!r} does not judge the kind {concept.kind!r} of {concept.id!r}")
    labels = known[concept.kind]
    if labels is not None and concept.label not in labels:
        raise Unmeasured(f"the scorer {scorer.id!r} has no label {concept.label!r}: it can never see {concept.id!r}")


def card_of(scorer: ReleaseScorer, setting: Setting) -> ScorerCard:
    """Return a scorer's card, with what the manifest says of it. It is loaded once, to see that it can be.

    Raises:
        Unmeasured: it crashed, or one of its inputs is not what was planned with.
    """
    found = _asked(scorer, lambda: {name: input_digest(name, path) for name, path in scorer.scorer.files.items()})
    for name in scorer.inputs.keys() | found.keys():
        if scorer.inputs.get(name) != found.get(name):
            raise Unmeasured(f"the scorer {scorer.id!r} was planned with another {name!r}: it has changed")
    card = _asked(scorer, scorer.scorer.card)
    if not isinstance(card, ScorerCard):
        raise Unmeasured(f"the scorer {scorer.id!r} gave something else than a card")
    with loaded(scorer, setting):
        pass
    return card.model_copy(
        update={
            "calibration": " ".join(filter(None, [card.calibration.strip(), known_errors(scorer)])),
            "use": scorer.scorer.name,
            "version": scorer.scorer.version,
            "kinds": scorer.kinds,
            "params": scorer.params,
            "inputs": dict(scorer.inputs),
            "sheets": {file: sha256(sheet_bytes(sheet)).hexdigest() for file, sheet in scorer.sheets.items()},
        }
    )


def identity(scorer: ReleaseScorer) -> dict[str, Any]:
    """Return what the judgements of a scorer depend on, as JSON data: the key of what was judged with it before.

    Raises:
        Unmeasured: it crashed.
    """
    instance = scorer.scorer
    labels = _asked(scorer, instance.labels)
    every = (*instance.scope.concepts, *instance.scope.keep) if instance.scope else ()
    return {
        "scorer": [instance.name, instance.version, scorer.origin],
        "params": scorer.params,
        "inputs": dict(scorer.inputs),
        "weights": _asked(scorer, instance.card).weights,
        "features": type(instance).features is not Scorer.features,
        "any": [[one.kind, one.label] for one in every if one.kind in labels and labels[one.kind] is None],
    }


@contextmanager
def loaded(scorer: ReleaseScorer, setting: Setting) -> Iterator[Scorer[Any]]:
    """Load a scorer for the time of this block. What it raises when it is unloaded becomes a warning.

    Raises:
        Unmeasured: it cannot be loaded.
    """
    import torch

    _asked(scorer, lambda: scorer.scorer.load(torch.device(setting.device)))
    try:
        yield scorer.scorer
    finally:
        try:
            scorer.scorer.unload()
        except CRASHES as error:  # a plugin may raise anything; its judgements are there
            setting.warn(f"the scorer {scorer.id!r} was not unloaded: {one_line(error)}")


def judge(scorer: ReleaseScorer, images: torch.Tensor) -> Said:
    """Ask a scorer that is loaded about ``(n, 3, h, w)`` uint8. It is heard about its own kinds alone."""
    try:
        found = _asked(scorer, lambda: list(scorer.scorer.judge(images.float().div(255))))
        if len(found) != len(images):
            raise Unmeasured(f"the scorer {scorer.id!r} gave {len(found)} judgements of {len(images)} images")  # noqa: TRY301
        if not all(isinstance(judgement, Judgement) for judgement in found):
            raise Unmeasured(f"the scorer {scorer.id!r} gave something else than judgements")  # noqa: TRY301
        return [_rounded(judgement, scorer.kinds) for judgement in found]
    except Unmeasured as error:
        return str(error)


def _rounded(judgement: Judgement, kinds: Sequence[str]) -> Judgement:
    """Return a validated copy (a plugin can build one past the validation), with scores to six digits."""
    try:
        scores = {kind: round(score, 6) for kind, score in judgement.scores.items() if kind in kinds}
        labels = {kind: label for kind, label in judgement.labels.items() if kind in kinds}
        seen = {kind: some for kind, some in judgement.seen.items() if kind in kinds}
        unsure = tuple(kind for kind in judgement.unsure if kind in kinds)
        if not all(0 <= score <= 1 for score in scores.values()):
            raise Unmeasured("the scorer gave a score that is no number in [0, 1]")  # noqa: TRY301
        return Judgement(labels=labels, scores=scores, seen=seen, unsure=unsure)
    except Unmeasured:
        raise
    except CRASHES as error:  # it may hold anything
        raise Unmeasured(f"the scorer gave a malformed judgement: {one_line(error)}") from error


def judgements(scorer: ReleaseScorer, images: torch.Tensor, concept: Concept) -> list[Judgement]:
    """Return what a scorer, which is loaded, says of each image.

    Raises:
        Unmeasured: it does not say.
    """
    said = judge(scorer, images)
    if isinstance(said, str):
        raise Unmeasured(said)
    require_kind(scorer.id, said, concept)
    return said


def agreed(said: Sequence[Judgement]) -> Judgement:
    """Return what several scorers agree on about one image. What one sees and another does not is disputed.

    Args:
        said: by each scorer; one alone agrees with itself.
    """
    if len(said) == 1:
        return said[0]
    labels: dict[str, str] = {}
    seen: dict[str, tuple[str, ...]] = {}
    disputed: dict[str, tuple[str, ...]] = {}
    kinds = frozenset.intersection(*(one.kinds for one in said))
    unsure = tuple(sorted(kind for kind in kinds if any(kind in one.unsure for one in said)))
    for kind in sorted(kinds.difference(unsure)):
        each = [set(one.seen[kind] if kind in one.seen else (one.labels[kind],)) for one in said]
        both, some = set.intersection(*each), set.union(*each)
        seen[kind] = tuple(sorted(both))
        if some - both:
            disputed[kind] = tuple(sorted(some - both))
        words = {one.labels.get(kind, "") for one in said}
        if len(words) == 1:
            labels[kind] = words.pop()
    scores = {kind: min(one.scores.get(kind, 0.0) for one in said) for kind in labels}
    return Judgement(labels=labels, scores=scores, seen=seen, disputed=disputed, unsure=unsure)


def both_judged(judge: str, said: Mapping[str, tuple[Judgement, Judgement] | str]) -> tuple[Judgement, Judgement] | str:
    """Return what a judge says of an image of the base model and of one of the hardened model, or why it says nothing.

    Args:
        judge: id of a scorer, or of several.
        said: id of each scorer -> what it says of both.
    """
    every = [said[name] for name in judge.split(COUNCIL)]
    problem = next((one for one in every if isinstance(one, str)), None)
    if problem is not None:
        return problem
    pairs = [one for one in every if not isinstance(one, str)]
    return agreed([base for base, _ in pairs]), agreed([hardened for _, hardened in pairs])


def in_word(judgement: Judgement, concept: Concept) -> tuple[bool | None, str]:
    """Return whether a scorer sees a concept, and the label of what it sees.

    Where it sees the concept that is the concept's label, whatever else it sees; where it is unsure, nothing.
    """
    shows = judgement.shows(concept)
    if shows:
        return True, concept.label
    label = judgement.labels.get(concept.kind, "")
    return shows, "" if shows is None or label == concept.label else label


def require_kind(scorer: str, said: Sequence[Judgement], concept: Concept) -> None:
    """Make sure that judgements say something of a concept's kind.

    Raises:
        Unmeasured: one does not.
    """
    if not all(concept.kind in judgement.kinds for judgement in said):
        raise Unmeasured(f"the scorer {scorer!r} gave no judgement of the kind {concept.kind!r}")


def able(what: str, scorers: Sequence[ReleaseScorer]) -> str:
    """Return the id of the first scorer that has features, or reads texts; empty: none has.

    Args:
        what: :data:`FEATURES` or :data:`MATCH`.
        scorers: that judge together.
    """
    return next((one.id for one in scorers if getattr(type(one.scorer), what) is not getattr(Scorer, what)), "")


def done(task: Task, scorer: ReleaseScorer, images: torch.Tensor, prompts: Sequence[str]) -> Sequence[Any] | str:
    """Let a scorer that is loaded do a task: one answer for each image, or why there is none.

    Args:
        task: which.
        scorer: of the task.
        images: ``(n, 3, h, w)`` uint8.
        prompts: of the images.
    """
    if task[1] == JUDGE:
        return judge(scorer, images)
    try:
        if task[1] == MATCH:
            return _matched(scorer, images, prompts)
        vectors = _asked(scorer, lambda: features(scorer, images))
        return f"the scorer {scorer.id!r} has no features" if vectors is None else list(vectors.cpu())
    except Unmeasured as error:
        return str(error)


def _matched(scorer: ReleaseScorer, images: torch.Tensor, prompts: Sequence[str]) -> list[float]:
    found = _asked(scorer, lambda: scorer.scorer.match(images.float().div(255), prompts))
    numbers = None if found is None else [float(one) for one in found]
    if numbers is None or len(numbers) != len(images) or not all(abs(one) <= 1 + 1e-4 for one in numbers):
        raise Unmeasured(f"the scorer {scorer.id!r} gave not one cosine in [-1, 1] for each image")
    return [round(max(-1.0, min(1.0, one)), 6) for one in numbers]


def features(scorer: ReleaseScorer, images: torch.Tensor) -> torch.Tensor | None:
    """Return ``(n, d)`` of length 1, of a scorer that is loaded; None: it has none."""
    import torch
    from torch.nn.functional import normalize

    found = scorer.scorer.features(images.float().div(255))
    if found is None:
        return None
    if found.ndim != 2 or len(found) != len(images) or not torch.isfinite(found).all():
        raise ValueError("not one finite vector for each image")
    return normalize(found.float(), dim=1)


def cards_of(judges: Sequence[str], tools: Tools, setting: Setting) -> Mapping[str, ScorerCard | Unmeasured]:
    """Return the card of each of these scorers, or why it cannot judge."""
    found: dict[str, ScorerCard | Unmeasured] = {}
    for scorer in dict.fromkeys(scorer for judge in judges for scorer in tools.members(judge)):
        try:
            found[scorer.id] = card_of(scorer, setting)
        except Unmeasured as error:
            found[scorer.id] = error
    return found


def _asked(scorer: ReleaseScorer, ask: Callable[[], T]) -> T:
    try:
        return ask()
    except CRASHES as error:  # a plugin may raise anything; its checks become unknown
        raise Unmeasured(f"the scorer {scorer.id!r} crashed: {one_line(error)}") from error
