"""The base of everything that is read from a manifest or kept as a record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict


class Params(BaseModel):
    """Parameters of a step, attack, scorer or metric: strict, frozen, no unknown key, no NaN or infinity.

    Describe every field with ``Field(description=..., ge=..., le=...)``: the JSON Schema, the reference pages and the
    plan are made from it. Sequences are tuples, so that the parameters can be neither changed nor shared by accident.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Self:
        """Validate JSON-like data (lists become tuples, text is never read as a number).

        Raises:
            pydantic.ValidationError: with all problems, each with the path to its value.
        """
        return cls.model_validate_json(json.dumps(data))

    def as_json(self) -> dict[str, Any]:
        """Return the parameters as JSON data, defaults written out; ``parse`` of it gives an equal object."""
        return self.model_dump(mode="json")
