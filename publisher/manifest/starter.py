"""The first manifest of a model: a dozen lines, everything else by defaults."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from publisher.api import ModelDefaults

_PLACE = 46
"""Column at which comments stand."""


def starter(name: str, reference: str, defaults: ModelDefaults, steps: Mapping[str, str]) -> str:
    """Return the text of a manifest that can be released, or needs its concepts alone.

    Args:
        name: of the release.
        reference: of the model, as a manifest beside it names it.
        defaults: what the model's source knows.
        steps: name of each step -> what it is for, in one line; in their order.
    """
    concepts = defaults.examples or ("{id: van-gogh, kind: style, name: Vincent van Gogh}",)
    change = "what is to go" if defaults.examples else "what is to go: change this"
    lines = [
        "# A release by defaults: `publisher plan` says what it will do, `publisher release` does it.",
        f"release: {{name: {name}, version: 1.0.0, license: {_text(defaults.license or 'other')}}}",
        f"model: {_text(reference)}",
        _noted("concepts:", change),
        *(f"  - {concept}" for concept in concepts),
        _noted("steps:", "what is done, in this order"),
        *(_noted(f"  - use: {step}", summary) for step, summary in steps.items()),
    ]
    if defaults.scorer:
        lines.append(
            _noted("# evaluate: {red_team: quick}", "also tries hard to get it back, and reports what that took")
        )
    else:
        lines += [
            "# Nobody is known who could judge this model's images, so its claims will end as unknown. Name a scorer;",
            "# `publisher plugins` lists those that are installed:",
            "# evaluate: {scorer: NAME}",
        ]
    return "\n".join(lines) + "\n"


def release_name(folder: str) -> str:
    """Return a name for the release of the model in a folder of this name."""
    plain = re.sub(r"[^a-z0-9]+", "-", folder.lower()).strip("-")[:48]
    return f"{plain or 'model'}-clean"


def _noted(text: str, comment: str) -> str:
    return f"{text.ljust(_PLACE)}# {comment}" if comment else text


def _text(value: str) -> str:
    """Return a value as YAML reads it as text: plain where that is safe, else quoted as JSON."""
    plain = re.fullmatch(r"[A-Za-z./][A-Za-z0-9._/@:+-]*[A-Za-z0-9._/]", value) and ": " not in value
    known = value.lower() in {"true", "false", "null", "yes", "no", "on", "off"}
    return value if plain and not known else json.dumps(value)
