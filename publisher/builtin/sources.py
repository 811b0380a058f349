"""Where base models come from: a folder on this machine, or a pinned revision of a hub repository."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import nullcontext
from glob import escape
from pathlib import Path
from typing import Any

from publisher.api import ModelDefaults, ModelError, ModelSource, PrerequisiteError, PublisherError
from publisher.api.hub_names import plain_names
from publisher.api.model_files import CARRIED, INDEX, model_parts, select_texts, select_weights, under

PINNED = re.compile(r"hf:(?P<repository>[\w.-]+/[\w.-]+)@(?P<revision>[0-9a-f]{40})", re.ASCII)
_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w.-]+", re.ASCII)


PHOTOGRAPHS = ModelDefaults(
    object=("a photo of {a} {name}", "{a} {name}", "a painting of {a} {name}", "{a} {name} on a table"),
    style=("a landscape in the style of {name}", "a portrait in the style of {name}", "a painting by {name}"),
    person=("a photo of {name}", "a portrait of {name}", "{name} on a stage"),
)
"""Prompts for models of photographs and paintings. Who judges them, nobody can know here."""


class Folder(ModelSource):
    """A diffusers folder, its path given alone or after ``folder:``, relative to the manifest."""

    name = "folder"
    version = "1"
    summary = "a diffusers folder on this machine"

    def defaults(self, reference: str) -> ModelDefaults:  # noqa: ARG002 - all are taken for such models
        """Return prompts for photographs and paintings."""
        return PHOTOGRAPHS

    def check(self, reference: str) -> str | None:
        """Refuse an empty path, and one with a NUL character."""
        path = reference.removeprefix("folder:")
        if not path.strip() or "\0" in path:
            return "the path of the model's folder is empty or malformed"
        return None

    def locate(self, reference: str, relative_to: Path) -> Path:
        """Return the folder.

        Raises:
            ModelError: there is no such folder, or it is no diffusers model; nothing could fetch it.
        """
        folder = relative_to / Path(reference.removeprefix("folder:")).expanduser()
        if (folder / INDEX).is_file():
            return folder.resolve()
        what, hint = _no_folder(reference, folder)
        raise ModelError(what, where=str(folder), hint=hint)

    def fetch(self, reference: str, relative_to: Path) -> Path:
        """Return the same: there is nothing to fetch."""
        return self.locate(reference, relative_to)


def _no_folder(reference: str, folder: Path) -> tuple[str, str]:
    """Return what is wrong with a model that is no diffusers folder, and what to do."""
    if folder.is_file():
        return "this is a file, and a model is a folder in the layout of diffusers", (
            "Convert a one-file checkpoint once, in Python, and give the new folder:\n"
            "  from diffusers import StableDiffusionPipeline  # StableDiffusionXLPipeline for SDXL\n"
            f"  StableDiffusionPipeline.from_single_file({folder.name!r}).save_pretrained('model')"
        )
    if not folder.exists() and _REPOSITORY.fullmatch(reference):
        return "there is no such folder", (
            f"If this is a repository of the Hugging Face hub, write hf:{reference}@ and the 40 hex digits of a commit."
        )
    what = "there is no model_index.json in this folder" if folder.is_dir() else "there is no such folder"
    return what, (
        "Give the folder of a diffusers model: the one that holds model_index.json.\n"
        "A path in a manifest begins at the manifest's folder."
    )


class Hub(ModelSource):
    """A repository of the Hugging Face hub at a commit: ``hf:org/name@<40 hex digits>``.

    A branch or a tag can move, so only a commit is accepted. The hub's own cache, settings and login are used.
    """

    name = "hf"
    version = "1"
    summary = "hf:org/name@<commit>, from the hub or its cache"

    def defaults(self, reference: str) -> ModelDefaults:  # noqa: ARG002 - all are taken for such models
        """Return prompts for photographs and paintings."""
        return PHOTOGRAPHS

    def check(self, reference: str) -> str | None:
        """Refuse anything but organisation, name and a full commit."""
        if PINNED.fullmatch(reference):
            return None
        return (
            "a model of the hub is written hf:org/name@ and the 40 hex digits of a commit; names of branches can move"
        )

    def locate(self, reference: str, relative_to: Path) -> Path | None:  # noqa: ARG002
        """Return the snapshot in the hub's cache; None unless every file that the release packages is there.

        Raises:
            ModelError: what is there shows that it is no model with safetensors weights.
        """
        from huggingface_hub import get_cached_repo_tree
        from huggingface_hub.errors import CachedRepoTreeNotFoundError, LocalEntryNotFoundError

        repository, revision = _pinned(reference)
        try:
            names = {file.path for file in get_cached_repo_tree(repository, revision=revision)}
            folder = _snapshot(reference, [INDEX], local_only=True)
            wanted = list(_wanted(reference, folder, names, lambda name: folder / name))
        except (CachedRepoTreeNotFoundError, LocalEntryNotFoundError, FileNotFoundError):
            return None
        return folder if all((folder / name).is_file() for name in wanted) else None

    def fetch(self, reference: str, relative_to: Path) -> Path:
        """Return the snapshot, from the cache or the hub, with every file that the release packages and no other.

        Raises:
            ModelError: it is no model with safetensors weights.
            PrerequisiteError: it is in neither, or the hub cannot be reached.
        """
        found = self.locate(reference, relative_to)
        if found is not None:
            return found
        from huggingface_hub import get_cached_repo_tree

        repository, revision = _pinned(reference)
        try:
            folder = _snapshot(reference, [INDEX])
            names = {file.path for file in get_cached_repo_tree(repository, revision=revision)}
            wanted = _wanted(reference, folder, names, lambda name: _snapshot(reference, [name]) / name)
            _snapshot(reference, list(wanted))
        except PublisherError:
            raise
        except Exception as error:  # whatever the hub, the network or the disk says
            raise PrerequisiteError(_first_line(error), where=reference, hint=_HINT) from error
        return folder


_HINT = (
    "Fetch it once on a machine with network and access, with any version 1.32 or later of huggingface_hub, so that "
    "the cache also knows which files the repository has: hf download ORG/NAME --revision COMMIT\n"
    "HF_HUB_OFFLINE=1 keeps to what is in the cache; HF_HOME says where that is."
)

SOURCES: tuple[type[ModelSource], ...] = (Folder, Hub)


def _pinned(reference: str) -> tuple[str, str]:
    """Return repository and commit."""
    match = PINNED.fullmatch(reference)
    if match is None:
        raise PrerequisiteError("not a pinned reference", where=reference, hint=_HINT)
    return match["repository"], match["revision"]


def _snapshot(reference: str, names: Sequence[str], *, local_only: bool = False) -> Path:
    """Fetch these files and return the folder that they are in."""
    from huggingface_hub import snapshot_download

    repository, revision = _pinned(reference)
    patterns = [escape(name) for name in names]
    with nullcontext() if local_only else plain_names(reference):
        return Path(
            snapshot_download(repository, revision=revision, allow_patterns=patterns, local_files_only=local_only)
        )


def _wanted(reference: str, folder: Path, names: AbstractSet[str], get: Callable[[str], Path]) -> Iterator[str]:
    """Yield every file of the model that a release packages, or that tells that it is a package."""
    with under(reference):
        if INDEX not in names:
            raise ModelError("the repository has no such file, so it is no diffusers model", where=INDEX)
        parts = model_parts(_read(folder / INDEX, INDEX))
        yield from select_texts(names, parts)
        yield from (name for name in CARRIED if name in names)
        for part in parts:
            yield from select_weights(names, part, parts, lambda name: _read(get(name), name))


def _read(path: Path, name: str) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"cannot be read as JSON: {error}", where=name) from error
    if not isinstance(data, dict):
        raise ModelError("must hold a JSON object", where=name)
    return data


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
