"""Whether a pipeline can generate with a model, as far as its configurations say: known before anything is loaded."""

from __future__ import annotations

from publisher.api import TextEncoder
from publisher.errors import ModelError
from publisher.model.folder import ModelFolder, read_json

LENGTHS = ("model_max_length", "max_len")
"""Keys of a tokenizer that say how long a prompt may be."""


def require_usable(model: ModelFolder) -> None:
    """Refuse a model that does not say how long its prompts are.

    Raises:
        ModelError: nobody's pipeline could generate with it; the message says which file to complete.
    """
    for part in model.anatomy.text_encoders:
        if part.kind == "clip":
            _require_length(model, part)


def _require_length(model: ModelFolder, part: TextEncoder) -> None:
    """Refuse a tokenizer without a length that its encoder has positions for: pipelines pad prompts to it."""
    positions = model.config(part.component).get("max_position_embeddings", 77)
    path = model.path / part.tokenizer / "tokenizer_config.json"
    config = read_json(path) if path.is_file() else {}
    said = [config[key] for key in LENGTHS if config.get(key) is not None]
    if not said or not 2 < said[0] <= positions:
        found = f"{LENGTHS[0]} is {said[0]:.4g}" if said else f"there is no {LENGTHS[0]}"
        raise ModelError(
            f"{found}, and the {part.component} reads {positions} tokens: pipelines cannot pad a prompt",
            where=str(path),
            hint=f'Write "{LENGTHS[0]}": {positions} into it.',
        )
