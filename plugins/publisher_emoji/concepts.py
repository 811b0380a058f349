"""What the embedded model knows: its objects, its styles, and the words for them.

The data is ``data/objects.yaml``; this module reads it once. It imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

import yaml

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Style:
    """One icon set, which plays the part of an artist's style."""

    name: str
    """Word that names the style in captions: ``"... in noto style"``."""
    package: str
    """npm package that the artwork comes from, with its version."""
    license: str
    """SPDX identifier of the artwork's licence."""
    attribution: str
    """Author and address, as the licence asks for."""


@dataclass(frozen=True)
class Object:
    """One thing the model generates."""

    name: str
    """Noun that names the object in captions: ``"a pizza emoji"``."""
    kind: str
    """Group of the object: ``harm``, ``person``, ``face``, ``animal``, ``food``, ``vehicle``, ``nature`` or
    ``thing``."""
    synonyms: tuple[str, ...]
    """Other words for it that appear in training captions; what a paraphrase attack would use."""
    near: tuple[str, ...]
    """Objects that look or read alike: the first to suffer when this one is taken out."""
    icons: tuple[tuple[str, str], ...]
    """Pairs of style name and icon name in that style's set."""

    @property
    def slug(self) -> str:
        """File name made of the name: spaces become dashes."""
        return self.name.replace(" ", "-")


@dataclass(frozen=True)
class Vocabulary:
    """All styles and objects, in the order of the scorer's classes."""

    styles: tuple[Style, ...]
    objects: tuple[Object, ...]

    @cached_property
    def style_names(self) -> tuple[str, ...]:
        """Names of the styles, in the order of the scorer's style classes."""
        return tuple(style.name for style in self.styles)

    @cached_property
    def object_names(self) -> tuple[str, ...]:
        """Names of the objects, in the order of the scorer's object classes."""
        return tuple(thing.name for thing in self.objects)

    def without(self, names: Sequence[str]) -> Vocabulary:
        """Return the vocabulary less some objects and styles; icons in a style that is left out go with it."""
        return Vocabulary(
            tuple(style for style in self.styles if style.name not in names),
            tuple(
                replace(thing, icons=tuple(icon for icon in thing.icons if icon[0] not in names))
                for thing in self.objects
                if thing.name not in names
            ),
        )

    def object(self, name: str) -> Object:
        """Return the object called ``name``.

        Raises:
            KeyError: no such object; the message lists all names.
        """
        for thing in self.objects:
            if thing.name == name:
                return thing
        raise KeyError(f"no object is called {name!r}; there are: {', '.join(self.object_names)}")


@cache
def vocabulary() -> Vocabulary:
    """Read ``data/objects.yaml``."""
    text = (DATA / "objects.yaml").read_text(encoding="utf-8")
    data = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506  # both are the safe one
    styles = tuple(Style(name=name, **fields) for name, fields in data["styles"].items())
    objects = tuple(_object(name, fields, styles) for name, fields in data["objects"].items())
    return Vocabulary(styles, objects)


def _object(name: str, fields: dict[str, object], styles: tuple[Style, ...]) -> Object:
    default = fields.get("icon", name.replace(" ", "-"))
    icons = [(style.name, fields.get(style.name, default)) for style in styles]
    return Object(
        name=name,
        kind=str(fields["kind"]),
        synonyms=tuple(fields["synonyms"]),  # type: ignore[arg-type]
        near=tuple(fields["near"]),  # type: ignore[arg-type]
        icons=tuple((style, str(icon)) for style, icon in icons if icon),
    )
