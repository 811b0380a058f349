"""Networks that put images and texts into one space: the layouts CLIP and SigLIP of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from publisher.api import ModelError
from publisher_photo.pixels import Preparation, preparation_of, prepared
from publisher_photo.weights import CONFIG, PROCESSOR, read_json, refuse_gaps, weight_files

if TYPE_CHECKING:
    import torch
    from torch import Tensor

LAYOUTS = ("clip", "siglip")
"""Types of model that are known."""


def layout_of(folder: Path) -> str:
    """Return ``"clip"`` or ``"siglip"``, from the model's configuration. Imports no torch.

    Raises:
        ModelError: it is of another type.
    """
    found = read_json(folder / CONFIG).get("model_type")
    if found not in LAYOUTS:
        hint = f"Known are: {', '.join(LAYOUTS)}. A classifier of images is used by the scorer 'classifier'."
        raise ModelError(f"a model of type {found!r} does not compare images with texts", where=str(folder), hint=hint)
    return str(found)


def image_preparation(folder: Path) -> Preparation:
    """Return what a model's folder says of pixels.

    Raises:
        ModelError: it does not say, or something that is not known.
    """
    path = folder / PROCESSOR
    return preparation_of(read_json(path), str(path))


def check_towers(folder: Path) -> None:
    """Make sure that a folder has a model of one of the :data:`LAYOUTS`. Imports no torch.

    Raises:
        ModelError: it has not.
    """
    layout_of(folder)
    image_preparation(folder)
    weight_files(folder)


class Towers:
    """A loaded model of one of the :data:`LAYOUTS`, in float32.

    Args:
        folder: of the model.
        device: where it is computed.

    Raises:
        ModelError: it is of another type, or lacks weights.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        import torch
        from transformers import AutoTokenizer, CLIPModel, SiglipModel

        self.layout = layout_of(folder)
        self.preparation = image_preparation(folder)
        cls = CLIPModel if self.layout == "clip" else SiglipModel
        self.model, loading = cls.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, dtype=torch.float32, output_loading_info=True
        )
        refuse_gaps(loading, folder)
        self.model.eval().to(device)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.device = device

    def of_images(self, images: Tensor) -> Tensor:
        """Return vectors of length 1, ``(n, d)``, for ``(n, 3, h, w)`` in [0, 1]."""
        from torch.nn.functional import normalize

        pixels = prepared(images, self.preparation).to(self.device)
        vectors = self.model.vision_model(pixel_values=pixels).pooler_output
        if self.layout == "clip":
            vectors = self.model.visual_projection(vectors)
        return normalize(vectors, dim=1)

    def of_texts(self, texts: Sequence[str]) -> Tensor:
        """Return vectors of length 1, ``(n, d)``. Long texts are cut off, as they were in training.

        SigLIP has learned texts in lower case that are padded to its full length. Its vectors of other texts are wrong.
        """
        from torch.nn.functional import normalize

        most = self.model.config.text_config.max_position_embeddings
        options = {"truncation": True, "max_length": most, "return_tensors": "pt"}
        if self.layout == "siglip":
            tokens = self.tokenizer([text.lower() for text in texts], padding="max_length", **options)
            return normalize(self.model.text_model(tokens["input_ids"].to(self.device)).pooler_output, dim=1)
        tokens = self.tokenizer(list(texts), padding=True, **options).to(self.device)
        vectors = self.model.text_model(**{name: tokens[name] for name in ("input_ids", "attention_mask")})
        return normalize(self.model.text_projection(vectors.pooler_output), dim=1)

    @property
    def scale(self) -> float:
        """Number that the model multiplies cosines with."""
        return float(self.model.logit_scale.exp())

    @property
    def bias(self) -> float:
        """Number that SigLIP then adds; 0 in CLIP."""
        return float(self.model.logit_bias) if self.layout == "siglip" else 0.0
