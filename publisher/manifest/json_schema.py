"""One JSON Schema (2020-12) for manifests, with the parameters of every installed plugin: for editors."""

from __future__ import annotations

from typing import Any

from publisher.api import Params
from publisher.manifest.catalog import Catalog
from publisher.manifest.schema import Manifest

DIALECT = "https://json-schema.org/draft/2020-12/schema"

Schema = dict[str, Any]


def manifest_schema(catalog: Catalog) -> Schema:
    """Return the schema: ``with`` depends on ``use``, and names are those of installed plugins."""
    schema = Manifest.model_json_schema()
    definitions: Schema = schema["$defs"]
    scorers = _usable(catalog, "scorer")
    _name(definitions["Evaluate"], "scorer", scorers)
    _name(definitions["Evaluate"], "executor", _usable(catalog, "executor"))
    for section, key in (("Keep", "rest_of"), ("Check", "scorer")):  # an entry's id may stand there too
        definitions[section]["properties"][key]["examples"] = list(scorers)
    _plugins(definitions, "ScorerEntry", ("scorer", "use", "with"), catalog)
    _plugins(definitions, "ExecutorEntry", ("executor", "use", "with"), catalog)
    _plugins(definitions, "StepEntry", ("step", "use", "with"), catalog)
    _plugins(definitions, "Check", ("attack", "attack", "attack_params"), catalog)
    _plugins(definitions, "Check", ("metric", "metric", "metric_params"), catalog)
    return {"$schema": DIALECT, **schema}


def _usable(catalog: Catalog, kind: str) -> tuple[str, ...]:
    """Return the names that one plugin alone provides."""
    return tuple(name for name in catalog.names(kind) if catalog.conflict(kind, name) is None)


def params_schema(model: type[Params], prefix: str) -> tuple[Schema, Schema]:
    """Return a parameter model's schema and its definitions, whose names begin with ``prefix``."""
    schema = model.model_json_schema(ref_template=f"#/$defs/{prefix}.{{model}}")
    definitions = {f"{prefix}.{name}": definition for name, definition in schema.pop("$defs", {}).items()}
    return schema, definitions


def _name(section: Schema, key: str, names: tuple[str, ...]) -> None:
    """Let ``key`` be one of ``names``."""
    value = section["properties"][key]
    options = value.get("anyOf", [value])
    text = next(option for option in options if option.get("type") == "string")
    text.pop("minLength", None)
    text["enum"] = list(names)


def _plugins(definitions: Schema, section: str, keys: tuple[str, str, str], catalog: Catalog) -> None:
    """Let the parameters' key depend on the name's."""
    kind, name_key, params_key = keys
    entry = definitions[section]
    names = _usable(catalog, kind)
    _name(entry, name_key, names)
    for name in names:
        prefix = f"{kind}.{name}"
        definitions[prefix], more = params_schema(catalog.params(kind, name), prefix)
        definitions.update(more)
        then: Schema = {"properties": {params_key: {"$ref": f"#/$defs/{prefix}"}}}
        if definitions[prefix].get("required"):
            then["required"] = [params_key]
        rule = {"if": {"properties": {name_key: {"const": name}}, "required": [name_key]}, "then": then}
        entry.setdefault("allOf", []).append(rule)
