"""Reading a rendered page: its tags, attributes and words."""

from __future__ import annotations

from html.parser import HTMLParser

from publisher.api import ReleaseReport
from publisher.builtin.reports.html_page import HtmlPage

VOID = {"meta", "img", "br", "input"}


class Page(HTMLParser):
    """The tags, attributes and text of a page; complains about tags that are not closed in order."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.pieces: list[str] = []
        self.parents: list[dict[str, str | None]] = []
        """Attributes of the tag around each tag, in the order of ``tags``."""
        self._open: list[tuple[str, dict[str, str | None]]] = []
        self.feed(data.decode())
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self._open.append((tag, dict(attrs)))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.parents.append(self._open[-1][1] if self._open else {})

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1][0] in ("style", "script"):
            return
        self.text += data
        self.pieces.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page(record: ReleaseReport) -> Page:
    return Page(HtmlPage().render(record))


def words(record: ReleaseReport) -> str:
    return " ".join(" ".join(page(record).pieces).split())
