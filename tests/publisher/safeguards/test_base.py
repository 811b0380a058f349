"""A third safeguard, a subclass and its name in the tuple. No room has to know it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from publisher import api, safeguards
from publisher.codes import Code, Finding
from publisher.engine import orders
from publisher.engine.plan import PlannedStep
from publisher.package import card, content, reports
from publisher.package.verify import verify
from publisher.safeguards.base import Contents, Safeguard
from support.evaluating import release_again
from support.packages import report_data


class Seal(Safeguard):
    """A word that a package is sealed with."""

    file = "seal.json"
    conflict = "{later!r} breaks the seal of {earlier!r}."

    def carried(self, document: Mapping[str, Any]) -> str:
        return f"a seal: {document.get('word')}"

    def findings(self, document: Any, contents: Contents) -> Iterator[Finding]:
        if document is not None and document != {"word": "wax"}:
            yield Finding(Code.INCONSISTENT, self.path, f"is no seal of {contents.root.name}")

    def contradiction(self, report: api.ReleaseReport, read: Callable[[], bytes | None]) -> str:
        return "" if read() is None or report.name == "sealed" else "is the report of a package without a seal"

    def section(self, report: api.ReleaseReport, folder: str) -> str:
        return f"## The seal of {folder}"

    def loading(self, report: api.ReleaseReport, folder: str) -> str:
        return f"Break the seal of {report.name} first."


@pytest.fixture(autouse=True)
def _third(monkeypatch: pytest.MonkeyPatch) -> None:
    for room in (safeguards, orders, card, content, reports):
        monkeypatch.setattr(room, "ALL", (*safeguards.ALL[:2], Seal()))


def test_it_is_checked_where_a_package_is_verified(package: Path, key_pair: tuple[Path, Path]) -> None:
    (package / "release/seal.json").write_text('{"word": "glue"}')
    release_again(package, key_pair[0])
    found = verify(package, key_pair[1])
    assert list(map(str, found.findings)) == [
        "V023 release/seal.json: is no seal of tiny-1.2.0",
        "V031 release/reports/report.json: is the report of a package without a seal",
    ]


def test_a_package_without_it_verifies(package: Path, key_pair: tuple[Path, Path]) -> None:
    assert verify(package, key_pair[1]).ok


def test_the_card_has_its_section_and_how_to_load() -> None:
    text = card.render(api.ReleaseReport.parse(report_data()), base_card=False).decode()
    assert "## The seal of tiny-1.2.0" in text
    assert "## How to load\n\nBreak the seal of tiny first.\n" in text
    assert "DiffusionPipeline" not in text


def test_a_later_step_that_makes_it_stale_is_warned_of(planned: Callable[..., PlannedStep]) -> None:
    seal = replace(planned(id="seal"), plan=api.StepPlan({}, ("seal.json",)))
    tune = planned(id="tune")
    tune = replace(tune, identity=replace(tune.identity, name="tune"), plan=api.StepPlan({"unet": ["bias"]}))
    assert orders.warnings([seal, tune], "unet") == ("'tune' breaks the seal of 'seal'.",)
    assert orders.warnings([tune, seal], "unet") == ()


def test_nothing_is_attached_and_no_image_depends_on_it_unless_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "seal.json").write_text("{}")
    assert safeguards.attached_digest(tmp_path) == ""
    assert safeguards.attach(None, tmp_path) == ()  # type: ignore[arg-type]
