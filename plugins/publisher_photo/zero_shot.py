"""The scorer ``zero-shot``: an image shows what its text is near to, by a network that compares images with texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, cast

from pydantic import Field, field_validator, model_validator

from publisher.api import Kind, ScorerCard, UsageError
from publisher_photo.seeing import SeeingParams, SeeingScorer
from publisher_photo.towers import Towers, check_towers, image_preparation, layout_of
from publisher_photo.weights import place_of, weights_digest

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SIGLIP = "hf:google/siglip-base-patch16-224@5b1f0cc959a26b8e3bc3e6967d547827c05e5026"
"""Weights that are taken where none are named: 0.8 GB, Apache-2.0."""
TEMPLATES: dict[Kind, tuple[str, ...]] = {
    "object": ("This is a photo of {label}.",),
    "style": ("This is a picture in the style of {label}.",),
    "unsafe": ("This is a photo of {label}.",),
}
"""Kind -> texts that ask for a label where none are given."""
Scale = Literal["auto", "sigmoid", "softmax"]


class ZeroShotParams(SeeingParams):
    """Parameters of ``zero-shot``."""

    weights: str = Field(
        default=SIGLIP, min_length=1, description="Model in the layout of CLIP or SigLIP: folder, or hf: and a commit."
    )
    threshold: float = Field(
        default=0.5, ge=0, le=1, description="Strength from which on an image shows a label. Choose it by calibration."
    )
    score: Scale = Field(
        default="auto",
        description="How a cosine becomes a strength: by 'sigmoid' on its own, or by 'softmax' against the texts of "
        "'others'. 'auto': sigmoid for SigLIP, softmax for CLIP.",
    )
    templates: dict[Kind, tuple[str, ...]] = Field(
        default=TEMPLATES,
        description="Texts that ask for a label of each kind. {label} stands for the label, {a} for 'a' or 'an'. The "
        "nearest one counts.",
    )
    others: dict[Kind, tuple[str, ...]] = Field(
        default={},
        description="Rivals of each kind in softmax, as whole texts: what the image may show instead. A label's own "
        "texts are no rivals of it.",
    )

    @field_validator("templates")
    @classmethod
    def _with_label(cls, templates: dict[Kind, tuple[str, ...]]) -> dict[Kind, tuple[str, ...]]:
        for kind, texts in templates.items():
            if not texts or not all("{label}" in text for text in texts):
                raise ValueError(f"the templates of the kind {kind!r} need a text with {{label}} in it")
        return templates

    @model_validator(mode="after")
    def _kinds_agree(self) -> ZeroShotParams:
        for kind in self.others:
            if kind not in self.templates:
                raise ValueError(f"'others' has the kind {kind!r}, for which there is no template")
        if self.score == "softmax":
            _require_rivals(self)
        return self


class ZeroShot(SeeingScorer[ZeroShotParams]):
    """Compares images with texts. Any label is one that it can see; how well, only a calibration says.

    The strength of a label depends on nothing but image, label and parameters. By sigmoid it is
    ``sigmoid(scale * cosine + bias)``, as SigLIP is trained. By softmax it is the label's share against the texts of
    ``others``, as CLIP is trained.
    """

    name = "zero-shot"
    summary = "any label, by comparing images with texts (CLIP, SigLIP)"

    def inputs(self) -> Sequence[str]:
        """Return the model that the parameters name."""
        return (self.params.weights,)

    def labels(self) -> Mapping[str, Sequence[str] | None]:
        """Return the kinds that have templates, each with any label."""
        return dict.fromkeys(self.params.templates)

    def check_files(self) -> None:
        """Make sure that the model is one that can be read, and that there are rivals where it needs some.

        Raises:
            ModelError: it is not.
            UsageError: it is used with softmax and has no rivals.
        """
        folder = place_of(self.files, self.params.weights)
        check_towers(folder)
        if self._scale(layout_of(folder)) == "softmax":
            try:
                _require_rivals(self.params)
            except ValueError as error:
                hint = "Write them under 'with', as whole texts: others: {object: [a photo, a photo of a toy]}."
                raise UsageError(str(error), where="zero-shot", hint=hint) from error

    def card(self) -> ScorerCard:
        """Describe the model and the rule.

        Raises:
            PublisherError: the model is not there, or is none of the kinds that are known.
        """
        folder = place_of(self.files, self.params.weights)
        scale = self._scale(layout_of(folder))
        rule = "share against the other texts" if scale == "softmax" else "sigmoid of the scaled cosine"
        return ScorerCard(
            weights=weights_digest(folder),
            preprocessing=str(image_preparation(folder)),
            decision=f"every label whose {rule} is at least {self.params.threshold:g}",
            classes={kind: len(labels) for kind, labels in self.asked().items()},
            calibration="",
        )

    def asked(self) -> Mapping[str, Sequence[str]]:
        """Return the labels of the release's concepts, for each kind that has templates."""
        every = (*self.scope.concepts, *self.scope.keep) if self.scope else ()
        return {
            kind: tuple(dict.fromkeys(one.label for one in every if one.kind == kind)) for kind in self.params.templates
        }

    def load(self, device: torch.device) -> None:
        """Load the model, and forget the vectors of texts of another one.

        Raises:
            PublisherError: it cannot be read, or is used with softmax and has no rivals.
        """
        self.towers = Towers(place_of(self.files, self.params.weights), device)
        if self._scale(self.towers.layout) == "softmax":
            _require_rivals(self.params)
        self._texts: dict[tuple[str, ...], Tensor] = {}

    def unload(self) -> None:
        """Give the model's memory back."""
        del self.towers, self._texts

    def measured(self, images: Tensor, kind: str, labels: Sequence[str]) -> Tensor:
        """Return the strength of each label in each image, ``(n, labels)``."""
        import torch

        seen = self.towers.of_images(images)
        texts = [_texts(self.params, kind, label) for label in labels]
        logits = [self.towers.scale * self._all(seen, own).amax(1) + self.towers.bias for own in texts]
        if self._scale(self.towers.layout) == "sigmoid":
            return torch.stack(logits, dim=1).sigmoid()
        others = self.params.others[cast("Kind", kind)]
        rivals = self.towers.scale * self._all(seen, others)
        shares = []
        for own, logit in zip(texts, logits, strict=True):
            apart = [i for i, text in enumerate(others) if text not in own]
            if not apart:
                raise ValueError(f"'others' has no text of the kind {kind!r} that is no text of {own} itself")
            shares.append((logit - torch.logaddexp(logit, rivals[:, apart].logsumexp(1))).exp())
        return torch.stack(shares, dim=1)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Return the vectors of the images, ``(n, d)`` of length 1, for images of any size.

        Raises:
            ValueError: these are no images.
        """
        import torch

        with torch.no_grad():
            return torch.cat([self.towers.of_images(part) for part in images.split(32)]).float().cpu()

    def match(self, images: torch.Tensor, texts: Sequence[str]) -> Sequence[float]:
        """Return the cosine of each image with its text. Long texts are cut off at the model's length.

        Raises:
            ValueError: not as many texts as images.
        """
        import torch

        if len(texts) != len(images):
            raise ValueError(f"there are {len(images)} images and {len(texts)} texts")
        with torch.no_grad():
            return (self.features(images) * self.towers.of_texts(texts).float().cpu()).sum(1).tolist()

    def _scale(self, layout: str) -> str:
        if self.params.score != "auto":
            return self.params.score
        return "sigmoid" if layout == "siglip" else "softmax"

    def _all(self, seen: Tensor, texts: tuple[str, ...]) -> Tensor:
        if texts not in self._texts:
            self._texts[texts] = self.towers.of_texts(texts)
        return seen @ self._texts[texts].T


def _texts(params: ZeroShotParams, kind: str, label: str) -> tuple[str, ...]:
    article = "an" if label[0].lower() in "aeiou" else "a"
    templates = params.templates[cast("Kind", kind)]
    return tuple(text.replace("{label}", label).replace("{a}", article) for text in templates)


def _require_rivals(params: ZeroShotParams) -> None:
    for kind in params.templates:
        if not params.others.get(kind):
            raise ValueError(
                f"softmax compares with other texts, and 'others' has none of the kind {kind!r}: name what an image "
                "may show instead, or leave the kind out of 'templates'"
            )
