"""The manifest's reference page and JSON Schema file, made from the models and the installed plugins."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from publisher.api import Check, Gate, Params, Sampling
from publisher.manifest import schema
from publisher.manifest.catalog import Catalog
from publisher.manifest.json_schema import manifest_schema
from publisher.manifest.reader import MAX_BYTES, MAX_DEPTH, MAX_VALUES

COMMAND = "python docs/make_reference.py"
"""Writes both files again."""

_SECTIONS: tuple[tuple[str, type[Params]], ...] = (
    ("The whole file", schema.Manifest),
    ("release", schema.Release),
    ("prompts", schema.Prompts),
    ("concepts and keep.concepts", schema.ConceptEntry),
    ("keep", schema.Keep),
    ("steps", schema.StepEntry),
    ("evaluate", schema.Evaluate),
    ("evaluate.scorers", schema.ScorerEntry),
    ("evaluate.executor", schema.ExecutorEntry),
    ("evaluate.sampling", Sampling),
    ("evaluate.checks", Check),
    ("evaluate.gates, and the gate of a check", Gate),
    ("sign", schema.Sign),
)

_WITH_PARAMS = (
    ("step", "with"),
    ("attack", "attack_params"),
    ("metric", "metric_params"),
    ("scorer", "with"),
    ("executor", "with"),
)

_HEAD = f"""\
# The manifest

<!-- Made by `{COMMAND}` from the code; do not edit. -->

A manifest is one YAML file, at most {MAX_BYTES // 1024} KiB, {MAX_VALUES:,} values and {MAX_DEPTH} levels deep. Plain \
values follow the core schema of YAML 1.2: `no`, `yes` and `2026-11-22` are text, `1e-3` and `1.0` are numbers and \
`"1.0"` is text. Anchors, aliases, tags, merge keys, repeated keys and keys that are not text are refused; so is a \
key that is not listed here. All problems are reported at once, each with its line and column.

An editor that knows YAML completes and checks a manifest that begins with

```yaml
# yaml-language-server: $schema=../docs/reference/manifest.schema.json
```

The schema beside this page knows the plugins that come with publisher; `publisher schema manifest` prints one with \
yours as well.
"""


def schema_text(catalog: Catalog) -> str:
    """Return the content of ``manifest.schema.json``."""
    return json.dumps(manifest_schema(catalog), indent=2, ensure_ascii=False) + "\n"


def reference_page(catalog: Catalog) -> str:
    """Return the content of ``manifest.md``."""
    lines = [_HEAD]
    for title, model in _SECTIONS:
        lines += [f"## {title}", "", *section_lines(model)]
    for kind, where in _WITH_PARAMS:
        for name in (name for name in catalog.names(kind) if _has_params(kind, name, catalog)):
            lines += [f"## The {kind} `{name}`: `{where}`", "", *section_lines(catalog.params(kind, name))]
    lines += ["## Names", "", *_names(catalog)]
    return "\n".join(lines)


def _has_params(kind: str, name: str, catalog: Catalog) -> bool:
    return kind not in ("scorer", "executor") or bool(catalog.params(kind, name).model_fields)


def section_lines(model: type[Params]) -> Iterator[str]:
    """Yield description and table of a model, then those of models inside it without a section of their own."""
    data = model.model_json_schema()
    yield from _table(data)
    own = {other.__name__ for _, other in _SECTIONS}
    for name, definition in sorted(data.get("$defs", {}).items()):
        if name not in own and "properties" in definition:
            yield from (f"### {name}", "", *_table(definition))


def _table(data: Mapping[str, Any]) -> Iterator[str]:
    yield from (_markdown(data.get("description", "")), "")
    if not data.get("properties"):
        return
    yield from ("| key | value | default | meaning |", "|---|---|---|---|")
    required = data.get("required", ())
    for name, field in data["properties"].items():
        default = "required" if name in required else _default(field)
        meaning = _markdown(field.get("description", "")).replace("\n", " ")
        yield f"| `{name}` | {_type(field)} | {default} | {_cell(meaning)} |"
    yield ""


def _names(catalog: Catalog) -> Iterator[str]:
    for kind in ("scorer", "executor", "source"):
        yield f"- {kind}: {', '.join(f'`{name}`' for name in catalog.names(kind))}"
    for scorer in catalog.names("scorer"):
        for kind, labels in _default_labels(scorer, catalog):
            known = "any" if labels is None else ", ".join(labels)
            yield f"- labels of the kind {kind} of the scorer `{scorer}`: {known}"
    yield ""


def _default_labels(scorer: str, catalog: Catalog) -> Iterable[tuple[str, Sequence[str] | None]]:
    """Return the labels with default parameters; none where a parameter has no default."""
    required = any(field.is_required() for field in catalog.params("scorer", scorer).model_fields.values())
    return () if required else catalog.labels(scorer, {}).items()


def _default(field: Mapping[str, Any]) -> str:
    default = field.get("default")
    if default in (None, [], {}, "") and not isinstance(default, bool):
        return "none"
    if isinstance(default, dict):
        return "see below"
    return f"`{json.dumps(default)}`"


def _type(field: Mapping[str, Any]) -> str:
    """Return a field's type in words."""
    if "$ref" in field:
        return str(field["$ref"]).rpartition("/")[2]
    if "const" in field:
        return f"`{json.dumps(field['const'])}`"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "anyOf" in field:
        return " or ".join(_type(option) for option in field["anyOf"] if option != {"type": "null"})
    return _plain_type(field)


def _plain_type(field: Mapping[str, Any]) -> str:
    kind = field.get("type")
    if kind == "array":
        return f"list of {_type(field['items'])}"
    if kind == "object":
        values = field.get("additionalProperties")
        return f"mapping to {_type(values)}" if isinstance(values, dict) else "mapping"
    words = {"string": "text", "integer": "whole number", "number": "number", "boolean": "`true`, `false`"}
    return words.get(str(kind), "anything") + _bounds(field)


def _bounds(field: Mapping[str, Any]) -> str:
    """Return the bounds of a number, such as ``" >= 1"``."""
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {field[key]:,}" for key, sign in signs.items() if key in field]
    return f" {', '.join(bounds)}" if bounds else ""


def _markdown(text: str) -> str:
    return text.replace("``", "`")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
