from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
import report_samples as samples

from publisher.api import PluginError, ReleaseReport, ReportFormat
from publisher.builtin.reports import FORMATS
from publisher.builtin.reports.json_record import JsonRecord
from publisher.errors import UsageError
from publisher.release.ends import render_all
from publisher.report import load, schema
from support.json_schemas import validating

DOCS = Path(__file__).parents[3] / "docs" / "reference"


class Card(ReportFormat):
    """A third party's form."""

    name: ClassVar[str] = "card"
    version: ClassVar[str] = "1"
    filename: ClassVar[str] = "card.txt"

    def render(self, report: ReleaseReport) -> bytes:
        return report.name.encode()


def form(**changes: Any) -> type[ReportFormat]:
    return type("Changed", (Card,), changes)


# render_all


def test_render_all_gives_every_form_under_its_file_name() -> None:
    files = render_all(samples.passed(), [*FORMATS, Card])
    assert list(files) == ["card.txt", "index.html", "junit.xml", "report.json", "summary.md"]
    assert files["card.txt"] == b"emoji-safe"


def test_two_forms_with_one_file_name_are_an_error() -> None:
    with pytest.raises(PluginError, match=r"two report formats want to write 'report\.json'.*'mine'"):
        render_all(samples.passed(), [*FORMATS, form(name="mine", filename="report.json")])


@pytest.mark.parametrize("filename", ["../index.html", "a/b.txt", "", ".hidden", "con\n", "UPPER.txt"])
def test_a_form_writes_no_odd_file_name(filename: str) -> None:
    with pytest.raises(PluginError, match="wants to write"):
        render_all(samples.passed(), [form(filename=filename)])


def test_a_form_that_crashes_is_named() -> None:
    def crash(_self: ReportFormat, _report: ReleaseReport) -> bytes:
        raise RuntimeError("out of ink")

    def leave(_self: ReportFormat, _report: ReleaseReport) -> bytes:
        sys.exit(0)

    with pytest.raises(PluginError, match="report format 'card' crashed: RuntimeError: out of ink"):
        render_all(samples.passed(), [form(render=crash)])
    with pytest.raises(PluginError, match="report format 'card' crashed: SystemExit: 0"):
        render_all(samples.passed(), [form(render=leave)])


def test_a_form_that_gives_no_bytes_is_named() -> None:
    with pytest.raises(PluginError, match="report format 'card' gave str, not bytes"):
        render_all(samples.passed(), [form(render=lambda _self, _report: "text")])


# load


def write(folder: Path, place: str = "report.json", data: bytes | None = None) -> Path:
    file = folder / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(JsonRecord().render(samples.failed()) if data is None else data)
    return file


@pytest.mark.parametrize("place", ["release/reports/report.json", "reports/report.json", "report.json"])
def test_a_report_is_found_in_packages_and_report_folders(tmp_path: Path, place: str) -> None:
    file = write(tmp_path, place)
    assert load(tmp_path) == load(file) == samples.failed()


def test_a_missing_package_says_where_a_refused_release_has_its_report(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load(tmp_path / "gone")
    assert str(caught.value) == (
        f"{tmp_path / 'gone'}: no such package or file\n"
        "  A release that was refused has no package: give the report folder that the release named instead."
    )


def test_a_folder_without_a_report_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"this folder holds no release report\n  Looked for release/reports/"):
        load(tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "report.json")
    with pytest.raises(UsageError, match="holds no release report"):
        load(tmp_path)
    with pytest.raises(UsageError, match="neither a folder nor a regular file"):
        load(tmp_path / "report.json")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b'{"report": 1, "report": 1}', "has a key twice"),
        (b'{"report": NaN}', "holds NaN"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "no release report that this version reads"),
        (b'{"report": 2}', '"report": 2, expected 1'),
        (b'{"report": true}', '"report": true, expected 1'),
        (b'{"report": 1}', "not a valid release report"),
    ],
)
def test_what_is_no_report_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(write(tmp_path, data=data))


@pytest.mark.parametrize(
    ("key", "value"), [("seed", "7"), ("decision", "fine"), ("extra", 1), ("name", None), ("claims", {})]
)
def test_a_report_is_read_strictly(tmp_path: Path, key: str, value: object) -> None:
    data = json.dumps(samples.passed().as_json() | {key: value}).encode()
    with pytest.raises(UsageError, match=rf"not a valid release report\n  {key}: "):
        load(write(tmp_path, data=data))


def test_problems_are_listed_without_control_characters_and_not_endlessly(tmp_path: Path) -> None:
    extra = {f"bad\x1b[2J{number}": 1 for number in range(20)}
    with pytest.raises(UsageError) as caught:
        load(write(tmp_path, data=json.dumps(samples.passed().as_json() | extra).encode()))
    assert "\x1b" not in str(caught.value)
    assert str(caught.value).endswith("and 15 more")


def test_a_report_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("publisher.report.reader.MAX_BYTES", 1024 * 1024)
    with pytest.raises(UsageError, match="larger than 1 MiB"):
        load(write(tmp_path, data=b" " * (1024 * 1024 + 1)))


# The published schema


def test_the_published_schema_is_that_of_the_code() -> None:
    assert json.loads((DOCS / "report.schema.json").read_text()) == schema()


@pytest.mark.parametrize("name", samples.ALL)
def test_every_report_keeps_the_schema(name: str) -> None:
    validator = validating(schema())
    record = json.loads(JsonRecord().render(samples.ALL[name]()))
    validator.validate(record)
    assert not validator.is_valid(record | {"decision": "fine"})


def test_the_reference_describes_every_form_and_every_field() -> None:
    text = (DOCS / "report.md").read_text()
    for one in FORMATS:
        assert f"`{one.name}`" in text
        assert f"`{one.filename}`" in text
    assert [name for name in ReleaseReport.model_fields if f"`{name}`" not in text] == []
