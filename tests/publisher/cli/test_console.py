"""A log says how far a phase is and how long it will take."""

from __future__ import annotations

import re

import pytest

from publisher.cli import console


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [re.sub(r" \[.*\]", "", line) for line in capsys.readouterr().err.splitlines()]


def test_each_phase_of_a_stage_has_a_time_left_of_its_own(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with console.Terminal() as terminal:
        for at, done, total, text in (
            (0, 0, 80, "reference images"),
            (5, 1, 80, "reference images"),  # within 15 s of the line before
            (20, 4, 80, "reference images"),
            (400, 80, 80, "reference images"),
            (401, 0, 10, "images encoded"),
            (421, 5, 10, "images encoded"),
            (441, 2, 10, "texts encoded"),  # of as many texts as images
            (461, 4, 10, "texts encoded"),
        ):
            clock[0] = 100.0 + at
            terminal.update("immunize", done, total, text)
    assert lines(capsys) == [
        "immunize: 0/80 reference images",
        "immunize: 4/80 reference images, 6:20 left",
        "immunize: 80/80 reference images",
        "immunize: 5/10 images encoded, 0:20 left",
        "immunize: 2/10 texts encoded",
        "immunize: 4/10 texts encoded, 1:00 left",
    ]
