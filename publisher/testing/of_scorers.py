"""Rules of scorers: one judgement an image, of labels that it said it has, the same whatever it is judged with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

from publisher.api import Concept, Judgement, Kind, Scorer, ScorerCard
from publisher.testing.plugin import PluginUnderTest, Rule, demand

if TYPE_CHECKING:
    import torch

IMAGES = 5


def labels_are_of_known_kinds(one: PluginUnderTest) -> None:
    """Demand labels of at least one kind of concept, none of a kind that does not exist."""
    labels = one.make().labels()
    strange = sorted(set(labels) - set(get_args(Kind)))
    demand(labels and not strange, f"labels() has the kinds {sorted(labels)}; there are: {', '.join(get_args(Kind))}")
    empty = sorted(kind for kind, names in labels.items() if names is not None and not names)
    demand(not empty, f"labels() has no label of the kind {', '.join(empty)}; None stands for any label")


def card_fits_labels(one: PluginUnderTest) -> None:
    """Demand a card, made before the scorer is loaded, that speaks of kinds it has labels of."""
    scorer = one.make()
    card = scorer.card()
    demand(isinstance(card, ScorerCard), f"card() returns {card!r}, which is no api.ScorerCard")
    strange = sorted(set(card.classes) - set(scorer.labels()))
    demand(not strange, f"card().classes counts labels of {', '.join(strange)}, of which labels() has none")


def judges_each_image(one: PluginUnderTest) -> None:
    """Demand one judgement an image, each of some kind, with known labels and confidences in [0, 1]."""
    labels, found = one.make().labels(), _judged(one)
    demand(len(found) == IMAGES, f"it gives {len(found)} judgements of {IMAGES} images")
    for judgement in found:
        demand(isinstance(judgement, Judgement), f"judge returns {judgement!r}, which is no api.Judgement")
        demand(judgement.kinds, "a judgement says nothing: name the kind in 'unsure' where it cannot tell")
        demand(
            judgement.kinds <= set(labels), f"it judges {sorted(judgement.kinds)} and has labels of {sorted(labels)}"
        )
        wrong = {kind: score for kind, score in judgement.scores.items() if not 0 <= score <= 1}
        demand(not wrong, f"a confidence is outside [0, 1]: {wrong}")


def judges_the_same_again(one: PluginUnderTest) -> None:
    """Demand that an image's judgement depends on the image alone: not on what is judged with it, nor on the order."""
    alone = [judgement for image in _images() for judgement in _loaded(one).judge(image[None])]
    demand(_said(alone) == _said(_judged(one)), "images judged alone and images judged together are judged differently")


def loads_again(one: PluginUnderTest) -> None:
    """Demand that it can be unloaded and loaded again: another network may need the memory."""
    import torch

    scorer = one.make()
    for _ in range(2):
        scorer.load(torch.device("cpu"))
        found = scorer.judge(_images())
        scorer.unload()
    demand(_said(found) == _said(_judged(one)), "it judges differently once it was unloaded and loaded again")


def leaves_images_alone(one: PluginUnderTest) -> None:
    """Demand that judging does not change the images: other scorers judge them afterwards."""
    images = _images()
    _loaded(one).judge(images)
    demand(bool((images == _images()).all()), "judge changed the images that it was given")


def more_than_labels_fits(one: PluginUnderTest) -> None:
    """Demand of features, strengths and matches, where it has them, one row or number an image."""
    import torch

    scorer, images = _loaded(one), _images()
    labels = scorer.labels()
    concepts = [found for found in (*one.scope.concepts, *one.scope.keep) if _knows(labels, found)]
    features = scorer.features(images)
    if features is not None:
        fits = features.ndim == 2 and len(features) == IMAGES and bool(torch.isfinite(features).all())
        demand(fits, f"features() returns {tuple(features.shape)}, not ({IMAGES}, d) finite numbers")
    for name, numbers in (
        *(("strengths", scorer.strengths(images, concept)) for concept in concepts),
        ("match", scorer.match(images, ["a photo of a dog"] * IMAGES)),
    ):
        demand(numbers is None or len(numbers) == IMAGES, f"{name}() does not return one number for each image")


def _knows(labels: Mapping[str, Sequence[str] | None], concept: Concept) -> bool:
    names = labels.get(concept.kind, ())
    return names is None or concept.label in names


def _images() -> torch.Tensor:
    """Return images of noise in different colours, ``(n, 3, 32, 32)`` in [0, 1]."""
    import torch

    generator = torch.Generator().manual_seed(3)
    noise = torch.rand(IMAGES, 3, 32, 32, generator=generator)
    return noise * torch.rand(IMAGES, 3, 1, 1, generator=generator)


def _loaded(one: PluginUnderTest) -> Scorer[Any]:
    import torch

    if "scorer" not in one.results:
        scorer: Scorer[Any] = one.make()
        scorer.card()
        scorer.load(torch.device("cpu"))
        one.results["scorer"] = scorer
    found: Scorer[Any] = one.results["scorer"]
    return found


def _judged(one: PluginUnderTest) -> Sequence[Judgement]:
    if "judged" not in one.results:
        one.results["judged"] = _loaded(one).judge(_images())
    found: Sequence[Judgement] = one.results["judged"]
    return found


def _said(judgements: Sequence[Judgement]) -> list[Any]:
    """Return what judgements say, without confidences: their last bits may depend on the batch."""
    return [(one.labels, one.seen, one.disputed, one.unsure) for one in judgements]


RULES: dict[str, Rule] = {
    "labels-are-of-known-kinds": labels_are_of_known_kinds,
    "card-fits-labels": card_fits_labels,
    "judges-each-image": judges_each_image,
    "judges-the-same-again": judges_the_same_again,
    "loads-again": loads_again,
    "leaves-images-alone": leaves_images_alone,
    "more-than-labels-fits": more_than_labels_fits,
}
