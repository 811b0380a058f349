"""What a base model must be so that a package can be made of it. Said at plan, before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from publisher.api.model_files import SUMMARY
from publisher.errors import ModelError, UsageError
from publisher.model.folder import ModelFolder, read_json
from publisher.package.build import require_packable
from publisher.safeguards import ALL
from publisher.text import printable

Choice = Literal["refuse", "drop"]


def require_base(folder: ModelFolder, choice: Choice) -> tuple[str, ...]:
    """Refuse a model that no package can be made of, or that carries safeguards which would get lost.

    Args:
        folder: the base model.
        choice: the manifest's ``base_safeguards``.

    Returns:
        What the release does without, for its report: one sentence for each thing, none for a plain model.

    Raises:
        ModelError: a file cannot be in a package.
        UsageError: the model is a released package, and the manifest does not say that its safeguards are to go.
    """
    require_packable(folder.files)
    if not folder.carried:
        return ()
    name, found = _carried(folder)
    if choice == "drop":
        return tuple(f"The base model was {name}. Dropped on purpose, and not checked again: {one}." for one in found)
    raise UsageError(
        f"the base model is {name}; a release made from it would carry on none of its safeguards",
        where=str(folder.path),
        hint="\n".join([*(f"It has {one}." for one in found), _WAYS_ON]),
    )


_WAYS_ON = (
    "Either write one manifest with the earlier steps and the new ones, on the model that the package was made from: "
    "all claims are then checked on the result, and finished steps come from the work folder.\n"
    "Or give them up knowingly with 'base_safeguards: drop' in the manifest: the report then says so."
)


def _carried(folder: ModelFolder) -> tuple[str, list[str]]:
    """Return what the package is called, and what it promises: its parts are read for their words, not trusted."""
    summary = _read(folder, SUMMARY)
    label = f"{summary.get('name', '')} {summary.get('version', '')}".strip()
    name = f"the released package {printable(label)}" if label else "a released package without a readable summary"
    found = [one.carried(_read(folder, one.path)) for one in ALL if (folder.path / one.path).is_file()]
    sentences = [printable(str(claim.get("sentence"))) for claim in _mappings(summary.get("claims"))]
    found += [f"the claim: {sentence}" for sentence in sentences]
    return name, found or ["claims that cannot be read"]


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _read(folder: ModelFolder, name: str) -> dict[str, Any]:
    try:
        return read_json(folder.path / name)
    except ModelError:
        return {}
