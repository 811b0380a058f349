"""Files and models that parameters of a plugin name: where they lie, what may be in them, and their digests."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from publisher.api.hub_names import plain_names
from publisher.errors import HostileHubError, PrerequisiteError, UsageError
from publisher.model.digest import sha256_file, sha256_list

PINNED = re.compile(
    r"hf:(?P<repository>[\w.-]+/[\w.-]+)@(?P<revision>[0-9a-f]{40})(?P<inside>(/(?!\.{1,2}(/|$))[\w. -]+)*)", re.ASCII
)
PACKAGED = re.compile(r"package:(?P<package>[A-Za-z_]\w*)/(?P<under>[\w.-]+(/[\w.-]+)*)", re.ASCII)
READ = (".safetensors", ".onnx", ".json", ".txt", ".model")
"""Types of the files that count in a folder or a repository."""
IMAGES = (".png", ".jpg", ".jpeg")
"""Types of the files that count as well in a folder that is not of the hub."""
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz", ".h5", ".msgpack")
"""Types of files that can run code, or hold more than numbers, when they are read."""


def locate_input(name: str, folder: Path, who: str, *, fetch: bool, pickles: bool = False) -> Path | None:
    """Return the file or folder that a name stands for; None: it would have to be fetched, and ``fetch`` is False.

    Args:
        name: a path as seen from the manifest; ``hf:org/name@``, 40 hexadecimal digits and perhaps a path inside the
            repository; or ``package:``, an installed package's import name and a path in it.
        folder: of the manifest.
        who: names it, such as ``"the scorer 'nudenet'"``.
        fetch: get it from the hub where it is not on this machine.
        pickles: leave it to the plugin to refuse pickles, or to do without them in a folder that has better files too.

    Raises:
        UsageError: it is not there, is a path of this machine, is no pinned commit, or holds a pickle.
        PrerequisiteError: the hub cannot be reached, or the package is not installed.
    """
    if name.startswith("hf:"):
        return _of_hub(name, who, fetch=fetch)
    if name.startswith("package:"):
        return _without_pickles(name, _of_package(name, who), who)
    if not name or Path(name).is_absolute() or name.startswith("~"):
        hint = "Write the path as seen from the manifest: the manifest is published with the package."
        raise UsageError(f"{who} names {name!r}, which is no path seen from the manifest", hint=hint)
    path = folder / name
    if not path.exists():
        hint = "Paths in a manifest are relative to the manifest."
        raise UsageError(f"{who} names {name!r}, which is not there", where=str(path), hint=hint)
    return path if pickles else _without_pickles(name, path, who)


def _without_pickles(name: str, path: Path, who: str) -> Path:
    """Return the path, if no file there is of a type that can run code when it is read."""
    found = sorted(path.rglob("*")) if path.is_dir() else [path]
    for file in found:
        if file.suffix.lower() in PICKLES:
            hint = f"Convert it to safetensors. Read are: {', '.join(READ)}."
            raise UsageError(f"{who} names {name!r}, which holds a pickle or the like", where=str(file), hint=hint)
    return path


def input_digest(name: str, path: Path) -> str:
    """Return the sha256 of a file, or of the list of a folder's files that count.

    Args:
        name: as :func:`locate_input` was given it. A snapshot of the hub may lack images, so none counts there.
        path: what it found.

    Raises:
        OSError: it cannot be read.
    """
    if path.is_file():
        return sha256_file(path)
    types = READ if name.startswith("hf:") else (*READ, *IMAGES)
    files = [file for file in path.rglob("*") if file.suffix.lower() in types and file.is_file()]
    return sha256_list({file.relative_to(path).as_posix(): sha256_file(file) for file in files})


def _of_package(name: str, who: str) -> Path:
    match = PACKAGED.fullmatch(name)
    if match is None or ".." in PurePosixPath(match["under"]).parts:
        hint = "Write package:, its import name, and the path of a file or folder in it."
        raise UsageError(f"{who} names {name!r}, which is no path in an installed package", hint=hint)
    found = find_spec(match["package"])
    if found is None or not found.submodule_search_locations:
        hint = "Install it, or name another file."
        raise PrerequisiteError(f"{who} names {name!r}, but no such package is installed", hint=hint)
    path = Path(found.submodule_search_locations[0]) / match["under"]
    if not path.exists():
        hint = "Another version of the package may have it. Install that, or name another file."
        raise PrerequisiteError(f"{who} names {name!r}, which is not there", where=str(path), hint=hint)
    return path


def _of_hub(name: str, who: str, *, fetch: bool) -> Path | None:
    match = PINNED.fullmatch(name)
    if match is None:
        hint = "Names of branches and tags can move: write hf:org/name@ and the 40 hexadecimal digits of a commit."
        raise UsageError(f"{who} names {name!r}, which is no pinned commit of the hub", hint=hint)
    from huggingface_hub import get_cached_repo_tree, snapshot_download
    from huggingface_hub.errors import CachedRepoTreeNotFoundError, LocalEntryNotFoundError

    repository, revision, inside = match["repository"], match["revision"], match["inside"].removeprefix("/")
    patterns = [f"{inside}/*{suffix}" if inside else f"*{suffix}" for suffix in READ] + ([inside] if inside else [])
    try:
        names = {file.path for file in get_cached_repo_tree(repository, revision=revision)}
        folder = Path(snapshot_download(repository, revision=revision, allow_patterns=patterns, local_files_only=True))
        wanted = [one for one in names if one.endswith(READ) and (not inside or one.startswith(f"{inside}/"))]
        if inside in names:
            wanted.append(inside)
        if all((folder / one).is_file() for one in wanted) and (folder / inside).exists():
            return folder / inside
    except (CachedRepoTreeNotFoundError, LocalEntryNotFoundError):
        pass
    if not fetch:
        return None
    try:
        with plain_names(name):
            folder = Path(snapshot_download(repository, revision=revision, allow_patterns=patterns))
    except HostileHubError:
        raise
    except Exception as error:  # whatever the hub, the network or the disk says
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        hint = "Fetch it once on a machine with network and access: hf download ORG/NAME --revision COMMIT"
        raise PrerequisiteError(f"{who} cannot get {name!r}: {first}", hint=hint) from error
    if not (folder / inside).exists():
        raise UsageError(f"{who} names {name!r}, but the repository has no {inside!r} that is read: {', '.join(READ)}")
    return folder / inside
