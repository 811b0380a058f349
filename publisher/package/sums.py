"""``release/SHA256SUMS``: the payload's files, one line each, as ``sha256sum -c`` reads it."""

from __future__ import annotations

import re
from collections.abc import Mapping

_LINE = re.compile(r"([0-9a-f]{64})  (\S+)")


def render(digests: Mapping[str, str]) -> bytes:
    """Render the file's bytes: lines ``<hex>  <path>``, sorted by code point."""
    return "".join(f"{digests[path]}  {path}\n" for path in sorted(digests)).encode()


def parse(data: bytes) -> dict[str, str]:
    """Parse path -> sha256 in hex.

    Raises:
        ValueError: these are not bytes that :func:`render` could have written.
    """
    lines = data.decode("ascii").splitlines()
    found = {match[2]: match[1] for line in lines if (match := _LINE.fullmatch(line))}
    if not found or render(found) != data:
        raise ValueError("is no sorted list of '<sha256>  <path>' lines")
    return found
