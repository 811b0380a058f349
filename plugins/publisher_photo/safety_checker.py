"""The scorer ``safety-checker``: the filter that comes with Stable Diffusion 1.x, whose weights lie in the base model.

It compares CLIP's vector of an image with 17 hidden directions, all about sexual content, and is stricter where one of
three further directions is near (Rando et al. 2022, "Red-Teaming the Stable Diffusion Safety Filter").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from publisher.api import ModelError, ScorerCard
from publisher_photo.pixels import Preparation, prepared
from publisher_photo.seeing import SeeingParams, SeeingScorer
from publisher_photo.weights import CONFIG, place_of, read_json, refuse_gaps, weight_files, weights_digest

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""What CLIP's pixels are normalised with; the checker has no file that says so."""
STRICTER = 0.01
"""What is added to all 17 where one of the three special directions is near."""


class SafetyCheckerParams(SeeingParams):
    """Parameters of ``safety-checker``."""

    weights: str = Field(
        min_length=1,
        description="Folder 'safety_checker' of the base model, such as hf:org/name@commit/safety_checker.",
    )
    threshold: float = Field(
        default=0.001,
        ge=-1,
        le=1,
        description="How far, to three digits, a cosine lies above its own bound. 0.001 is the filter as it ships.",
    )
    label: str = Field(default="nudity", min_length=1, description="Label that concepts of the kind 'unsafe' have.")


class SafetyChecker(SeeingScorer[SafetyCheckerParams]):
    """Judges as the filter of Stable Diffusion 1.x does, without blacking anything out."""

    name = "safety-checker"
    summary = "nudity, as Stable Diffusion's own filter sees it"

    def inputs(self) -> Sequence[str]:
        """Return the folder that the parameters name."""
        return (self.params.weights,)

    def labels(self) -> Mapping[str, Sequence[str]]:
        """Return the one label."""
        return {"unsafe": (self.params.label,)}

    asked = labels

    def check_files(self) -> None:
        """Make sure that this is a safety checker with weights.

        Raises:
            ModelError: it is not.
        """
        folder = place_of(self.files, self.params.weights)
        _preparation(read_json(folder / CONFIG), str(folder / CONFIG))
        weight_files(folder)

    def card(self) -> ScorerCard:
        """Describe network and rule.

        Raises:
            PublisherError: the weights are not there.
        """
        folder = place_of(self.files, self.params.weights)
        return ScorerCard(
            weights=weights_digest(folder),
            preprocessing=str(_preparation(read_json(folder / CONFIG), str(folder / CONFIG))),
            decision=f"one of 17 cosines lies at least {self.params.threshold:g} above its own bound",
            classes={"unsafe": 1},
            calibration="",
        )

    def load(self, device: torch.device) -> None:
        """Load the network in float32.

        Raises:
            PublisherError: it cannot be read, or lacks weights.
        """
        import torch
        from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

        folder = place_of(self.files, self.params.weights)
        self.preparation = _preparation(read_json(folder / CONFIG), str(folder / CONFIG))
        self.network, loading = StableDiffusionSafetyChecker.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, dtype=torch.float32, output_loading_info=True
        )
        refuse_gaps(loading, folder)
        self.network.eval().to(device)
        self.device = device

    def unload(self) -> None:
        """Give the network's memory back."""
        del self.network

    def measured(self, images: Tensor, kind: str, labels: Sequence[str]) -> Tensor:  # noqa: ARG002 - there is one label
        """Return how far the nearest direction lies above its bound, to three digits, ``(n, 1)``."""
        from torch.nn.functional import normalize

        net = self.network
        pooled = net.vision_model(prepared(images, self.preparation).to(self.device)).pooler_output
        seen = normalize(net.visual_projection(pooled), dim=1)
        special = seen @ normalize(net.special_care_embeds, dim=1).T - net.special_care_embeds_weights
        strict = (special.round(decimals=3) > 0).any(1, keepdim=True) * STRICTER
        above = seen @ normalize(net.concept_embeds, dim=1).T - net.concept_embeds_weights + strict
        return above.amax(1, keepdim=True).round(decimals=3)


def _preparation(config: Mapping[str, object], where: str) -> Preparation:
    vision = config.get("vision_config")
    if config.get("model_type") != "clip" or not isinstance(vision, dict):
        hint = "Name the folder 'safety_checker' of a model of Stable Diffusion 1.x."
        raise ModelError("this is no safety checker", where=where, hint=hint)
    side = int(vision.get("image_size", 224))
    return Preparation(side, side, side, "bicubic", CLIP_MEAN, CLIP_STD)
