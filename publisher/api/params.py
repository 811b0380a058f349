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

    def filled(self, values: Mapping[str, Any]) -> Self:
        """Return the parameters with these values in place of defaults; what was given by name stays.

        Parameters that hold parameters themselves are filled in the same way. None counts as not given where it is the
        default.

        Args:
            values: name -> JSON-like value, such as a preset of a step.

        Raises:
            pydantic.ValidationError: they do not go with what was given.
        """
        data = self.model_dump(mode="json", exclude_unset=True)
        for name, value in values.items():
            field, mine = type(self).model_fields[name], getattr(self, name)
            key = field.alias or name
            if isinstance(mine, Params) and isinstance(value, Mapping):
                data[key] = mine.filled(value).model_dump(mode="json", exclude_unset=True)
            elif name not in self.model_fields_set or (mine is None and field.default is None):
                data[key] = value
        return self.parse(data)

    def as_json(self) -> dict[str, Any]:
        """Return the parameters as JSON data, defaults written out; ``parse`` of it gives an equal object."""
        return self.model_dump(mode="json")
