"""What an evaluation works with: the two models, the plugins' instances, and the setting."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from publisher.api import Anatomy, Attack, CalibrationSheet, CheckRecord, Claim, Executor, Metric, Scorer
from publisher.api.model_files import RELEASE
from publisher.api.training import UNSEEN
from publisher.evaluate.store import ImageStore
from publisher.evaluate.vault import Vault
from publisher.model.digest import sha256_file, sha256_json, sha256_list
from publisher.safeguards import attached_digest


class Unmeasured(Exception):  # noqa: N818 - not an error of anybody: it becomes the verdict *unknown*
    """A check cannot be measured; the message is the reason in its record."""


COUNCIL = "+"
"""Stands between the ids of scorers that judge together."""
MANIFEST = "manifest"
"""Name that stands for a step's id in the claim of the manifest's own checks."""
_READ = (".safetensors", ".json", ".txt", ".model")


@dataclass(frozen=True)
class ModelUnderTest:
    """A model under test: a diffusers folder that :func:`publisher.runtime.pipelines.load` can load."""

    folder: Path
    """Folder of the model, complete."""
    anatomy: Anatomy
    """Parts of the model, and how they are called."""
    digest: str
    """sha256 that names its weights and configurations."""
    safeguards: Path | None = None
    """Folder that holds the safeguards' files, as a package does below ``release/``; None: it has none."""
    attached: str = ""
    """sha256 that names the safeguards that are attached when it generates; empty: the weights generate alone."""

    @classmethod
    def of(
        cls,
        folder: Path,
        anatomy: Anatomy,
        safeguards: Path | None = None,
        known: Mapping[str, str] = MappingProxyType({}),
    ) -> Self:
        """Hash the files that loading can read; the rest of ``release/``, the card and other formats do not matter.

        Args:
            folder: of the model.
            anatomy: anatomy of the model.
            safeguards: where safeguards may lie. What cannot be read counts as attached: attaching it fails, and with
                it the checks.
            known: path in the folder -> sha256 of a file that need not be hashed again.
        """
        inside = [path for path in folder.glob("*/*") if path.suffix in _READ and path.parent.name != RELEASE]
        files = [folder / "model_index.json", *inside]
        names = {path.relative_to(folder).as_posix(): path for path in files}
        digest = sha256_list({name: known.get(name) or sha256_file(path) for name, path in names.items()})
        return cls(folder, anatomy, digest, safeguards, attached_digest(safeguards) if safeguards else "")

    @property
    def bare(self) -> Self:
        """The same weights with nothing attached, as plain diffusers loads them."""
        return replace(self, attached="")

    def base_files(self, component: str) -> Path:
        """Return the folder with a component's files."""
        return self.folder / component

    @property
    def key(self) -> str:
        """What its images depend on; equal weights with nothing attached are one model, in whatever folder they lie."""
        return sha256_json([self.digest, self.attached]) if self.attached else self.digest


@dataclass(frozen=True)
class ModelsUnderTest:
    """The control, to which nothing is ever attached, and the treated one; both get the same requests."""

    base: ModelUnderTest
    hardened: ModelUnderTest
    after: Mapping[str, ModelUnderTest] = field(default_factory=dict)
    """Step's id -> the model after it, in the order of the steps: further controls of attacks by training."""
    retrained: ModelUnderTest | None = None
    """A model that never knew the concepts."""

    def control(self, name: str, step: str) -> ModelUnderTest | None:
        """Return a control of an attack by training, as :attr:`publisher.api.TrainingParams.controls` names it.

        Args:
            name: ``before``, ``base``, ``retrained``, ``unseen`` (the base model too) or a step's id.
            step: that makes the claim. Before the manifest's own claim the model is the base.

        Returns:
            The weights alone; None: there is no retrained reference.

        Raises:
            Unmeasured: there is no such step.
        """
        if name == "retrained":
            return self.retrained.bare if self.retrained else None
        steps = list(self.after)
        if name == "before" and step in steps[1:]:
            return self.after[steps[steps.index(step) - 1]].bare
        if name in ("base", UNSEEN) or (name == "before" and step in (*steps, MANIFEST)):
            return self.base.bare
        if name in steps:
            return self.after[name].bare
        if name == "before":
            raise Unmeasured(f"the model before the step {step!r} is not here to compare with")
        raise Unmeasured(f"there is no model {name!r} to compare with: no step has this id")


@dataclass(frozen=True)
class StepClaim:
    """A claim and the steps that make it."""

    steps: tuple[str, ...]
    """Ids, one or more; several steps make equal claims."""
    claim: Claim

    @property
    def step(self) -> str:
        """Id of the first step that makes the claim: what is before that step is *before* for an attack."""
        return self.steps[0]


@dataclass(frozen=True, eq=False)
class ReleaseScorer:
    """A scorer as the manifest configures it."""

    id: str
    """Name in checks and in the report."""
    scorer: Scorer[Any]
    """Instance with its parameters, files and scope."""
    kinds: tuple[str, ...]
    """Kinds of concepts that it judges in this release."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """File or model that its parameters name -> sha256."""
    origin: str = ""
    """sha256 over its plugin's source files."""
    sheets: Mapping[str, CalibrationSheet] = field(default_factory=dict)
    """File among the reports -> what is known of its errors about one concept."""

    @property
    def params(self) -> dict[str, Any]:
        """The parameters as JSON data, defaults written out."""
        params: dict[str, Any] = self.scorer.params.as_json()
        return params


@dataclass(frozen=True)
class Tools:
    """Instances of the plugins that the checks name. What is missing makes its checks *unknown*."""

    attacks: Mapping[str, Attack[Any]]
    metrics: Mapping[str, Metric[Any]]
    scorers: Mapping[str, ReleaseScorer]
    """Scorers by id: the manifest's, and others that checks name."""
    judges: Mapping[str, str]
    """Kind of concepts -> id of the scorer that judges it where a check names none."""
    executor: Executor[Any]
    neighbours: tuple[str, ...] = ()
    """Ids of all kept concepts, those first that read most like what goes; empty: the manifest's order counts."""
    second: tuple[str, ...] = ()
    """Ids of the scorers that give a second opinion."""

    def members(self, judge: str) -> tuple[ReleaseScorer, ...]:
        """Return the scorers behind the name of a judge: one, several of a council, or none where it is empty."""
        return tuple(self.scorers[name] for name in judge.split(COUNCIL)) if judge else ()


def _nothing(*_: object) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Setting:
    """Where images are generated and kept, and who is told."""

    device: str
    """``"cpu"`` or ``"cuda"``."""
    dtype: str
    """Number format of the networks, such as ``"float32"``."""
    store: ImageStore = field(default_factory=ImageStore)
    root: Path = Path()
    """The manifest's folder: image files of concepts are relative to it."""
    work: Path | None = None
    """Folder for models that attackers have altered, while they are measured; None: a temporary one."""
    vault: Vault = field(default_factory=Vault)
    """Where finds of searches are kept in clear."""
    publish_finds: bool = False
    """Put finds into the evidence in clear, those about persons and unsafe content excepted."""
    progress: Callable[[int, int, str], None] = _nothing
    """Done, total, text; in images of all models together, then in images and training steps of all trials."""
    check_end: Callable[[str, CheckRecord, float], None] = _nothing
    """Claim's id, the record, seconds since generating ended."""
    warn: Callable[[str], None] = _nothing
