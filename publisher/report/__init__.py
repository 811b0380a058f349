"""The release report on disk: every form of it, and reading it back from a package that nobody vouches for."""

from __future__ import annotations

from publisher.report.reader import load
from publisher.report.record_schema import schema
from publisher.report.writer import render, render_each

__all__ = ["load", "render", "render_each", "schema"]
