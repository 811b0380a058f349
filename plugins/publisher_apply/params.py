"""Parameters of the step ``apply``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from publisher.api import Credit, Params


class ForeignWeights(Params):
    """One file or folder with weights that were made elsewhere."""

    path: str = Field(min_length=1)
    """Place of it: a diffusers folder, one component's folder, a safetensors file with some tensors of a component, or
    a LoRA. A path seen from the manifest, or ``hf:org/name@`` and the 40 hexadecimal digits of a commit, where a path
    inside the repository may follow."""
    component: str | None = None
    """Folder of the model that its tensors belong to, such as ``unet``. Default: found by the tensors' names."""
    scale: float = Field(default=1.0, ge=-10, le=10)
    """Strength at which a LoRA is added. Other weights have none."""


def _as_entries(given: Any) -> Any:
    """Return the short forms, one path or one entry, as a list of entries."""
    entries = given if isinstance(given, list | tuple) else [given]
    return tuple({"path": one} if isinstance(one, str) else one for one in entries)


class ApplyParams(Params):
    """Parameters of ``apply``: what is put onto the base model, and who made it."""

    model_config = ConfigDict(serialize_by_alias=True)

    weights: Annotated[
        tuple[ForeignWeights, ...],
        Field(alias="from", min_length=1),
        BeforeValidator(_as_entries, json_schema_input_type=str | ForeignWeights | tuple[str | ForeignWeights, ...]),
    ]
    """ForeignWeights that are put onto the model, in this order: a path, an entry, or a list of both."""
    source: Credit = Credit()
    """Maker of the weights: name, url, licence and method, for report and model card. Nobody checks it."""
    differences: Literal["refuse", "keep-base"] = "refuse"
    """What to do where a folder's configurations, scheduler or tokenizer differ from the base model's. ``keep-base``:
    the base model's stay, and every difference is a warning."""
