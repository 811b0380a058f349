"""Where a plugin comes from: distribution, version, and a digest of its source."""

from __future__ import annotations

import hashlib
from email.parser import HeaderParser
from importlib.metadata import Distribution, EntryPoint
from importlib.util import find_spec
from pathlib import Path

from publisher.api import Origin
from publisher.errors import INTERRUPTS

DISTRIBUTION = "model-publisher"
"""Name of the publisher's own distribution."""


def origin_of(point: EntryPoint) -> Origin:
    """Return the origin of an entry point. Looking up a dotted one imports its parent package.

    Never raises: what cannot be found is empty.
    """
    name, version = named(point.dist) if point.dist else ("unknown", "")
    return Origin(distribution=name, version=version, module=point.value, digest=_source_digest(point))


def named(distribution: Distribution) -> tuple[str, str]:
    """Return a distribution's name and version; ``("unknown", "")`` where its metadata cannot be read."""
    try:
        text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
        told = HeaderParser().parsestr(text.partition("\n\n")[0])  # distribution.metadata reads whole descriptions
        return str(told["Name"] or "unknown"), str(told["Version"] or "")
    except INTERRUPTS:
        raise
    except BaseException:  # noqa: BLE001  # whatever stands in a foreign folder
        return "unknown", ""


def _source_digest(point: EntryPoint) -> str:
    try:
        spec = find_spec(point.module)
        if spec is None or spec.origin is None:
            return ""
        file = Path(spec.origin)
        sources = sorted(file.parent.rglob("*.py")) if file.name == "__init__.py" else [file]
        lines = [f"{_sha256(source)}  {source.relative_to(file.parent)}\n" for source in sources]
        return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
    except INTERRUPTS:
        raise
    except BaseException:  # noqa: BLE001  # the parent of a dotted module is foreign code, and runs here
        return ""


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
