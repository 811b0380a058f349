"""What ``publisher slices train`` reads: a base model, bodies of data, replay pictures and one recipe for all stages.

Nothing in the recipe may be derived from the data: steps are a number, never epochs over all slices. Otherwise what a
stage is would depend on slices that it never saw.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from publisher.api import Params
from publisher.errors import ManifestError
from publisher.manifest.loader import read_bytes, validated
from publisher.manifest.reader import Reading
from publisher.manifest.schema import Id, Text
from publisher.manifest.templates import placeholders


def _caption(text: str) -> str:
    if unknown := set(placeholders(text)) - {"a", "name"}:
        raise ValueError(f"{{{min(unknown)}}} is no placeholder of captions; there are {{a}} and {{name}}")
    return text


Caption = Annotated[str, Field(min_length=1), AfterValidator(_caption)]


class DataEntry(Params):
    """One body of data that can be withdrawn: a slice."""

    id: Id
    """Name of the slice."""
    holder: str = ""
    """Holder of the rights, for the ledger."""
    licence: str = ""
    """Licence or contract, for the ledger."""
    images: tuple[Text, ...] = Field(min_length=1)
    """PNG or JPEG files, or folders of them, seen from this file."""
    caption: Caption | None = None
    """Caption of every picture: ``{name}`` is its file's name with spaces for dashes and underscores, ``{a}`` its
    article. Default: a text file of the picture's name beside it, such as ``cat.txt`` for ``cat.png``."""
    rest_of: tuple[Text, ...] = ()
    """Ids of withdrawn slices, pictures of which may be in this one again, as when one picture of a slice had to go.
    Without it such a picture is refused. The ledger says so too."""


class ReplayEntry(Params):
    """Pictures that all stages see and nobody withdraws: the base model generates them, so that it stays what it is.

    Stages do not learn them: each is held to what the model says of them without it.
    """

    prompts: tuple[Caption, ...] = Field(min_length=1)
    """Prompts and captions of the pictures, in turn; with ``names`` a template of ``{name}`` and ``{a}``."""
    names: tuple[Text, ...] = ()
    """Names that stand for ``{name}`` in each prompt."""
    images: int = Field(default=48, ge=1, le=100_000)
    """Number of pictures."""
    steps: int = Field(default=20, ge=1, le=1000)
    """Sampling steps."""
    guidance: float = Field(default=7.5, ge=0, le=100)
    """Classifier-free guidance scale."""
    share: float = Field(default=1 / 3, gt=0, lt=1)
    """Share of each batch."""
    weight: float = Field(default=10.0, gt=0, le=1e6)
    """Weight in the loss of what adapters change on these pictures; the diffusion loss of the slices has 1."""


class StageRecipe(Params):
    """What every stage is trained with: low-rank adapters and AdamW on the ordinary diffusion loss."""

    rank: int = Field(default=16, ge=1, le=1024)
    """Rank of each adapter."""
    convolutions: bool = True
    """Whether convolutions are adapted too, where the family names some."""
    steps: int = Field(default=2000, ge=1, le=10_000_000)
    """Training steps of a stage."""
    lr: float = Field(default=1e-4, gt=0, le=1)
    """Learning rate."""
    batch: int = Field(default=8, ge=1, le=4096)
    """Pictures of one step, replay included."""
    share_of_new: float = Field(default=0.5, gt=0, le=1)
    """Share of the newest slice among the slices' pictures of a batch, in a sequence."""
    clip: float = Field(default=1.0, gt=0, le=1e6)
    """Largest norm of a step's gradient."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed that all random numbers come from."""


class SliceTraining(Params):
    """A file of ``publisher slices train``."""

    slices: Literal[1]
    """Version of this format."""
    model: Text
    """The base model, as a manifest names it."""
    mode: Literal["independent", "sequence"] = "independent"
    """``independent``: one adapter a slice, each trained on the base model alone. ``sequence``: stages build on each
    other, in one or several orders of the slices."""
    orders: int = Field(default=1, ge=1, le=1000)
    """Number of orders of a sequence: rotations, so that as many slices are first once."""
    data: tuple[DataEntry, ...] = Field(min_length=1)
    """The slices."""
    withdrawn: tuple[Text, ...] = ()
    """Ids of slices that were withdrawn since an earlier training in this folder: their pictures are not read, so they
    may be gone. Their entries stay under ``data``, as the places of others depend on them."""
    replay: ReplayEntry | None = None
    """Pictures that all stages see; None: a first stage may take over prompts that it never saw."""
    recipe: StageRecipe = StageRecipe()
    """What stages are trained with."""

    @property
    def live(self) -> tuple[DataEntry, ...]:
        """The slices that were not withdrawn, in their order."""
        return tuple(entry for entry in self.data if entry.id not in self.withdrawn)


@dataclass(frozen=True)
class TrainingFile:
    """A well-formed file of a training by slices."""

    path: Path
    """Path as the user gave it; what it names is seen from its folder."""
    training: SliceTraining
    """What it says."""


def read_training(path: Path) -> TrainingFile:
    """Read the file of a training by slices.

    Raises:
        ManifestError: with every problem found.
        UsageError: the file cannot be read.
    """
    reading = Reading(read_bytes(path, "a file of slices; docs/how-to/withdraw-data.md has one to copy"), "slices")
    training = validated(reading, SliceTraining) if reading.complete else None
    for keys, message in _problems(training) if training else ():
        reading.problems.at_value(keys, message)
    if training is None or len(reading.problems):
        raise ManifestError(str(path), list(reading.problems))
    return TrainingFile(path, training)


def _problems(training: SliceTraining) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield what is wrong with the file as a whole, and where."""
    ids = [entry.id for entry in training.data]
    for number, name in enumerate(ids):
        if name in ids[:number]:
            yield ("data", number, "id"), f"the slice '{name}' is there twice."
    if training.mode == "independent" and training.orders > 1:
        yield ("orders",), "independent stages have no orders; only a sequence has."
    if training.orders > len(ids):
        yield ("orders",), f"{len(ids)} slices have {len(ids)} rotations, so there are at most as many orders."
    for number, name in enumerate(training.withdrawn):
        if name not in ids or name in training.withdrawn[:number]:
            what = "is there twice" if name in ids else "is not under 'data'; a withdrawn slice's entry stays there"
            yield ("withdrawn", number), f"the slice '{name}' {what}."
    if not training.live:
        yield ("withdrawn",), "every slice was withdrawn: there is nothing to train; release the base model."
    new, rest, replay = shares(training, first=False)
    many = training.mode == "sequence" and len(ids) > 1
    if new < 1 or (many and rest < 1) or (training.replay and replay < 1):
        yield ("recipe", "batch"), f"a batch of {training.recipe.batch} pictures has no room for every share of it."
    templates = training.replay.prompts if training.replay and training.replay.names else ()
    if templates and not any("name" in placeholders(one) for one in templates):
        yield ("replay", "names"), "no prompt has {name} in it."


def shares(training: SliceTraining, *, first: bool) -> tuple[int, int, int]:
    """Return how many pictures of a batch are of the newest slice, of the earlier ones, and replay.

    Args:
        training: the file.
        first: whether the stage is the first of its order, or independent.
    """
    batch = training.recipe.batch
    replay = round(batch * training.replay.share) if training.replay else 0
    own = batch - replay
    new = own if first or training.mode == "independent" else ceil(own * training.recipe.share_of_new)
    return new, own - new, replay
