"""What a release needs at its end is asked for at its beginning, and what stops it says where and what to do next."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from publisher.api import Origin, ReleaseReport, ReportFormat
from publisher.errors import PublisherError
from publisher.model import files
from publisher.model.files import write_atomic
from publisher.package.keys import generate, load_public
from publisher.registry import Contribution, Registry
from publisher.release.places import told
from publisher.report import render
from support.releasing import MANIFEST, publisher

Released = tuple[Path, Result]
Manifest = Callable[..., Path]
UNDATED = {"name": "small", "version": "1.0.0", "license": "CC-BY-4.0"}


class Form(ReportFormat):
    """A form of the report that works."""

    name, version, filename = "mine", "1", "mine.txt"

    def render(self, report: ReleaseReport) -> bytes:
        return report.decision.encode()


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[[type[ReportFormat]], None]:
    """Let the registry have one more form of the report."""

    def add(form: type[ReportFormat]) -> None:
        plain = Registry.all
        origin = Origin(distribution="mine", version="1", module="mine:Form")
        more = (Contribution("report_format", form.name, form.version, "", form, origin, "mine"),)
        monkeypatch.setattr(
            Registry, "all", lambda self, kind: plain(self, kind) + (more if kind == "report_format" else ())
        )

    return add


@pytest.fixture
def again(released: Released, manifest: Manifest, tmp_path: Path) -> Callable[..., Result]:
    """Make the release again, from the step and the images that are there already."""
    words = ("--out", tmp_path / "out", "--work", released[0] / ".work", "--throwaway-key")
    return lambda *more, **sections: publisher("release", manifest(**sections), *words, *more)


# the throwaway key


def test_each_throwaway_key_is_a_new_one_and_nowhere_once_the_release_has_ended(
    again: Callable[..., Result], tmp_path: Path, released: Released, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    result = again()
    assert "thrown away" in result.stdout
    assert str(tmp_path / "out" / "small-1.0.0.pub") in result.stdout
    assert list((tmp_path / "temporary").iterdir()) == []
    for folder in (tmp_path / "out", released[0]):
        assert [path for path in folder.rglob("*") if path.is_file() and b"PRIVATE KEY" in path.read_bytes()] == []
    public = tmp_path / "out" / "small-1.0.0.pub"
    hints = [load_public(path).hint for path in (public, released[0] / "small-1.0.0.pub")]
    assert hints[0] != hints[1]
    assert publisher("verify", tmp_path / "out" / "small-1.0.0", "--key", public).exit_code == 0


def test_a_key_in_a_variable_leaves_its_public_half_beside_the_package(
    released: Released, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate(tmp_path / "a.key", tmp_path / "a.pub", None)
    monkeypatch.setenv("SIGNING_KEY", (tmp_path / "a.key").read_text())
    words = ("--out", tmp_path / "out", "--work", released[0] / ".work", "--key", "env:SIGNING_KEY", "--json")
    told = json.loads(publisher("release", manifest(), *words).stdout)
    assert load_public(Path(told["public_key"])) == load_public(tmp_path / "a.pub")
    assert Path(told["public_key"]) == tmp_path / "out" / "small-1.0.0.pub"


# forms of the report


@pytest.mark.parametrize(
    ("filename", "message"),
    [
        ("../page.txt", "wants to write '../page.txt'"),
        ("table.csv", "is of a type that is not allowed"),
        ("con.json", "has a name that is not allowed"),
        ("timings.json", "which the release itself writes"),
        ("report.json", "two report formats want to write 'report.json'"),
        (7, "wants to write 7"),
    ],
)
def test_a_file_name_that_a_report_cannot_have_stops_the_plan(
    install: Callable[..., None], manifest: Manifest, tmp_path: Path, filename: Any, message: str
) -> None:
    install(type("Bad", (Form,), {"filename": filename}))
    result = publisher("plan", manifest(), "--out", tmp_path / "out")
    assert (result.exit_code, message in result.stderr) == (3, True), result.stderr


def test_a_form_that_cannot_write_any_report_stops_the_plan(
    install: Callable[..., None], manifest: Manifest, tmp_path: Path
) -> None:
    install(type("Bad", (Form,), {"render": lambda _self, report: report.claims[0].nothing}))
    result = publisher("plan", manifest(), "--out", tmp_path / "out")
    assert (result.exit_code, "report format 'mine' crashed" in result.stderr) == (3, True), result.stderr


def test_a_slow_form_is_tried_when_a_release_begins_and_not_by_a_plan(
    install: Callable[..., None], manifest: Manifest, tmp_path: Path
) -> None:
    install(type("Bad", (Form,), {"quick": False, "render": lambda _self, report: report.claims[0].nothing}))
    assert publisher("plan", manifest(), "--out", tmp_path / "out").exit_code == 0
    result = publisher("release", manifest(), "--out", tmp_path / "out", "--throwaway-key")
    assert (result.exit_code, "report format 'mine' crashed" in result.stderr) == (3, True), result.stderr
    assert {path.name for path in (tmp_path / "out").rglob("*")} <= {".work", "lock"}


def test_a_form_that_cannot_write_this_report_leaves_the_others_and_no_package(
    install: Callable[..., None], again: Callable[..., Result], tmp_path: Path
) -> None:
    install(type("Bad", (Form,), {"render": lambda _self, report: {"unknown": b""}[report.decision]}))
    result = again()
    assert (result.exit_code, "report format 'mine' crashed" in result.stderr) == (3, True), result.stderr
    left = {path.name for path in (tmp_path / "out" / "small-1.0.0.report").iterdir()}
    assert {"index.html", "report.json", "timings.json"} <= left
    assert "mine.txt" not in left
    assert not (tmp_path / "out" / "small-1.0.0").exists()


def test_a_form_cannot_change_the_record_that_it_shows(released: Released) -> None:
    class Forger(Form):
        def render(self, report: ReleaseReport) -> bytes:
            for record in (report, report.claims[0], report.claims[0].checks[0]):
                object.__setattr__(record, "decision" if record is report else "verdict", "failed")
            report.steps[0].params["lam"] = 0
            return b""

    data = (released[0] / "small-1.0.0.report" / "report.json").read_bytes()
    record = ReleaseReport.model_validate_json(data)
    render(record, Forger)
    assert record == ReleaseReport.model_validate_json(data)


# the time to sign with


@pytest.mark.parametrize(
    ("epoch", "message"),
    [
        ("yesterday", "is no whole number of seconds since 1970"),
        ("1e9", "is no whole number of seconds since 1970"),
        ("", "is no whole number of seconds since 1970"),
        ("-5", "is a time outside of the years 1970 to 9999"),
        ("253402300800", "is a time outside of the years 1970 to 9999"),
    ],
)
def test_a_time_that_none_is_stops_the_plan(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: str, message: str
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    result = publisher("plan", manifest(release=UNDATED), "--out", tmp_path / "out")
    assert (result.exit_code, message in result.stderr) == (2, True), result.stderr
    assert f"SOURCE_DATE_EPOCH={epoch!r}" in result.stderr
    assert publisher("plan", manifest(release=MANIFEST["release"]), "--out", tmp_path / "out").exit_code == 0


# folders


def file_as_out(out: Path) -> None:
    out.write_text("")


def file_as_work(out: Path) -> None:
    out.mkdir()
    (out / ".work").write_text("")


def dangling_out(out: Path) -> None:
    out.symlink_to("nowhere")


@pytest.mark.parametrize("command", ["plan", "release"])
@pytest.mark.parametrize("make", [file_as_out, file_as_work, dangling_out])
def test_what_is_no_folder_is_said_before_anything_runs(
    manifest: Manifest, tmp_path: Path, make: Callable[[Path], None], command: str
) -> None:
    make(tmp_path / "out")
    key = ["--throwaway-key"] if command == "release" else []
    result = publisher(command, manifest(), "--out", tmp_path / "out", *key)
    assert (result.exit_code, "is no folder" in result.stderr) == (2, True), result.stderr
    assert str(tmp_path / "out") in result.stderr
    assert "--out" in result.stderr


def test_a_folder_that_cannot_be_written_to_is_said_at_plan(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    access = os.access
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != locked and access(path, mode))
    result = publisher("plan", manifest(), "--out", locked / "deep" / "out")
    assert (result.exit_code, f"{locked}: cannot be written to" in result.stderr) == (2, True), result.stderr


def test_a_folder_where_the_lock_goes_is_said(manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "out" / ".work" / "lock").mkdir(parents=True)
    result = publisher("release", manifest(), "--out", tmp_path / "out", "--throwaway-key")
    assert (result.exit_code, "lock: cannot be locked: Is a directory" in result.stderr) == (2, True), result.stderr


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.ENOSPC, "Make room there and run the same command again"),
        (errno.EROFS, "Make it writable"),
        (errno.EIO, "Nothing was left behind"),
    ],
)
def test_what_the_system_refuses_says_where_and_what_next(number: int, hint: str) -> None:
    with pytest.raises(PublisherError, match=f"/there: cannot write: {os.strerror(number)}\n  {hint}"), told():
        raise OSError(number, os.strerror(number), "/there")


def test_a_full_disk_under_the_reports_is_said_and_leaves_no_package(
    again: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        if path.name == "index.html":
            raise files.cannot_write(path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        write_atomic(path, data)

    monkeypatch.setattr("publisher.release.make.write_atomic", full)
    result = again()
    assert (result.exit_code, "No space left on device" in result.stderr) == (3, True), result.stderr
    assert list((tmp_path / "out").iterdir()) == []


# interruptions


def test_an_interruption_after_the_package_is_there_says_so(
    again: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def notify(self: Registry, hook: str, event: Any) -> list[str]:
        if hook == "publisher_on_release_end":
            raise KeyboardInterrupt
        return []

    monkeypatch.setattr(Registry, "notify", notify)
    result = again()
    package = tmp_path / "out" / "small-1.0.0"
    assert result.exit_code == 130
    assert f"Interrupted. The package is complete, signed and verified: {package}" in result.stderr
    assert "resumes" not in result.stderr
    assert publisher("verify", package, "--key", tmp_path / "out" / "small-1.0.0.pub").exit_code == 0


@pytest.mark.slow
def test_an_interruption_before_says_that_the_same_command_resumes_and_it_does(
    again: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("publisher.release.make.sign", interrupted)
        result = again()
    assert (result.exit_code, "The same command resumes." in result.stderr) == (130, True)
    assert again().exit_code == 0
