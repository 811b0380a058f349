"""The manifest: from YAML to a :class:`Resolved` record with everything written out, or to all that is wrong.

:func:`read` does both halves: :func:`load` reads the file and checks its form, :func:`resolve` looks up the names and
writes out defaults, templates and short forms. Imports no torch.
"""

from __future__ import annotations

from publisher.manifest.catalog import Catalog
from publisher.manifest.json_schema import manifest_schema
from publisher.manifest.loader import Document, load
from publisher.manifest.resolve import Resolved, ResolvedEvaluate, ResolvedStep, read, resolve
from publisher.manifest.schema import Manifest

__all__ = [
    "Catalog",
    "Document",
    "Manifest",
    "Resolved",
    "ResolvedEvaluate",
    "ResolvedStep",
    "load",
    "manifest_schema",
    "read",
    "resolve",
]
