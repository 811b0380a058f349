"""The release report on disk: every form of it, and reading it back from a package that nobody vouches for."""

from __future__ import annotations

from publisher.report.reader import load
from publisher.report.record_schema import schema
from publisher.report.writer import TIMINGS, render, render_all, render_each, require_names

__all__ = ["TIMINGS", "load", "render", "render_all", "render_each", "require_names", "schema"]
