"""What the rooms of a release ask every safeguard, so that they know none by name.

A safeguard is data below ``release/`` that binds those who use a model: it is made by a step, checked when a package is
verified, and used when a model generates or trains. All that the core asks about one is here; whatever a safeguard does
not say, it has no part in.
"""

# ruff: noqa: ARG002  # what a safeguard does not override, it has no part in
from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from publisher.api import ReleaseReport, StepRecord, TensorInfo, TrainingParams
from publisher.api.freeze_mask import Frozen
from publisher.api.membranes import Transport
from publisher.api.model_files import RELEASE
from publisher.codes import Finding
from publisher.model.state import Delta, State

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

Headers = Mapping[str, Mapping[str, TensorInfo]]
"""File -> its tensors; files that are malformed are not in it."""


@dataclass(frozen=True)
class Contents:
    """Files of a package that is being verified."""

    root: Path
    """Folder of the package."""
    digests: Mapping[str, str]
    """sha256 of every signed file, by path."""
    headers: Headers
    """Tensors of the well-formed weights among them."""


class Made(Protocol):
    """What one step of a release left."""

    @property
    def record(self) -> StepRecord:
        """The step's own record."""

    @property
    def delta(self) -> Delta:
        """Tensors that the step changed."""

    @property
    def artifacts(self) -> Mapping[str, bytes]:
        """Contents of the files that the step adds below ``release/``, by name."""


class Attachment(Protocol):
    """A safeguard on a pipeline, which acts as far as each prompt calls for it."""

    concepts: tuple[str, ...]
    """Ids of the concepts that it holds back."""

    def permeabilities(self, prompts: Sequence[str]) -> torch.Tensor:
        """Return how far each prompt lets it act: ``(prompts, concepts)`` float32 on the CPU."""


class Safeguard(ABC):
    """One kind of safeguard."""

    file: ClassVar[str]
    """Name below ``release/`` of the file that says that a package has it."""
    conflict: ClassVar[str]
    """Warning where ``{later!r}`` changes the denoiser after ``{earlier!r}`` has made this safeguard."""

    @property
    def path(self) -> str:
        """Path of :attr:`file` in a package."""
        return f"{RELEASE}/{self.file}"

    def owns(self, artifact: str) -> bool:
        """Return whether a file below ``release/`` belongs to it."""
        return artifact == self.file

    # a base model that is a released package

    @abstractmethod
    def carried(self, document: Mapping[str, Any]) -> str:
        """Say in words what a package carries, such as ``"a freeze mask"``; ``document`` is not trusted."""

    # a package that is verified, by headers and digests

    @abstractmethod
    def findings(self, document: Any, contents: Contents) -> Iterator[Finding]:
        """Yield what is wrong with it in a package.

        Args:
            document: what :attr:`file` holds, as JSON data; None: the package has no such file.
            contents: the package.
        """

    def contradiction(self, report: ReleaseReport, read: Callable[[], bytes | None]) -> str:
        """Say where a report describes it otherwise than the package has it; empty: nowhere.

        Args:
            report: the release's.
            read: gives the content of :attr:`file`; None: it is not there.
        """
        return ""

    # a release

    def record(self, made: Sequence[Made], final: State) -> Mapping[str, Any]:
        """Return what the report's fields say of it, and refuse it where it was made for other weights.

        Args:
            made: what the steps left, in their order.
            final: the hardened model.

        Raises:
            UsageError: a step that runs later made it stale.
            PluginError: it never fitted.
        """
        return {}

    def section(self, report: ReleaseReport, folder: str) -> str:
        """Return its own section of the model card; empty: there is nothing to say. ``folder`` names the package."""
        return ""

    def loading(self, report: ReleaseReport, folder: str) -> str:
        """Return how users load the package with it, for the card; empty: plain diffusers does, as for any model."""
        return ""

    # a model that generates

    def digest(self, folder: Path) -> str:
        """Return the sha256 that names all of it that images depend on; empty: they do not depend on it.

        Args:
            folder: a package's ``release``, or any other that holds the same files.
        """
        return ""

    def attach(
        self, pipeline: DiffusionPipeline, folder: Path, transport: Transport | None = None
    ) -> Attachment | None:
        """Put it on a pipeline; None: it has nothing to put there.

        Args:
            pipeline: a model that has been loaded.
            folder: as for :meth:`digest`.
            transport: how prompts make it act; None: as the package says.

        Raises:
            ModelError: it cannot be read, or does not fit the model.
        """
        return None

    # an attacker who trains and honours it

    def frozen(
        self, params: TrainingParams, folder: Path | None, seed: int, denoiser: str
    ) -> Mapping[str, tuple[Frozen, ...]]:
        """Return what every trial of an attack leaves as it is: model's name -> one for each trial.

        Args:
            params: of the attack.
            folder: as for :meth:`digest`; None: there is no safeguard.
            seed: of the evaluation.
            denoiser: component that trials train.

        Raises:
            ModelError: the attacker is to honour what the package lacks, or what cannot be read.
        """
        return {}
