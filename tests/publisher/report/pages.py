"""Reading a rendered page: its tags, attributes and words."""

from __future__ import annotations

from html.parser import HTMLParser

from publisher.api import ReleaseReport
from publisher.builtin.reports.html_page import HtmlPage

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """The tags, attributes and text of a page; complains about tags that are not closed in order."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.pieces: list[str] = []
        self._open: list[str] = []
        self.feed(data.decode())
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        self.pieces.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page(record: ReleaseReport) -> Page:
    return Page(HtmlPage().render(record))


def words(record: ReleaseReport) -> str:
    return " ".join(" ".join(page(record).pieces).split())
