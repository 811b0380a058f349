"""The scorer ``classifier``: the classes of any image classifier of transformers, put together to labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from publisher.api import Kind, ModelError, ScorerCard, UsageError
from publisher_photo.pixels import preparation_of, prepared
from publisher_photo.seeing import SeeingParams, SeeingScorer
from publisher_photo.weights import CONFIG, PROCESSOR, place_of, read_json, refuse_gaps, weight_files, weights_digest

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class ClassifierParams(SeeingParams):
    """Parameters of ``classifier``."""

    weights: str = Field(min_length=1, description="Image classifier of transformers: folder, or hf: and a commit.")
    classes: dict[str, tuple[str, ...]] = Field(
        min_length=1, description="Label -> names of the classifier's classes that show it."
    )
    kind: Kind = Field(default="object", description="Kind of the concepts that the labels belong to.")
    threshold: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Probability from which on an image shows a label. Choose it by calibration.",
    )

    @field_validator("classes")
    @classmethod
    def _not_empty(cls, classes: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for label, names in classes.items():
            if not names or len(set(names)) < len(names):
                raise ValueError(f"the label {label!r} needs one or more classes, each once")
        return classes


class LabelledClassifier(SeeingScorer[ClassifierParams]):
    """Adds the probabilities of a label's classes; where classes do not exclude each other, the largest one counts."""

    name = "classifier"
    summary = "the classes of an image classifier, put together to labels"

    def inputs(self) -> Sequence[str]:
        """Return the model that the parameters name."""
        return (self.params.weights,)

    def labels(self) -> Mapping[str, Sequence[str]]:
        """Return the labels that have classes."""
        return {self.params.kind: tuple(self.params.classes)}

    asked = labels

    def check_files(self) -> None:
        """Make sure that the model can be read and has the classes.

        Raises:
            PublisherError: not so.
        """
        folder = place_of(self.files, self.params.weights)
        places_of_classes(self.params.classes, read_json(folder / CONFIG), folder / CONFIG)
        preparation_of(read_json(folder / PROCESSOR), str(folder / PROCESSOR))
        weight_files(folder)

    def card(self) -> ScorerCard:
        """Describe the model and the rule.

        Raises:
            PublisherError: the model is not there, or lacks a class that the parameters name.
        """
        folder = place_of(self.files, self.params.weights)
        config = read_json(folder / CONFIG)
        places_of_classes(self.params.classes, config, folder / CONFIG)
        return ScorerCard(
            weights=weights_digest(folder),
            preprocessing=str(preparation_of(read_json(folder / PROCESSOR), str(folder / PROCESSOR))),
            decision=f"every label whose {'largest' if independent(config) else 'summed'} probability is at least "
            f"{self.params.threshold:g}",
            classes={self.params.kind: len(self.params.classes)},
            calibration="",
        )

    def load(self, device: torch.device) -> None:
        """Load the model in float32.

        Raises:
            PublisherError: it cannot be read, or lacks weights or a class that the parameters name.
        """
        import torch
        from transformers import AutoModelForImageClassification

        folder = place_of(self.files, self.params.weights)
        config = read_json(folder / CONFIG)
        self.places = places_of_classes(self.params.classes, config, folder / CONFIG)
        self.independent = independent(config)
        self.preparation = preparation_of(read_json(folder / PROCESSOR), str(folder / PROCESSOR))
        self.network, loading = AutoModelForImageClassification.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, dtype=torch.float32, output_loading_info=True
        )
        refuse_gaps(loading, folder)
        self.network.eval().to(device)
        self.device = device

    def unload(self) -> None:
        """Give the model's memory back."""
        del self.network

    def measured(self, images: Tensor, kind: str, labels: Sequence[str]) -> Tensor:  # noqa: ARG002 - there is one kind
        """Return the probability of each label in each image, ``(n, labels)``."""
        import torch

        logits = self.network(pixel_values=prepared(images, self.preparation).to(self.device)).logits
        if self.independent:
            return torch.stack([logits.sigmoid()[:, self.places[label]].amax(1) for label in labels], dim=1)
        chances = logits.softmax(1)
        return torch.stack([chances[:, self.places[label]].sum(1).clamp(max=1) for label in labels], dim=1)


def independent(config: Mapping[str, Any]) -> bool:
    """Return whether the classes do not exclude each other."""
    return config.get("problem_type") == "multi_label_classification"


def places_of_classes(
    classes: Mapping[str, Sequence[str]], config: Mapping[str, Any], where: Path
) -> dict[str, list[int]]:
    """Return label -> numbers of its classes.

    Args:
        classes: label -> names.
        config: of the model, with ``id2label``.
        where: path of the configuration, for errors.

    Raises:
        ModelError: the model does not name its classes.
        UsageError: it has no class of a name; the message lists near ones.
    """
    known = {str(name): int(number) for number, name in (config.get("id2label") or {}).items()}
    if not known:
        raise ModelError("the configuration has no names of classes (id2label)", where=str(where))
    for label, names in classes.items():
        for name in names:
            if name not in known:
                near = get_close_matches(name, known, n=3, cutoff=0.4) or list(known)[:5]
                hint = f"Near ones: {', '.join(map(repr, near))}. It has {len(known)} classes."
                raise UsageError(
                    f"{label!r} names the class {name!r}, which it does not have", where=str(where), hint=hint
                )
    return {label: [known[name] for name in names] for label, names in classes.items()}
