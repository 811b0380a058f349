"""The base and hardened images of a report, checked before a page embeds them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from publisher.api import ImagePair

SIGNATURE = b"\x89PNG\r\n\x1a\n"
NAMED = 3
"""Concepts of a check that its heading names; of more it says how many."""
SMALL = 128
"""Pixels; images up to here are enlarged with hard edges instead of a blur."""


@dataclass(frozen=True)
class Picture:
    """One PNG image that a page may embed."""

    data: str
    """Bytes of the file as base64."""
    width: int
    height: int

    @property
    def small(self) -> bool:
        """Whether to enlarge it with hard edges."""
        return max(self.width, self.height) <= SMALL


@dataclass(frozen=True)
class Pair:
    """One request with its pictures; None where the record holds no PNG."""

    record: ImagePair
    base: Picture | None
    hardened: Picture | None
    without: Picture | None
    """Image of the hardened model without membranes, beside the one with them."""


@dataclass(frozen=True)
class Group:
    """The pairs of one check."""

    check: str
    pairs: tuple[Pair, ...]

    @property
    def about(self) -> str:
        """The concepts, or how many they are."""
        names = list(dict.fromkeys(pair.record.concept for pair in self.pairs))
        return ", ".join(names) if len(names) <= NAMED else f"{len(names)} concepts"

    @property
    def triple(self) -> bool:
        """Whether some request has three pictures."""
        return any(pair.record.without_png for pair in self.pairs)

    @property
    def small(self) -> bool:
        """Whether every picture is."""
        return all(found.small for pair in self.pairs for found in (pair.base, pair.hardened, pair.without) if found)


def picture(encoded: str) -> Picture | None:
    """Return the PNG behind base64 text, or None where it is none."""
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return None
    if not data.startswith(SIGNATURE) or data[12:16] != b"IHDR" or len(data) < 33:
        return None
    width, height = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    if not 0 < width <= 8192 or not 0 < height <= 8192:
        return None
    return Picture(base64.b64encode(data).decode(), width, height)


def groups(pairs: Sequence[ImagePair]) -> list[Group]:
    """Return pairs by check, in the order of the record."""
    return [Group(check, tuple(map(pair, records))) for check, records in groupby(pairs, key=lambda pair: pair.check)]


def pair(record: ImagePair) -> Pair:
    """Return a pair with its pictures."""
    return Pair(record, picture(record.base_png), picture(record.hardened_png), picture(record.without_png))
