"""Where a plugin comes from: distribution, version, and a digest of its source."""

from __future__ import annotations

import hashlib
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path

from publisher.api import Origin


def origin_of(point: EntryPoint) -> Origin:
    """The origin of an entry point. Never raises: a plugin whose source cannot be found has an empty digest."""
    name, version = (point.dist.name, point.dist.version) if point.dist else ("unknown", "")
    return Origin(distribution=name, version=version, module=point.value, digest=_source_digest(point.module))


def _source_digest(module: str) -> str:
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):
        return ""
    if spec is None or spec.origin is None:
        return ""
    file = Path(spec.origin)
    sources = sorted(file.parent.rglob("*.py")) if file.name == "__init__.py" else [file]
    total = hashlib.sha256()
    for source in sources:
        total.update(f"{hashlib.sha256(source.read_bytes()).hexdigest()}  {source.relative_to(file.parent)}\n".encode())
    return total.hexdigest()
