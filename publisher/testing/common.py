"""Rules of every kind of plugin: it can be registered, imports no torch, and reads its parameters strictly."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from publisher.registry.load import WITH_PARAMS, why_refused
from publisher.testing.plugin import PluginUnderTest, Rule, demand, tiny_folder

_HEAVY: dict[str, list[str]] = {}
"""Question -> what was imported when it was answered."""


def registers(one: PluginUnderTest) -> None:
    """Demand that the registry takes the class, and that its summary is there for ``publisher plugins``."""
    reason = why_refused(one.plugin, one.kind)
    demand(not reason, f"the registry sets it aside: {reason}")
    demand(one.plugin.summary, "it has no summary: the list of plugins has nothing to say about it")
    demand((one.plugin.__doc__ or "").strip(), "it has no docstring: nobody can be shown what it does")


def without_torch(one: PluginUnderTest) -> None:
    """Demand that a fresh process imports it, and asks what a plan asks, without torch, diffusers and transformers."""
    answer_all([one])
    heavy = _HEAVY[_question(one)]
    demand(
        not heavy,
        f"importing it, or what a plan asks it, imports {', '.join(heavy)}: import them in the methods that compute",
    )


def answer_all(plugins: Sequence[PluginUnderTest]) -> None:
    """Find out what these plugins import, all in one fresh process; what is known already is not asked again.

    Raises:
        BrokenRuleError: a plugin crashed there, or its module cannot be imported by name.
    """
    questions = [question for one in plugins if (question := _question(one)) not in _HEAVY]
    if not questions:
        return
    text = json.dumps({"path": sys.path, "model": str(tiny_folder()), "questions": [json.loads(q) for q in questions]})
    command = [sys.executable, "-m", "publisher.testing.probe"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)  # noqa: S603 - ourselves
    demand(done.returncode == 0, f"a fresh process could not import and ask it:\n{done.stderr[-2000:]}")
    _HEAVY.update(zip(questions, json.loads(done.stdout.splitlines()[-1]), strict=True))


def _question(one: PluginUnderTest) -> str:
    return json.dumps(
        {
            "kind": one.kind,
            "module": one.plugin.__module__,
            "name": one.plugin.__qualname__,
            "params": None if one.params is None else one.params.as_json(),
            "scope": one.scope.as_json(),
            "files": {name: str(path) for name, path in _files(one).items()},
            "folder": str(one.place) if one.folder or one.configs else "",
        }
    )


def _files(one: PluginUnderTest) -> Mapping[str, Path]:
    return one.inputs if one.kind in ("step", "scorer") else {}


def parameters_round_trip(one: PluginUnderTest) -> None:
    """Demand that parameters survive JSON: they stand in plans, reports and keys."""
    again = type(one.params).parse(one.params.as_json())
    demand(again == one.params, f"its parameters are {again!r} once they were JSON, and {one.params!r} before")


def unknown_keys_refused(one: PluginUnderTest) -> None:
    """Demand that a key that nobody knows is an error: a typing error must not become a default."""
    try:
        one.plugin.Params.parse({**one.given, "no-such-parameter": 1})
    except ValidationError:
        return
    demand(condition=False, what="its parameters accept a key that they do not know: keep api.Params' configuration")


def parameters_described(one: PluginUnderTest) -> None:
    """Demand a description of every parameter: reference pages and plans are made from it."""
    found: Mapping[str, Mapping[str, Any]] = one.plugin.Params.model_json_schema().get("properties", {})
    bare = sorted(name for name, schema in found.items() if not _described(schema))
    demand(not bare, f"no description has: {', '.join(bare)}. Write Field(description=...)")


def _described(schema: Mapping[str, Any]) -> bool:
    return bool(schema.get("description")) or "$ref" in schema


def picklable(one: PluginUnderTest) -> None:
    """Demand that class, instance and parameters can be sent to another process."""
    for what in (one.plugin, one.plugin(), one.params):
        try:
            again = pickle.loads(pickle.dumps(what))  # noqa: S301 - made here
        except Exception as error:  # noqa: BLE001 - pickle raises what it likes
            demand(condition=False, what=f"{what!r} cannot be pickled ({error}): put classes at the top of a module")
        else:
            demand(type(again) is type(what), f"{what!r} is {again!r} once it was pickled")


def rules(kind: str) -> dict[str, Rule]:
    """Return the rules of a kind that all kinds share."""
    found: dict[str, Rule] = {"registers": registers, "without-torch": without_torch}
    if kind in WITH_PARAMS:
        found |= {
            "parameters-round-trip": parameters_round_trip,
            "unknown-keys-refused": unknown_keys_refused,
            "parameters-described": parameters_described,
        }
    if kind in ("step", "attack", "metric"):
        found["picklable"] = picklable
    return found
