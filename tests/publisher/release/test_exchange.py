"""What is signed is what was judged: what writes to the package meanwhile stops the release."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from publisher.model.digest import sha256_file
from publisher.model.lock import named
from publisher.package import build, sums
from publisher.package.layout import SUMS
from publisher.registry import Registry
from publisher.release import make
from publisher_emoji import model_folder
from support.releasing import publisher

Released = tuple[Path, Result]
Manifest = Callable[..., Path]
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def exchange(folder: Path) -> None:
    shutil.copyfile(model_folder() / WEIGHTS, folder / WEIGHTS)


def exchange_and_restore(folder: Path) -> None:
    judged = (folder / WEIGHTS).read_bytes()
    exchange(folder)
    (folder / WEIGHTS).write_bytes(judged)


def add(folder: Path) -> None:
    (folder / "unet/more.safetensors").write_bytes(b"")


@pytest.fixture
def again(released: Released, manifest: Manifest, tmp_path: Path) -> Callable[[], Result]:
    """Make the release again, from the step and the images that are there already."""
    words = ("--out", tmp_path / "out", "--work", released[0] / ".work", "--throwaway-key")
    return lambda: publisher("release", manifest(), *words)


def stopped(result: Result, out: Path) -> None:
    assert (result.exit_code, "something changed the package" in result.stderr) == (3, True), result.stderr
    assert WEIGHTS in result.stderr or "unet/more.safetensors" in result.stderr
    assert not list(out.glob("small-1.0.0"))
    assert not list(out.glob(".small*"))


@pytest.mark.parametrize("change", [exchange, exchange_and_restore, add])
def test_what_an_observer_writes_while_the_package_is_judged_is_never_signed(
    again: Callable[[], Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    def notify(self: Registry, hook: str, event: Any) -> list[str]:
        if hook == "publisher_on_package_built":
            change(next((tmp_path / "out").glob(".small-1.0.0.partial-*")))
        return []

    monkeypatch.setattr(Registry, "notify", notify)
    stopped(again(), tmp_path / "out")


@pytest.mark.parametrize("module", [build, make])
def test_what_is_written_after_the_judgement_is_never_signed(
    again: Callable[[], Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any
) -> None:
    name = "finish" if module is build else "sign"
    plain = getattr(module, name)

    def late(folder: Path, *words: Any, **options: Any) -> Any:
        exchange(folder)
        if module is make:  # the list of digests exists already: exchange it as well
            digests = sums.parse((folder / SUMS).read_bytes()) | {WEIGHTS: sha256_file(folder / WEIGHTS)}
            (folder / SUMS).write_bytes(sums.render(digests))
        return plain(folder, *words, **options)

    monkeypatch.setattr(module, name, late)
    stopped(again(), tmp_path / "out")


def test_a_base_model_that_changes_under_the_release_stops_it(
    again: Callable[[], Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    stamps = iter([{"a": 1}, {"a": 2}])
    monkeypatch.setattr(make, "stamps", lambda _: next(stamps))
    result = again()
    assert (result.exit_code, "the base model changed" in result.stderr) == (3, True), result.stderr


def test_two_releases_of_one_name_do_not_meet_in_one_folder(manifest: Manifest, tmp_path: Path) -> None:
    words = ("--out", tmp_path / "out", "--work", tmp_path / "work", "--throwaway-key")
    with named(tmp_path / "out" / "small-1.0.0"):
        result = publisher("release", manifest(), *words)
    assert (result.exit_code, "another run is making a package of this name" in result.stderr) == (3, True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == []


@pytest.mark.parametrize("name", ["small-1.0.0", "small-1.0.0.report", ".small-1.0.0.partial", ".small-1.0.0.lock"])
def test_a_link_where_the_release_writes_is_not_followed(manifest: Manifest, tmp_path: Path, name: str) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).symlink_to(mine)
    result = publisher("release", manifest(), "--out", tmp_path / "out", "--throwaway-key")
    assert (result.exit_code, str(tmp_path / "out" / name) in result.stderr) == (2, True), result.stderr
    assert not list(mine.iterdir())


@pytest.mark.slow
def test_what_a_killed_run_has_left_is_removed(again: Callable[[], Result], tmp_path: Path) -> None:
    left = tmp_path / "out" / ".small-1.0.0.partial-killed"
    left.mkdir(parents=True)
    (left / "model.sig").touch()
    assert again().exit_code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "small-1.0.0",
        "small-1.0.0.pub",
        "small-1.0.0.report",
    ]
