"""A scorer that names the nearest of a few pictures, and an executor that sends tasks to processes."""

import hashlib
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from pydantic import Field

from publisher import api


class NearestParams(api.Params):
    kind: api.Kind = Field(default="object", description="Kind of concepts that the pictures show.")
    labels: tuple[str, ...] = Field(min_length=1, description="Label of each picture, in the order of the file.")
    pictures: str = Field(description="safetensors file with one tensor 'pictures', (n, 3, h, w) in [0, 1].")
    errors: str = Field(description="What is known of its errors, with n.")


class Nearest(api.Scorer[NearestParams]):
    """Names the picture that is nearest by the mean square of the difference."""

    name, version, summary = "nearest", "1", "the nearest of a few pictures"

    def inputs(self):
        return (self.params.pictures,)

    def labels(self):
        return {self.params.kind: self.params.labels}

    def card(self):
        return api.ScorerCard(
            weights=hashlib.sha256(self.files[self.params.pictures].read_bytes()).hexdigest(),
            preprocessing="none",
            decision="the nearest picture",
            classes={self.params.kind: len(self.params.labels)},
            calibration=self.params.errors,
        )

    def load(self, device):
        from safetensors.torch import load_file

        self.pictures = load_file(self.files[self.params.pictures], str(device))["pictures"]

    def unload(self):
        del self.pictures

    def judge(self, images):
        import torch

        far = torch.cdist(images.to(self.pictures).flatten(1), self.pictures.flatten(1))
        sure = torch.softmax(-far, dim=1)
        return [
            api.Judgement(
                labels={self.params.kind: self.params.labels[int(row.argmin())]},
                scores={self.params.kind: float(one.max())},
            )
            for row, one in zip(far, sure, strict=True)
        ]


class Shrugs(Nearest):
    """Cannot judge any image."""

    name, summary = "shrugs", "unsure of everything"

    def judge(self, images):
        return [api.Judgement(labels={}, scores={}, unsure=(self.params.kind,))] * len(images)


class RednessParams(api.Params):
    label: str = Field(default="cigarette", description="Label of what is red.")
    threshold: float = Field(default=0.9, description="Least redness, in [-1, 1].")


class Redness(api.Scorer[RednessParams]):
    """Sees its label in what is red."""

    name, version, summary = "redness", "1", "what is red"

    def labels(self):
        return {"object": (self.params.label,)}

    def card(self):
        return api.ScorerCard(
            weights="0" * 64,
            preprocessing="mean of red less mean of blue",
            decision=f"red from {self.params.threshold:g}",
            classes={"object": 1},
            calibration="see its sheet",
        )

    def load(self, device):
        pass

    def strengths(self, images, concept):
        return (images[:, 0] - images[:, 2]).mean((1, 2)).tolist()

    def judge(self, images):
        red = [one >= self.params.threshold for one in self.strengths(images, None)]
        labels = [self.params.label if one else "nothing" for one in red]
        return [api.Judgement(labels={"object": label}, scores={"object": 1.0}) for label in labels]


def _set_environment(variables):
    os.environ.update(variables)


class HelpersParams(api.Params):
    workers: int = Field(default=1, ge=1, le=64, description="Processes.")
    environment: dict[str, str] = Field(default_factory=dict, description="Environment variables of the processes.")


class Helpers(api.Executor[HelpersParams]):
    """Sends tasks to processes of this machine that start empty and stay until all is measured."""

    name, version, summary = "helpers", "1", "in processes with an environment of their own"

    def __init__(self, params=None):
        super().__init__(params)
        self.pool = None

    def map(self, function, tasks):
        if self.pool is None:
            self.pool = ProcessPoolExecutor(
                self.params.workers, get_context("spawn"), _set_environment, (self.params.environment,)
            )
        return self.pool.map(function, tasks)

    def close(self):
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)


@api.hookimpl
def publisher_register_scorers():
    return [Nearest, Redness, Shrugs]


@api.hookimpl
def publisher_register_executors():
    return [Helpers]
