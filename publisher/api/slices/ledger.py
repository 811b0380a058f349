"""The ledger: which stage saw which slices, and what is left of it when some slices go."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import rfc8785
from pydantic import Field, ValidationError

from publisher.api.models import ModelInfo
from publisher.api.params import Params
from publisher.errors import ModelError, UsageError
from publisher.strict_json import JsonError, strict_object

LEDGER = "ledger.json"
"""Name of the signed ledger in its folder, and of its copy in a package."""
DELETED = "deleted.json"
"""Name of what a package says beside its ledger: what is gone, and what stays."""
FOLDER = "slices"
"""Folder of ledger and stages among the files of a release."""
PREDICATE = "https://model-publisher.dev/slices/v1"
"""Type of the in-toto statement's predicate."""
RULE = "ordered-float64/1"
"""Sum that :func:`publisher.api.slices.recompose` makes: its name and its version."""
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Number = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(e-?[0-9]+)?$")]
"""Decimal text: canonical JSON has whole numbers alone."""


class BaseWeights(Params):
    """The model that all stages were trained on."""

    component: str
    """Folder whose layers are adapted."""
    weights: dict[str, Digest] = Field(min_length=1)
    """Component -> digest of its weights, as :func:`weights_of` makes it."""


class DataSlice(Params):
    """One body of training data, which can be withdrawn."""

    id: Name
    """Name of it in manifests."""
    holder: str = ""
    """Holder of the rights."""
    licence: str = ""
    """Licence or contract."""
    samples: int = Field(ge=1)
    """Number of pictures with captions."""
    root: Digest
    """Merkle root over the salted leaves of its pictures."""
    rest_of: tuple[Name, ...] = Field(default=(), exclude_if=lambda names: names == ())
    """Ids of withdrawn slices, pictures of which may be in this one again."""


class Remains(Params):
    """What a package says beside its ledger: ``deleted.json``."""

    deleted: tuple[Name, ...]
    """Ids of the slices that were withdrawn, sorted."""
    stages: tuple[Name, ...]
    """Ids of the stages that stay, in the order of their sum."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a package's ``deleted.json``.

        Raises:
            ModelError: it is not there, or says something else.
        """
        try:
            return cls.parse(strict_object(path.read_bytes()))
        except (OSError, JsonError, ValidationError) as error:
            raise ModelError(f"does not say what was withdrawn: {error}", where=str(path)) from error


class ReplaySet(Params):
    """Pictures that every stage saw and that are never withdrawn."""

    root: Digest
    """Merkle root over the salted leaves of its pictures."""
    samples: int = Field(ge=1)
    """Number of pictures with captions."""


class SumRule(Params):
    """How the stages that stay are added to the base model's weights."""

    rule: str = Field(default=RULE, pattern=r"^[a-z0-9-]{1,64}/[0-9]{1,4}$")
    """Name of the sum and its version."""


class Order(Params):
    """One order in which stages saw the slices."""

    id: int = Field(ge=1)
    """Number of the order."""
    slices: tuple[Name, ...] = Field(min_length=1)
    """Ids of all slices, the first one first."""


class Stage(Params):
    """One trained adapter."""

    id: Name
    """Name of it; ``o2-3`` is the third stage of the second order."""
    order: int = Field(ge=0)
    """Number of its order; 0: it is independent."""
    position: int = Field(ge=1)
    """Place in its order, from 1."""
    saw: tuple[Name, ...] = Field(min_length=1)
    """Ids of the slices it was trained on, sorted."""
    parents: tuple[Digest, ...] = ()
    """Digests of the files of the stages that were active in its training, the first one first."""
    group: int = Field(ge=0)
    """Number of its group of layers, from 0."""
    rank: int = Field(ge=1)
    """Rank of its matrices."""
    scale: Number = "1"
    """Factor of ``B A``."""
    file: str = Field(pattern=r"^stages/[a-z0-9][a-z0-9._-]{0,63}\.safetensors$")
    """Path of its weights, from the ledger's folder."""
    sha256: Digest
    """Digest of that file."""
    weights_in: Digest
    """Digest of what its training started from, as :func:`chain` makes it."""
    recipe: Digest
    """Digest of its recipe."""
    steps: int = Field(ge=1)
    """Number of training steps."""
    seed: int = Field(ge=0)
    """Seed that all its random numbers come from."""
    machine: dict[str, str] = Field(default_factory=dict)
    """Versions and device that it was trained with."""


@dataclass(frozen=True)
class Composition:
    """What stays after a deletion."""

    order: int
    """Number of the order whose stages stay; 0: they are independent."""
    stages: tuple[Stage, ...]
    """Stages that stay, in the order of their sum."""
    live: tuple[str, ...]
    """Ids of the slices that they saw, sorted."""
    lost: tuple[str, ...]
    """Ids of slices that nobody withdrew and that go with the others, sorted."""


class Ledger(Params):
    """All that was trained, in a form that can be checked without the data."""

    base: BaseWeights
    """The model below all stages."""
    mode: Literal["sequence", "independent"]
    """``sequence``: stages build on each other. ``independent``: each was trained on the base model alone."""
    groups: tuple[tuple[str, ...], ...] = Field(min_length=1)
    """Names of the adapted layers, group by group; no layer is in two."""
    slices: tuple[DataSlice, ...] = Field(min_length=1)
    """All bodies of data that stages may have seen."""
    withdrawn: tuple[DataSlice, ...] = ()
    """Bodies of data that ledgers before this one had, and no stage sees. Their roots stay, so that a holder can still
    show that hers was one of them."""
    previous: Digest | None = None
    """Digest of the ledger that this one replaces, as :attr:`digest` makes it; None: it is the first."""
    replay: ReplaySet | None = None
    """Pictures that every stage saw; None: there are none."""
    orders: tuple[Order, ...] = ()
    """Orders that were trained; none where stages are independent."""
    stages: tuple[Stage, ...] = Field(min_length=1)
    """All trained adapters."""
    recipes: dict[Digest, dict[str, str | int]] = Field(default_factory=dict)
    """Digest -> recipe: sha256 of its canonical JSON."""
    composition: SumRule
    """Sum that the stages were made for."""

    @classmethod
    def read(cls, data: bytes, where: str) -> Self:
        """Read a ledger from its signed envelope and check that it agrees with itself. The signature is not looked at.

        Args:
            data: content of ``ledger.json``.
            where: name for errors.

        Raises:
            ModelError: it is none, or it contradicts itself.
        """
        try:
            envelope = strict_object(data)["dsseEnvelope"]
            statement = strict_object(base64.b64decode(envelope["payload"], validate=True))
        except (JsonError, KeyError, TypeError, ValueError, binascii.Error) as error:
            raise ModelError(f"is no signed ledger: {error}", where=where) from error
        return cls.of(statement, where)

    @classmethod
    def of(cls, statement: Mapping[str, Any], where: str) -> Self:
        """Take the ledger out of its statement and check that it agrees with itself.

        Raises:
            ModelError: it is none, or it contradicts itself.
        """
        if statement.get("predicateType") != PREDICATE:
            raise ModelError("is a statement of something else than slices", where=where)
        try:
            found = cls.parse(statement["predicate"])
        except (ValidationError, KeyError) as error:
            raise ModelError(f"is no ledger of slices: {error}", where=where) from error
        if found.composition.rule != RULE:
            hint = f"This version makes the sum {RULE}: use the version that the ledger was made with, or a later one."
            raise ModelError(f"is for the sum {found.composition.rule}, which is not known", where=where, hint=hint)
        if problem := next(found.problems(), ""):
            raise ModelError(problem, where=where, hint="A ledger like this promises nothing: train again.")
        try:
            subjects = {one["name"]: one["digest"]["sha256"] for one in statement.get("subject", ())}
        except (TypeError, KeyError) as error:
            raise ModelError("has a subject that names no files", where=where) from error
        if subjects != {stage.file: stage.sha256 for stage in found.stages}:
            raise ModelError("names other files as its subject than its stages do", where=where)
        return found

    def statement(self) -> dict[str, Any]:
        """Return the in-toto statement that is signed: the stages' files are its subject."""
        files = sorted((stage.file, stage.sha256) for stage in self.stages)
        return {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in files],
            "predicateType": PREDICATE,
            "predicate": self.as_json(),
        }

    @property
    def digest(self) -> str:
        """sha256 of the statement in canonical form: of what is signed, whoever signs it and however often."""
        return hashlib.sha256(rfc8785.dumps(self.statement())).hexdigest()

    def problems(self) -> Iterator[str]:
        """Yield every contradiction of the ledger with itself, in words."""
        bodies = (*self.slices, *self.withdrawn)
        yield from _twice("slice", (one.id for one in bodies))
        yield from _twice("order", (str(one.id) for one in self.orders))
        yield from _twice("stage", (one.id for one in self.stages))
        yield from _twice("layer", (layer for group in self.groups for layer in group))
        yield from _twice("Merkle root", (one.root for one in bodies))
        gone = {one.id for one in self.withdrawn}
        for one in self.slices:
            if there := sorted({*one.rest_of} - gone):
                yield f"says that {one.id} is the rest of {there[0]}, which was not withdrawn"
        if self.withdrawn and self.previous is None:
            yield f"says that {self.withdrawn[0].id} was withdrawn, and names no ledger before it"
        if self.mode == "independent" and (self.orders or len(self.groups) > 1):
            yield "has orders or several groups, and its stages are independent"
        ids = sorted(one.id for one in self.slices)
        for order in self.orders:
            if sorted(order.slices) != ids:
                yield f"order {order.id} does not have every slice once"
        places = {(stage.order, stage.position): stage for stage in self.stages}
        if len(places) < len(self.stages):
            yield "has two stages at one place"
        for stage in self.stages:
            yield from self._stage_problems(stage, places)

    def breaks_with(self, earlier: Ledger) -> Iterator[str]:
        """Yield why this ledger is neither another one nor its successor, in words.

        Args:
            earlier: ledger that it should have replaced.
        """
        if self.digest == earlier.digest:
            return
        if self.previous != earlier.digest:
            yield f"it does not name {earlier.digest[:12]} as the ledger before it"
        if self.base != earlier.base:
            yield "it is of another base model"
        here = {one.id for one in (*self.slices, *self.withdrawn)}
        gone = {one.id: one.root for one in self.withdrawn}
        for one in (*earlier.slices, *earlier.withdrawn):
            if one.id not in here:
                yield f"the slice {one.id} is missing, and not among the withdrawn ones"
            elif one.id in gone and gone[one.id] != one.root:
                yield f"the withdrawn slice {one.id} has another Merkle root"
        for one in earlier.withdrawn:
            if one.id in here and one.id not in gone:
                yield f"the slice {one.id} was withdrawn, and is back"

    def _stage_problems(self, stage: Stage, places: Mapping[tuple[int, int], Stage]) -> Iterator[str]:
        if not math.isfinite(float(stage.scale)):
            yield f"stage {stage.id} has the scale {stage.scale}, which is no finite number"
        if stage.group >= len(self.groups):
            yield f"stage {stage.id} is of group {stage.group}, which there is none of"
        if stage.recipe not in self.recipes or stage.recipe != recipe_digest(self.recipes[stage.recipe]):
            yield f"stage {stage.id} has a recipe that the ledger does not hold"
        try:
            saw, before = self._place(stage, places)
        except LookupError as error:
            yield f"stage {stage.id} {error.args[0]}"
            return
        if any(one.group == stage.group for one in before):
            yield f"stage {stage.id} trains the layers of a stage before it"
        if stage.saw != saw:
            yield f"stage {stage.id} says that it saw {', '.join(stage.saw)}, its place says {', '.join(saw)}"
        if stage.parents != tuple(one.sha256 for one in before):
            yield f"stage {stage.id} does not name the files of the stages before it"
        if stage.weights_in != chain(self.base, stage.parents):
            yield f"stage {stage.id} did not start from the base model and the stages before it"

    def _place(self, stage: Stage, places: Mapping[tuple[int, int], Stage]) -> tuple[tuple[str, ...], list[Stage]]:
        """Return the slices that a stage at this place has seen, and the stages before it.

        Raises:
            LookupError: there is no such place.
        """
        if self.mode == "independent":
            if stage.order or stage.saw[0] not in {one.id for one in self.slices}:
                raise LookupError("saw a slice that there is none of, or has an order")
            return stage.saw[:1], []
        order = next((one for one in self.orders if one.id == stage.order), None)
        if order is None or stage.position > len(order.slices):
            raise LookupError("is of an order that there is none of")
        found = [places.get((stage.order, number)) for number in range(1, stage.position)]
        before = [one for one in found if one is not None]
        if len(before) < len(found):
            raise LookupError("lacks a stage before it")
        return tuple(sorted(order.slices[: stage.position])), before

    def compose(self, deleted: Collection[str]) -> Composition:
        """Return what stays when slices go: of all orders the longest prefix, of equal ones the order of lower number.

        Args:
            deleted: ids of the slices that go; those that an earlier ledger lost may be among them.

        Raises:
            UsageError: there is no such slice, or nothing is left.
        """
        gone = {one.id for one in self.withdrawn}
        deleted, ids = set(deleted) | gone, {one.id for one in self.slices}
        known = ids | gone
        if unknown := sorted(deleted - known):
            hint = f"The ledger has: {', '.join(sorted(known))}."
            raise UsageError(f"there is no slice {unknown[0]!r}", where="deleted", hint=hint)
        prefixes = [(order, self._prefix(order, deleted)) for order in (*self._orders(),)]
        order, stages = max(prefixes, key=lambda one: (len(one[1]), -one[0]), default=(0, []))
        if not stages:
            raise UsageError("no stage is left", where="deleted", hint=self._again(deleted))
        live = sorted({name for stage in stages for name in stage.saw})
        lost = sorted(ids - set(live) - deleted)
        return Composition(order, tuple(stages), tuple(live), tuple(lost))

    def _orders(self) -> Sequence[int]:
        return sorted(one.id for one in self.orders) if self.mode == "sequence" else [0]

    def _prefix(self, order: int, deleted: Collection[str]) -> list[Stage]:
        stages = sorted((one for one in self.stages if one.order == order), key=lambda one: (one.position, one.id))
        if self.mode == "independent":
            return [one for one in stages if not set(one.saw) & set(deleted)]
        found = []
        for stage in stages:
            if set(stage.saw) & set(deleted):
                break
            found.append(stage)
        return found

    def _again(self, deleted: Collection[str]) -> str:
        rest = sorted({one.id for one in self.slices} - set(deleted))
        steps = max(stage.steps for stage in self.stages) * len(rest)
        if not rest:
            return "Every slice was withdrawn: leave the step out, and release the base model."
        how = f"with {', '.join(sorted(deleted))} under 'withdrawn' in the training's file"
        return f"Train {', '.join(rest)} again, {how}: about {steps} steps for one order."


def chain(base: BaseWeights, parents: Sequence[str]) -> str:
    """Return the digest of what a stage starts from: the base model's weights and the files of the stages before it."""
    return _sha256([base.component, dict(base.weights), list(parents)])


def recipe_digest(recipe: Mapping[str, str | int]) -> str:
    """Return the sha256 of a recipe's canonical JSON."""
    return _sha256(dict(recipe))


def weights_of(model: ModelInfo, component: str) -> str:
    """Return the digest of a component's weight files as the base model has them.

    Raises:
        OSError: a file cannot be read.
    """
    names = sorted({info.file for info in model.tensors(component).values()})
    folder = model.base_files(component).parent
    found = []
    for name in names:
        with (folder / name).open("rb") as file:
            found.append([name.rpartition("/")[2], hashlib.file_digest(file, "sha256").hexdigest()])
    return _sha256(found)


def _sha256(data: Any) -> str:
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _twice(what: str, names: Iterator[str]) -> Iterator[str]:
    for name, count in Counter(names).items():
        if count > 1:
            yield f"has the {what} {name} twice"
