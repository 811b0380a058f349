"""Where base models come from: a folder on this machine, or a pinned revision of a hub repository."""

from __future__ import annotations

import json
import re
from pathlib import Path

from publisher.api import ModelError, ModelSource, PrerequisiteError

PINNED = re.compile(r"hf:(?P<repository>[\w.-]+/[\w.-]+)@(?P<revision>[0-9a-f]{40})", re.ASCII)
PATTERNS = ("*.safetensors", "*.json", "*.txt")
"""What is fetched: weights as safetensors, configurations, tokenizers. Never code, never pickles."""


class Folder(ModelSource):
    """A diffusers folder, its path given alone or after ``folder:``, relative to the manifest."""

    name = "folder"
    version = "1"
    summary = "a diffusers folder on this machine"

    def check(self, reference: str) -> str | None:
        """An empty path, or one with a NUL character."""
        path = reference.removeprefix("folder:")
        if not path.strip() or "\0" in path:
            return "the path of the model's folder is empty or malformed"
        return None

    def locate(self, reference: str, relative_to: Path) -> Path:
        """The folder.

        Raises:
            ModelError: there is no such folder, or it is no diffusers model; nothing could fetch it.
        """
        folder = relative_to / Path(reference.removeprefix("folder:")).expanduser()
        if (folder / "model_index.json").is_file():
            return folder.resolve()
        what = "there is no model_index.json in this folder" if folder.is_dir() else "there is no such folder"
        hint = "Give the folder of a diffusers model, relative to the manifest: the one that holds model_index.json."
        raise ModelError(what, where=str(folder), hint=hint)

    def fetch(self, reference: str, relative_to: Path) -> Path:
        """The same: there is nothing to fetch."""
        return self.locate(reference, relative_to)


class Hub(ModelSource):
    """A repository of the Hugging Face hub at a commit: ``hf:org/name@<40 hex digits>``.

    A branch or a tag can move, so only a commit is accepted. The hub's own cache, settings and login are used.
    """

    name = "hf"
    version = "1"
    summary = "hf:org/name@<commit>, from the hub or its cache"

    def check(self, reference: str) -> str | None:
        """Anything but organisation, name and a full commit."""
        if PINNED.fullmatch(reference):
            return None
        return (
            "a model of the hub is written hf:org/name@ and the 40 hex digits of a commit; names of branches can move"
        )

    def locate(self, reference: str, relative_to: Path) -> Path | None:  # noqa: ARG002
        """The snapshot in the hub's cache, if it was fetched completely."""
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            folder = _snapshot(reference, local_only=True)
        except LocalEntryNotFoundError:
            return None
        return folder if _complete(folder) else None

    def fetch(self, reference: str, relative_to: Path) -> Path:
        """The snapshot, from the cache or the hub.

        Raises:
            PrerequisiteError: it is in neither, the hub cannot be reached, or it is no diffusers model.
        """
        found = self.locate(reference, relative_to)
        if found is not None:
            return found
        try:
            folder = _snapshot(reference, local_only=False)
        except Exception as error:  # whatever the hub, the network or the disk says
            raise PrerequisiteError(_first_line(error), where=reference, hint=_HINT) from error
        if not _complete(folder):
            raise PrerequisiteError(
                "the repository is not a diffusers model with safetensors weights", where=reference, hint=_HINT
            )
        return folder


_HINT = (
    "Fetch it once on a machine with network and access: "
    "hf download ORG/NAME --revision COMMIT --include '*.safetensors' --include '*.json' --include '*.txt'\n"
    "HF_HUB_OFFLINE=1 keeps to what is in the cache; HF_HOME says where that is."
)

_OPTIONAL = ("safety_checker", "feature_extractor", "image_encoder")
"""Parts that a release does without."""

SOURCES: tuple[type[ModelSource], ...] = (Folder, Hub)


def _snapshot(reference: str, *, local_only: bool) -> Path:
    from huggingface_hub import snapshot_download

    match = PINNED.fullmatch(reference)
    if match is None:
        raise PrerequisiteError("not a pinned reference", where=reference, hint=_HINT)
    return Path(
        snapshot_download(
            match["repository"],
            revision=match["revision"],
            allow_patterns=list(PATTERNS),
            local_files_only=local_only,
        )
    )


def _complete(folder: Path) -> bool:
    """Whether every part that the index names is there; a download may have been interrupted."""
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        named = [name for name, entry in index.items() if isinstance(entry, list) and entry[1:2] not in ([], [None])]
        return bool(named) and all(_has_part(folder / name) for name in named if name not in _OPTIONAL)
    except (OSError, ValueError, AttributeError):
        return False


def _has_part(folder: Path) -> bool:
    """A network has a ``config.json`` and weights, all shards of them; anything else has some file."""
    shards: set[str] = set()
    for path in folder.glob("*.safetensors.index.json"):
        shards |= set(json.loads(path.read_text(encoding="utf-8")).get("weight_map", {}).values())
    present = {path.name for path in folder.glob("*")}
    weights = any(name.endswith(".safetensors") for name in present) or "config.json" not in present
    return bool(present) and weights and shards <= present


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
