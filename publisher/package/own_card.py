"""The publisher's own part of the model card: a Markdown file with metadata for the hub, and pictures beside it.

The pictures that its text shows are decoded and written again into ``images/``: pixels alone get into a package.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import yaml

from publisher.errors import UsageError
from publisher.package.layout import IMAGES, path_problem
from publisher.package.pictures import MAX_BYTES

MOST_TEXT: Final = 256 * 1024
"""Bytes of a card, at most."""
RESERVED: Final = (
    "license",
    "license_name",
    "license_link",
    "base_model",
    "base_model_relation",
    "library_name",
    "pipeline_tag",
    "model-index",
)
"""Metadata that the release knows itself."""
_FRONT = re.compile(r"\A---[ \t]*\r?\n(.*?)^---[ \t]*\r?$\n?", re.DOTALL | re.MULTILINE)
_PICTURE = re.compile(r"(!\[[^\]]*\]\()\s*<?([^)\s>]+)>?((?:\s+\"[^\"]*\")?\s*\))")
_ELSEWHERE = re.compile(r"^(?:[a-z][a-z0-9+.-]*:|//|#)", re.IGNORECASE)


@dataclass(frozen=True)
class OwnCard:
    """What a publisher says in the card, before what the release says."""

    text: str
    """Markdown, with links to pictures as they are in the package."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Front matter for the hub, without what the release knows itself."""
    images: Mapping[str, bytes] = field(default_factory=dict)
    """Path in the package -> PNG file."""


def read_own_card(path: Path) -> OwnCard:
    """Read a card and the pictures that it shows.

    Args:
        path: of the Markdown file; its pictures are PNG files beside or below it.

    Raises:
        UsageError: the file or a picture cannot be read, a picture lies elsewhere or is no PNG, the front matter is no
            YAML mapping or says what the release knows itself.
    """
    try:
        data = path.read_bytes()
        text = data.decode()
    except (OSError, UnicodeDecodeError) as error:
        hint = "release.card names a Markdown file in UTF-8, as seen from the manifest."
        raise UsageError(f"cannot be read: {error}"[:300], where=str(path), hint=hint) from error
    if len(data) > MOST_TEXT:
        raise UsageError(f"has more than {MOST_TEXT} bytes", where=str(path), hint="Put long texts elsewhere.")
    metadata, body = _split(text, path)
    images: dict[str, bytes] = {}
    places: dict[str, Path] = {}

    def shown(found: re.Match[str]) -> str:
        link = unquote(found[2])
        if _ELSEWHERE.match(link):
            return found[0]
        file = _beside(path, link)
        name = _name(file, path)
        if places.setdefault(name, file) != file:
            what = f"two pictures would be called {name}: {places[name]} and {file}"
            raise UsageError(what, where=str(path), hint="Give one of them another name.")
        images[name] = images.get(name) or _encode(file)
        return f"{found[1]}{name}{found[3]}"

    return OwnCard(_PICTURE.sub(shown, body).strip(), metadata, images)


def _split(text: str, path: Path) -> tuple[dict[str, Any], str]:
    """Return the front matter and the rest."""
    found = _FRONT.match(text)
    if not found:
        return {}, text
    try:
        metadata = yaml.safe_load(found[1]) or {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 2}" if mark else str(path)
        raise UsageError("its front matter is no YAML", where=where, hint="Put it between two lines ---.") from error
    if not isinstance(metadata, dict) or not all(isinstance(key, str) for key in metadata):
        raise UsageError("its front matter is no mapping", where=str(path), hint="Write lines such as language: en.")
    known = [key for key in RESERVED if key in metadata]
    if known:
        hint = "Leave it out: it comes from the manifest, the model and the report."
        raise UsageError(f"its front matter has {known[0]!r}, which the release knows", where=str(path), hint=hint)
    return metadata, text[found.end() :]


def _beside(card: Path, link: str) -> Path:
    root, file = card.parent.resolve(), (card.parent / link).resolve()
    if not file.is_relative_to(root):
        hint = "Pictures lie beside the card or in a folder below it; other links are whole addresses."
        raise UsageError(f"shows {link}, which is not below the card's folder", where=str(card), hint=hint)
    if not file.is_file():
        raise UsageError(f"shows {link}, which is not there", where=str(card), hint="Put the picture there.")
    return file


def _name(file: Path, card: Path) -> str:
    name = f"{IMAGES}{re.sub(r'[^A-Za-z0-9._+-]+', '-', file.stem).strip('-.')}.png"
    if problem := path_problem(name):
        raise UsageError(f"shows {file.name}, which {problem}", where=str(card), hint="Rename the picture.")
    return name


def _encode(file: Path) -> bytes:
    """Return the pixels of a PNG file as a new PNG file with nothing else in it."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file, formats=("PNG",)) as found:
            image = found.convert("RGBA" if found.has_transparency_data else "RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError) as error:
        raise UsageError("is no PNG image", where=str(file), hint="Save the picture as PNG.") from error
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=False)
    if buffer.tell() > MAX_BYTES:
        raise UsageError(f"has more than {MAX_BYTES} bytes as PNG", where=str(file), hint="Make it smaller.")
    return buffer.getvalue()
