"""A validator of JSON documents. The library takes seconds to import, so only a test that validates imports it."""

from __future__ import annotations

from typing import Any


def validating(schema: Any) -> Any:
    """Return the validator of a schema, which is one itself."""
    from jsonschema import Draft202012Validator

    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)
