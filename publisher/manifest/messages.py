"""pydantic's errors in plain words, each at its place in the file."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from publisher.api import Params
from publisher.manifest.nearest import suggestion
from publisher.manifest.places import Path, Problems

_PATTERNS = {
    r"^[a-z0-9][a-z0-9._-]{0,63}$": "1 to 64 lower-case letters, digits, '.', '_', '-', a letter or digit first",
    r"^[a-z0-9][a-z0-9._-]{0,127}$": "1 to 128 lower-case letters, digits, '.', '_', '-', a letter or digit first",
    r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$": "1 to 64 letters, digits, '.', '_', '-', a letter or digit first",
    r"^[0-9A-Za-z][0-9A-Za-z.+_-]{0,31}$": "1 to 32 letters, digits, '.', '+', '_', '-', a letter or digit first",
}
_NO_SECRETS = (
    "A manifest holds no secrets: export PUBLISHER_KEY=path/of/key.pem, and write only key_env: PUBLISHER_KEY."
)
_QUOTED = 60

Words = Callable[[str, ErrorDetails], str]

_WORDS: dict[str, Words] = {
    "string_type": lambda what, _: f"{what} must be text",
    "int_type": lambda what, _: f"{what} must be a whole number",
    "int_from_float": lambda what, _: f"{what} must be a whole number",
    "float_type": lambda what, _: f"{what} must be a number",
    "bool_type": lambda what, _: f"{what} must be true or false",
    "tuple_type": lambda what, _: f"{what} must be a list",
    "list_type": lambda what, _: f"{what} must be a list",
    "dict_type": lambda what, _: f"{what} must be a mapping (key: value)",
    "model_type": lambda what, _: f"{what} must be a mapping (key: value)",
    "literal_error": lambda what, error: f"{what} must be {error['ctx']['expected']}",
    "greater_than": lambda what, error: f"{what} must be more than {error['ctx']['gt']:g}",
    "greater_than_equal": lambda what, error: f"{what} must be at least {error['ctx']['ge']:g}",
    "less_than": lambda what, error: f"{what} must be less than {error['ctx']['lt']:g}",
    "less_than_equal": lambda what, error: f"{what} must be at most {error['ctx']['le']:g}",
    "string_pattern_mismatch": lambda what, error: f"{what} must be {_pattern(error['ctx']['pattern'])}",
    "string_too_long": lambda what, error: f"{what} must have at most {error['ctx']['max_length']} characters",
}
"""Type of pydantic's error -> what must be; what it is instead is added."""


def add_errors(
    error: ValidationError, model: type[Params], problems: Problems, prefix: Path = (), what: str = "manifest"
) -> None:
    """Put every error of a validation into ``problems``.

    Args:
        error: what pydantic found.
        model: the model that it validated with.
        problems: gets one problem each.
        prefix: where in the manifest the validated data stands.
        what: the file, as a sentence calls it.
    """
    schema = model.model_json_schema()
    for detail in error.errors(include_url=False):
        if problems.full:
            return
        if not _counts_wrong_entries(detail):
            _add(detail, schema, problems, prefix, f"the {what}")


def _counts_wrong_entries(error: ErrorDetails) -> bool:
    """Return whether a list is too short only because its wrong entries, which have errors, were left out."""
    return error["type"] == "too_short" and error["ctx"]["actual_length"] < len(error["input"])


def _add(error: ErrorDetails, schema: Mapping[str, Any], problems: Problems, prefix: Path, whole: str) -> None:
    path = (*prefix, *error["loc"])
    what, around = _what(path) or whole, _what(path[:-1]) or whole
    if error["type"] == "missing":
        name = str(path[-1])
        text = str(_properties(schema, error["loc"][:-1]).get(name, {}).get("description", "")).replace("``", "")
        problems.at_key(path[:-1], f"{around} lacks the key '{name}'.", f"{name}: {text}" if text else "")
    elif error["type"] == "extra_forbidden":
        known = _properties(schema, error["loc"][:-1])
        if name := _new_name(path, known):
            problems.at_key(path, f"the key '{path[-1]}' is called '{name}' now.")
            return
        hint = suggestion(str(path[-1]), known, "Known keys") + (f"\n{_NO_SECRETS}" if path[0] == "sign" else "")
        problems.at_key(path, f"{around} has no key {_quote(str(path[-1]))}.", hint)
    elif path[0] == "sign":  # what stands there can be a secret
        form = "the name of an environment variable" if len(path) > 1 else "a mapping (key: value)"
        problems.at_value(path, f"{what} must be {form}.", _NO_SECRETS)
    elif error["type"] in _WORDS:
        found, hint = _found(error, path, problems)
        problems.at_value(path, f"{_WORDS[error['type']](what, error)}, not {found}.", hint)
    else:
        problems.at_value(path, f"{what}: {_other(error)}.")


_RENAMED = {
    "trials": "seeds",
    "horizons": "evaluation_steps",
    "probes": "images_per_evaluation",
    "horizon": "evaluation_step",
}
"""Parameters of attacks and metrics that had another name -> the one of today."""


def _new_name(path: Path, known: Collection[str]) -> str:
    """Return what a key of an earlier manifest is called today, or an empty text.

    Args:
        path: of the key.
        known: keys that may stand there; a plugin's own parameters are its own.
    """
    if path == ("verify",):
        return "evaluate" if "evaluate" in known else ""
    if path == ("evaluate", "gold"):
        return "retrained"
    if path[:2] == ("evaluate", "checks") and path[3:] == ("guards",):
        return "membranes"
    name = _RENAMED.get(str(path[-1]), "")
    return name if name in known else ""


def _other(error: ErrorDetails) -> str:
    if error["type"] == "value_error":
        return str(error["ctx"]["error"]).rstrip(".")
    if error["type"] in {"too_short", "string_too_short"}:
        least = error["ctx"]["min_length"]
        return "must not be empty" if least == 1 else f"needs at least {least}"
    message = error["msg"]
    return message[:1].lower() + message[1:].rstrip(".")


def _what(path: Sequence[str | int]) -> str:
    """Return the thing at a path, as a sentence would call it; empty for the file as a whole."""
    names = [element for element in path if isinstance(element, str)]
    if not names:
        return ""
    if isinstance(path[-1], int):
        return f"entry {path[-1] + 1} of '{names[-1]}'"
    return f"'{names[-1]}'"


def _found(error: ErrorDetails, path: Path, problems: Problems) -> tuple[str, str]:
    """Return what stands there instead, as it was written, and what may help."""
    value = error["input"]
    written = problems.places.value(path).text
    wants_text = error["type"] == "string_type" or "'" in error.get("ctx", {}).get("expected", "")
    if value is None:
        return "nothing", f'If it is a word, put it in quotes: "{written}"' if wants_text and written.isalpha() else ""
    if isinstance(value, bool | int | float):
        number = "" if isinstance(value, bool) else "the number "
        return f"{number}{written or value}", f'Put it in quotes: "{written or value}"' if wants_text else ""
    if isinstance(value, str):
        hint = _choice(value, error) if error["type"] == "literal_error" else ""
        return f"the text {_quote(value)}", hint
    return ("a list" if isinstance(value, list | tuple) else "a mapping"), ""


def _choice(value: str, error: ErrorDetails) -> str:
    choices = [word.strip("' ") for word in error["ctx"]["expected"].replace(" or ", ",").split(",")]
    hint = suggestion(value, choices, "Choices")
    return hint.partition("  ")[0] if hint.startswith("Did") else ""


def _quote(text: str) -> str:
    return repr(text if len(text) <= _QUOTED else text[:_QUOTED] + "...")


def _pattern(pattern: str) -> str:
    return _PATTERNS.get(pattern, f"text of the form {pattern}")


def _properties(schema: Mapping[str, Any], path: Sequence[str | int]) -> dict[str, Any]:
    """Return the keys that the mapping at ``path`` may have -> their schemas."""
    nodes = [schema]
    for element in path:
        nodes = [child for node in _flat(nodes, schema) for child in _children(node, element)]
    return {name: child for node in _flat(nodes, schema) for name, child in node.get("properties", {}).items()}


def _flat(nodes: Sequence[Mapping[str, Any]], root: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the schemas with references followed and alternatives side by side."""
    result: list[Mapping[str, Any]] = []
    for node in nodes:
        if "$ref" in node:
            result += _flat([root["$defs"][node["$ref"].rpartition("/")[2]]], root)
        else:
            result += [node, *_flat([*node.get("anyOf", ()), *node.get("oneOf", ())], root)]
    return result


def _children(node: Mapping[str, Any], element: str | int) -> list[Mapping[str, Any]]:
    if isinstance(element, int):
        return [node["items"]] if "items" in node else []
    if element in node.get("properties", {}):
        return [node["properties"][element]]
    others = node.get("additionalProperties")
    return [others] if isinstance(others, dict) else []
