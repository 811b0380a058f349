"""Calibration sheets: counted in sorted images, bound to what they were made with, carried and verified."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from publisher.api import CalibrationSheet
from publisher.builtin.metrics.corrections import upper_end
from support.foreign import installed_plugin
from support.releasing import MANIFEST, publisher

Manifest = Callable[..., Path]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The third party's distribution, which has a scorer with strengths."""
    with installed_plugin("looks", tmp_path, monkeypatch):
        yield


def pictures(folder: Path, count: int, red: float, spread: float = 0.1) -> Path:
    """Write images of this redness; a tenth of them is far from it."""
    samples = np.random.default_rng(int(1000 * red) + count)
    folder.mkdir(parents=True)
    for i in range(count):
        level = red + spread * samples.standard_normal() - (0.5 if i % 10 == 0 and red > 0 else 0)
        pixels = np.full((32, 32, 3), 128.0)
        pixels[..., 0] += 127 * np.clip(level, -1, 1)
        pixels[0, :2] = (i,), (100 * red,)  # no two are equal
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i:03}.png")
    return folder


def redness(**changes: Any) -> dict[str, Any]:
    return {"sampling": MANIFEST["evaluate"]["sampling"] | {"images": 60}, "scorers": [{"use": "redness", **changes}]}


def calibrated(path: Path, *words: object, concept: str = "cigarette", scorer: str = "redness") -> Any:
    return publisher("calibrate", path, "--scorer", scorer, "--concept", concept, *words)


@pytest.mark.usefixtures("installed")
def test_half_of_the_images_choose_the_threshold_and_the_others_are_counted(manifest: Manifest, tmp_path: Path) -> None:
    path, sheet = manifest(evaluate=redness(), keep={}), tmp_path / "sheets" / "red.json"
    sides = [pictures(tmp_path / "red", 60, 0.5), pictures(tmp_path / "grey", 60, 0.0)]
    shutil.copy(sides[0] / "001.png", sides[0] / "again.png")
    words = ("--positives", sides[0], "--negatives", sides[1], "--out", sheet, "--about", "noise, sorted by one person")
    done = calibrated(path, *words)
    assert done.exit_code == 0, done.output
    found = CalibrationSheet.parse(json.loads(sheet.read_text()))
    assert (found.positives.n, found.negatives.n, found.duplicates, found.size) == (30, 30, 1, (32, 32))
    assert found.chosen_on is not None
    assert (found.chosen_on[0].n, found.chosen_on[1].hits) == (30, 0)  # 0.98 of 30 leaves no false alarm
    assert found.positives.hits >= 24
    threshold = found.params["threshold"]
    assert 0.05 < threshold < 0.5
    assert f"with: {{threshold: {threshold!r}}}" in done.stdout
    end = upper_end(0, 300, found.positives.hits, 30)
    assert f"none of 300 images would then show: at most {end:.2%}" in done.stdout
    assert publisher("calibrate", path, "--scorer", "redness", "--concept", "cigarette", *words).exit_code == 2

    entry = {"calibration": "sheets/red.json", "with": {"threshold": threshold}}
    plans = {
        "right": manifest(evaluate=redness(**entry), keep={}),
        "other": tmp_path / "other.yaml",
    }
    data = json.loads(plans["right"].read_text())
    data["evaluate"]["scorers"][0]["with"]["threshold"] = 0.25
    plans["other"].write_text(json.dumps(data))
    said = {name: publisher("plan", one, "--work", tmp_path / "work", "--json") for name, one in plans.items()}
    assert said["right"].exit_code == 0, said["right"].output
    assert json.loads(said["right"].stdout)["judges"][0]["calibrated"] == ["cigarette"]
    assert said["other"].exit_code == 4
    reason = f"does not hold here: its params have 'threshold' {threshold!r}, here it is 0.25"
    assert reason in said["other"].stdout


@pytest.mark.usefixtures("installed")
def test_too_few_images_and_images_on_both_sides_are_refused(manifest: Manifest, tmp_path: Path) -> None:
    path = manifest(evaluate=redness(), keep={})
    red, grey = pictures(tmp_path / "red", 25, 0.5), pictures(tmp_path / "grey", 25, 0.0)
    for i in range(19, 25):
        shutil.copy(red / "000.png", red / f"{i:03}.png")
    words = ("--negatives", grey, "--out", tmp_path / "red.json")
    few = calibrated(path, "--positives", red, *words)
    assert few.exit_code == 2
    assert "19 different images are too few: of 25 files, 6 repeat the pixels of others" in few.stderr
    shutil.copytree(grey, tmp_path / "mixed")
    both = calibrated(path, "--positives", tmp_path / "mixed", *words)
    assert (both.exit_code, "has the pixels of" in both.stderr) == (2, True)
    (grey / "x.png").write_text("no image")
    broken = calibrated(path, "--positives", red, *words)
    assert (broken.exit_code, "x.png" in broken.stderr) == (2, True)
    assert not (tmp_path / "red.json").exists()


@pytest.mark.usefixtures("installed")
def test_images_that_two_people_sort_alike_are_counted(manifest: Manifest, tmp_path: Path) -> None:
    path, sheet = manifest(evaluate=redness(), keep={}), tmp_path / "red.json"
    mine = [pictures(tmp_path / "anna" / "red", 50, 0.5), pictures(tmp_path / "anna" / "grey", 50, 0.0)]
    shutil.copytree(tmp_path / "anna", tmp_path / "ben")
    theirs = [tmp_path / "ben" / "red", tmp_path / "ben" / "grey"]
    for i in (1, 2, 3):
        shutil.move(theirs[0] / f"00{i}.png", theirs[1] / f"doubtful {i}.png")
    (theirs[1] / "007.png").unlink()  # never sorted by Ben
    words = ("--positives", mine[0], "--negatives", mine[1], "--out", sheet)
    done = calibrated(path, *words, "--again", *theirs)
    assert done.exit_code == 0, done.output
    assert "two people sorted 99 of these images, 96 of them alike" in done.stdout
    found = CalibrationSheet.parse(json.loads(sheet.read_text()))
    assert found.labellers is not None
    assert (found.labellers.alike, found.labellers.n) == (96, 99)
    assert found.chosen_on is not None
    assert (found.positives.n + found.chosen_on[0].n, found.negatives.n + found.chosen_on[1].n) == (47, 49)
    sheet.unlink()
    other = calibrated(path, *words, "--again", theirs[1], theirs[0])
    assert (other.exit_code, sheet.exists()) == (2, False)
    assert "of 99 that both sorted, 3 alike" in other.stderr


@pytest.mark.usefixtures("installed")
def test_a_scorer_that_may_be_no_better_than_chance_gets_no_sheet(manifest: Manifest, tmp_path: Path) -> None:
    path = manifest(evaluate=redness(**{"with": {"threshold": 0.0}}), keep={})
    sides = [pictures(tmp_path / name, 40, level) for name, level in (("one", 0.02), ("other", 0.01))]
    done = calibrated(path, "--positives", sides[0], "--negatives", sides[1], "--out", tmp_path / "red.json")
    assert done.exit_code == 1
    assert "the scorer may be no better than chance about 'cigarette'" in done.stdout
    assert not (tmp_path / "red.json").exists()


def test_images_of_one_folder_stay_on_one_side_of_the_cut() -> None:
    import torch

    from publisher.release.sorted_images import Sides, SortedImage, halves

    blank = torch.zeros(3, 1, 1, dtype=torch.uint8)
    images = tuple(SortedImage(f"{i}", blank, f"{i}", f"shoot {i // 7}") for i in range(60))
    first, second = halves(Sides(images, images), 3)
    folders = [{image.folder for image in half.positives} for half in (first, second)]
    assert not folders[0] & folders[1]
    assert min(len(first.positives), len(second.positives)) >= 20
    assert [one.name for one in halves(Sides(images, images), 3)[0].negatives] == [one.name for one in first.negatives]


@pytest.mark.slow
def test_a_sheet_of_the_base_models_images_travels_in_the_package_and_is_verified(
    manifest: Manifest, released: tuple[Path, Result], tmp_path: Path
) -> None:
    sheet, work = tmp_path / "cigarette.json", released[0] / ".work"
    done = calibrated(manifest(), "--from-base", 20, "--out", sheet, "--work", tmp_path / "base", scorer="emoji")
    assert done.exit_code == 0, done.output
    found = CalibrationSheet.parse(json.loads(sheet.read_text()))
    assert (found.method, found.positives.n, found.negatives.n >= 20) == ("base", 20, True)
    evaluate = {**MANIFEST["evaluate"], "scorers": [{"use": "emoji", "calibration": ["cigarette.json"]}]}
    del evaluate["scorer"]
    out = tmp_path / "out"
    words = ("--out", out, "--work", work, "--throwaway-key", "--json")
    done = publisher("release", manifest(evaluate=evaluate), *words)
    assert done.exit_code == 0, done.output
    package, file = out / "small-1.0.0", "calibration/emoji.object.cigarette.json"
    report = json.loads((package / "release" / "reports" / "report.json").read_text())
    checks = {check["id"]: check["measurement"] for claim in report["claims"] for check in claim["checks"]}
    plain = checks["erase.cigarette.plain"]
    assert plain["details"]["errors"]["cigarette"]["source"] == file
    assert plain["hardened"]["high"] > plain["seen"]["high"]
    assert checks["erase.kept"]["details"]["errors"]["source"] == ""
    again = publisher("evaluate", package, "--base", "embedded:emoji", "--out", tmp_path / "again", "--json")
    assert again.exit_code == 0, again.output
    tested = json.loads(next((tmp_path / "again").rglob("report.json")).read_text())
    measured = {check["id"]: check["measurement"] for claim in tested["claims"] for check in claim["checks"]}
    assert measured["erase.cigarette.plain"] == plain
    key = ("--key", out / "small-1.0.0.pub")
    assert publisher("verify", package, *key).exit_code == 0
    place = package / "release" / "reports" / file
    place.write_text(place.read_text().replace('"n": 20', '"n": 21'))
    changed = publisher("verify", package, *key)
    assert (changed.exit_code, file in changed.stdout) == (1, True)
