"""The built-in forms of the release report. Importing them imports neither torch nor a template engine."""

from __future__ import annotations

from publisher.api import ReportFormat
from publisher.builtin.reports.html_page import HtmlPage
from publisher.builtin.reports.json_record import JsonRecord
from publisher.builtin.reports.junit_xml import JunitXml
from publisher.builtin.reports.markdown_summary import MarkdownSummary

FORMATS: tuple[type[ReportFormat], ...] = (HtmlPage, JsonRecord, JunitXml, MarkdownSummary)
"""In the order in which help texts name them."""
