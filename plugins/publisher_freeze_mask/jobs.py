"""The fine-tunings of one mask, one after the other: adapt, score, keep what is needed; finished ones are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path as Folder
from typing import Literal

import torch
from torch import Tensor

from publisher.api.diffusion.checkpoints import Checkpoints, Unusable
from publisher_freeze_mask.adapt import Attacker
from publisher_freeze_mask.material import Album, Material
from publisher_freeze_mask.params import FreezeMaskParams
from publisher_freeze_mask.path import Path, path_scores
from publisher_freeze_mask.place import Loss

Side = Literal["illegal", "innocent"]


@dataclass(frozen=True)
class Job:
    """One fine-tuning to do."""

    side: Side
    label: str
    """Unique in a mask, such as ``"illegal 1 name"``."""
    album: Album


@dataclass(frozen=True)
class Adapted:
    """One that is done."""

    job: Job
    path: Path
    losses: tuple[float, ...]
    """Of training, each step."""
    delta: Mapping[str, Tensor]
    """theta_ft - theta_pre; empty where the recipe needs the scores alone."""
    batches: tuple[Loss, ...]
    """L, on what the scores are of."""


def jobs(params: FreezeMaskParams, material: Material) -> list[Job]:
    """What there is to do, illegal ones first. The released recipe has one theta_ft, of both sides."""
    if params.recipe == "released":
        albums = (*(one for ones in material.illegal.values() for one in ones), *material.innocent)
        return [Job("illegal", "both", Album.join(albums))]
    found: list[tuple[Side, str, Album]] = []
    for kind, albums in material.illegal.items():
        found += [("illegal", f"{turn} {kind}", album) for turn, album in _parts(params, albums)]
    found += [("innocent", f"{turn} rare", album) for turn, album in _parts(params, material.innocent)]
    repeats = range(1, params.adapt.seeds + 1)
    return [Job(side, f"{side} {label} {i}", album) for side, label, album in found for i in repeats]


@dataclass(frozen=True)
class Worker:
    """Does them.

    Args:
        attacker: the fine-tuning.
        params: every None replaced.
        generator: purpose -> a generator, from its beginning.
        folder: of checkpoints.
        identity: digest of all that the results depend on.
        progress: is told how many steps more are done, and a line.
        warn: is told what the report should say.
    """

    attacker: Attacker
    params: FreezeMaskParams
    generator: Callable[[str], torch.Generator]
    folder: Folder
    identity: str
    progress: Callable[[int, str], None]
    warn: Callable[[str], None]

    def __call__(self, job: Job, seed: int) -> Adapted:
        """One fine-tuning and its scores.

        Args:
            job: what to learn.
            seed: of the mask; 0 is the one that is published.
        """
        name = f"seed-{seed} {job.label}".replace(" ", "-")
        checkpoints = Checkpoints(self.folder, name, self.identity)
        batches = self._batches(job, name)
        saved = self._load(checkpoints)
        if saved is not None and "ends" in saved:
            self.progress((self.params.adapt.steps or 0) + 1, job.label)
            return _unpacked(job, saved, batches)
        delta, losses = self._learn(job, self.generator(f"{name}/train"), checkpoints, saved)
        path = path_scores(self.attacker.place, delta, batches, self.params.score.points)
        self.progress(1, f"{job.label}: scored")
        kept = {} if self.params.recipe == "path" else delta
        done = Adapted(job, path, tuple(losses), kept, batches)
        checkpoints.save(len(losses) + 1, _packed(done))
        return done

    def _learn(
        self, job: Job, generator: torch.Generator, checkpoints: Checkpoints, saved: Mapping[str, Tensor] | None
    ) -> tuple[dict[str, Tensor], list[float]]:
        done = 0 if saved is None else len(saved["losses"])
        self.progress(done, job.label)

        def told(loss: float, snapshot: Callable[[], dict[str, Tensor]]) -> None:
            nonlocal done
            done += 1
            if done % self.params.checkpoint_every == 0:
                checkpoints.save(done, snapshot())
            self.progress(1, f"{job.label}: loss {loss:.3f}")

        return self.attacker(job.album, generator, saved, told)

    def _batches(self, job: Job, name: str) -> tuple[Loss, ...]:
        generator, score, material = self.generator(f"{name}/score"), self.params.score, self.attacker.material
        sampled = [material.spread(job.album, score.batch, generator) for _ in range(score.batches)]
        return tuple(partial(material.loss, self.attacker.denoiser, job.album, one) for one in sampled)

    def _load(self, checkpoints: Checkpoints) -> dict[str, Tensor] | None:
        try:
            found = checkpoints.load()
        except Unusable as error:
            self.warn(f"the checkpoint {checkpoints.name} {error}; this fine-tuning began anew")
            return None
        return None if found is None else found[1]


def _parts(params: FreezeMaskParams, albums: Sequence[Album]) -> list[tuple[str, Album]]:
    if params.adapt.learn == "together":
        return [("all", Album.join(albums))]
    return [(str(turn), album) for turn, album in enumerate(albums, 1)]


def _packed(done: Adapted) -> dict[str, Tensor]:
    return {
        **{f"score|{name}": values for name, values in done.path.scores.items()},
        **{f"delta|{name}": values for name, values in done.delta.items()},
        "losses": torch.tensor(done.losses, dtype=torch.float64),
        "ends": torch.tensor([done.path.before, done.path.after], dtype=torch.float64),
    }


def _unpacked(job: Job, saved: Mapping[str, Tensor], batches: tuple[Loss, ...]) -> Adapted:
    groups: dict[str, dict[str, Tensor]] = {"score": {}, "delta": {}}
    for key, value in saved.items():
        group, _, name = key.partition("|")
        if name:
            groups[group][name] = value
    before, after = saved["ends"].tolist()
    return Adapted(job, Path(groups["score"], before, after), tuple(saved["losses"].tolist()), groups["delta"], batches)
