"""plan -> harden -> package (unsigned) -> evaluate -> report -> sign."""

from __future__ import annotations

from publisher.release.make import Outcome, release
from publisher.release.prepare import PreparedRelease, prepare

__all__ = ["Outcome", "PreparedRelease", "prepare", "release"]
