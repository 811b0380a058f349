from __future__ import annotations

from pathlib import Path

import pytest
import torch
from denoising_cases import make_denoising, seeded, theta_of
from immunize_cases import run

from publisher.api import Model
from publisher_immunize.data import split
from publisher_immunize.denoiser import Denoising
from publisher_immunize.schedule import Probed, Schedule

AUTO = {"schedule": "auto", "auto": {"every": 1, "steps": 2, "lr": 3e-3, "innocent": 0.5}, "delay": 2.0}


def schedule(denoising: Denoising) -> Schedule:
    return Schedule(denoising, denoising, lambda purpose: seeded(len(purpose)))


def test_weights_that_have_not_moved_delay_nothing() -> None:
    denoising = make_denoising(**AUTO)
    found = schedule(denoising).probe(theta_of(denoising, "attn2.to_k.weight"))
    assert found.delay == pytest.approx(1.0)
    assert found.innocent == 0


def test_broken_weights_delay_and_harm() -> None:
    denoising = make_denoising(**AUTO)
    theta = theta_of(denoising, "conv_out.weight")
    with torch.no_grad():
        for value in theta.values():
            value.mul_(3).add_(0.3)
    made = schedule(denoising)
    found = made.probe(theta)
    assert found.delay == 2.0
    assert made.enough(found)
    assert found.innocent > 0.5
    assert not made.harmless(found)


@pytest.mark.slow
def test_the_probe_gives_the_same_number_each_time() -> None:
    denoising = make_denoising(**AUTO)
    made = schedule(denoising)
    theta = theta_of(denoising, "attn2.to_v.weight")
    assert made.probe(theta) == made.probe(theta)


def test_held_out_images_are_others_than_those_of_the_training() -> None:
    denoising = make_denoising()
    training, held = split(denoising.data.concepts)
    for images, (one, other) in zip(denoising.data.concepts, zip(training, held, strict=True), strict=True):
        assert (len(one.latents), len(other.latents)) == (3, 1)
        joined = torch.cat([one.latents, other.latents])
        assert torch.equal(joined, images.latents)
        assert all(len(lines) == 3 for lines in one.captions.values())


def probes(monkeypatch: pytest.MonkeyPatch, *found: Probed) -> None:
    turns = iter(found)
    monkeypatch.setattr(Schedule, "probe", lambda *_: next(turns))


def test_it_stops_when_the_delay_is_reached(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    probes(monkeypatch, Probed(1.2, 0.0), Probed(2.0, 0.1))
    ctx = run(model, tmp_path, **AUTO, steps=4)
    assert next(number.value for number in ctx.numbers if number.name == "outer steps") == 2
    assert any("2.0 times as long at step 2" in warning for warning in ctx.warnings)


def test_where_kept_images_suffer_the_weights_before_are_taken(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probes(monkeypatch, Probed(1.2, 0.0), Probed(1.5, 0.9))
    ctx = run(model, tmp_path / "two", **AUTO, steps=4)
    assert any("kept images suffer at step 2" in warning for warning in ctx.warnings)
    probes(monkeypatch, Probed(1.2, 0.0))
    one = run(model, tmp_path / "one", **AUTO, steps=1)
    assert all(torch.equal(value, one.tensors[name]) for name, value in ctx.tensors.items())


def test_where_they_suffer_at_once_the_model_stays_as_it_was(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probes(monkeypatch, Probed(4.0, 0.9))
    ctx = run(model, tmp_path, **AUTO, steps=4)
    assert all(torch.equal(value, model.read(*name)) for name, value in ctx.tensors.items())
    assert any("left as they were" in warning for warning in ctx.warnings)


@pytest.mark.slow
def test_a_stopped_run_that_is_asked_again_has_stopped(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probes(monkeypatch, Probed(2.0, 0.0))
    first = run(model, tmp_path, **AUTO, steps=4)
    second = run(model, tmp_path, **AUTO, steps=4)
    assert all(torch.equal(value, second.tensors[name]) for name, value in first.tensors.items())
    assert second.warnings == first.warnings
