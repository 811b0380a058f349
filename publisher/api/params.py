"""The base of everything that is read from a manifest or kept as a record."""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler
from pydantic_core import CoreSchema


class Params(BaseModel):
    """Parameters of a step, attack, scorer or metric: strict, frozen, no unknown key, no NaN or infinity.

    Describe every field with ``Field(description=..., ge=..., le=...)`` or with a docstring below it: the JSON Schema
    and the reference pages are made from it. Sequences are tuples, so that the parameters can be neither changed nor
    shared by accident.
    """

    # Built when first used: of more than a hundred such classes most commands need a few. The docstrings of fields are
    # read for a schema alone, for the same reason.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, defer_build=True)

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler, /) -> dict[str, Any]:
        """Return the schema with the docstrings of fields that have no other description."""
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        for name, field in cls.model_fields.items():
            text = "" if field.description else _docstring(cls, name)
            found = properties.get(field.alias if field.alias in properties else name)
            if text and found is not None:
                found["description"] = text
        return schema

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


def _docstring(cls: type[Params], name: str) -> str:
    """Return what stands below a field in the class that declares it last; empty: nothing does."""
    declares = next(one for one in cls.__mro__ if name in inspect.get_annotations(one))
    return _docstrings(declares).get(name, "")


@cache
def _docstrings(cls: type) -> dict[str, str]:
    """Return attribute -> the text below it; of a class whose source is not there, nothing."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError, SyntaxError):
        return {}
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    return {
        field.target.id: inspect.cleandoc(below.value.value)
        for field, below in pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str)
    }
