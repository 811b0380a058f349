"""Reference images that concepts name: files, or folders that stand for the images in them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path as FilePath

from publisher.manifest.places import Path, Problems

TYPES = (".png", ".jpg", ".jpeg")
SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
"""First bytes of PNG and of JPEG files."""
MOST = 2000
"""Images of one concept: more than any step or attack asks for."""
_ABSOLUTE = re.compile(r"[/\\~]|[A-Za-z]:")


def image_files(names: Sequence[str], folder: FilePath, path: Path, problems: Problems) -> tuple[str, ...]:
    """Return every image, relative to the manifest's folder, sorted and each once.

    Args:
        names: as the manifest has them.
        folder: of the manifest.
        path: of the concept in the manifest.
        problems: gets what is not there, no image, or a path of this machine.
    """
    found: dict[str, None] = {}
    for position, name in enumerate(names):
        place = (*path, "images", position)
        wrong = _wrong(name, folder)
        if wrong:
            hint = f"Name {', '.join(TYPES)} files, or folders of such files, as seen from the manifest's folder."
            problems.at_value(place, wrong, hint)
        else:
            found |= dict.fromkeys(_expanded(name, folder))
    if len(found) > MOST:
        problems.at_value((*path, "images"), f"the concept has {len(found)} images; at most {MOST} are taken.")
    return tuple(sorted(found))


def _wrong(name: str, folder: FilePath) -> str:
    if _ABSOLUTE.match(name):
        return f"a manifest is published with the package, so '{name}' must not be a path of this machine."
    path = folder / name
    try:
        if not (path.is_dir() or path.is_file()):
            return f"there is no file '{name}'."
        if path.is_file() and path.suffix.lower() not in TYPES:
            return f"'{name}' is no PNG or JPEG file."
        found = sorted(_expanded(name, folder))
        other = next((one for one in found if not _is_image(folder / one)), None)
    except (OSError, ValueError) as error:
        return f"'{name!a}' cannot be a file: {error}."
    if other is not None:
        return f"'{other}' is no image: it does not begin as PNG or JPEG files do."
    return "" if found else f"the folder '{name}' holds no image."


def _is_image(path: FilePath) -> bool:
    with path.open("rb") as file:
        return file.read(len(SIGNATURES[0])).startswith(SIGNATURES)


def _expanded(name: str, folder: FilePath) -> Iterator[str]:
    """Return the name itself, or the images in the folder of that name, without those in folders inside it."""
    path = FilePath(name)
    if not (folder / path).is_dir():
        yield path.as_posix()
        return
    for inside in (folder / path).iterdir():
        if inside.suffix.lower() in TYPES and inside.is_file():
            yield (path / inside.name).as_posix()
