"""Where models come from, where work runs, and how reports look."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar

from pydantic import Field

from publisher.api.params import Params
from publisher.api.steps import Configured, P

if TYPE_CHECKING:
    from publisher.api.records import ReleaseReport

T = TypeVar("T")
R = TypeVar("R")


class ModelDefaults(Params):
    """What a model source knows of manifests for its models: used where a manifest says nothing."""

    object: tuple[str, ...] = ()
    """Templates of prompts that ask for an object, as the manifest's ``prompts.object`` has them."""
    style: tuple[str, ...] = ()
    """The same for a style."""
    person: tuple[str, ...] = ()
    """The same for a person."""
    unsafe: tuple[str, ...] = ()
    """The same for unsafe content."""
    release: str = ""
    """Name of a first release; empty: made from the model's."""
    license: str = ""
    """Licence of the model; empty: not known."""
    examples: tuple[str, ...] = ()
    """Concepts of a first manifest, each as YAML in one line; empty: none is known."""
    scorer: str = ""
    """Registered name of a scorer that judges this model's images; empty: none is known."""
    steps: int | None = Field(default=None, ge=1, le=1000)
    """Sampling steps that these models need; None: those of every model."""
    guidance: float | None = Field(default=None, ge=0)
    """Classifier-free guidance scale for these models; None: that of every model."""


class ModelSource(ABC):
    """Fetches base models.

    Attributes:
        name: the whole reference (``"embedded:emoji"``), or its part before the first colon (``"hf"``).
        version: of this adapter.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    summary: ClassVar[str] = ""

    def defaults(self, reference: str) -> ModelDefaults:  # noqa: ARG002 - for subclasses
        """Return what manifests for this model may leave out. Touches neither disk nor network."""
        return ModelDefaults()

    @abstractmethod
    def check(self, reference: str) -> str | None:
        """Return what is wrong with the reference's form, or None. Touches neither disk nor network."""

    @abstractmethod
    def locate(self, reference: str, relative_to: Path) -> Path | None:
        """Return the model's folder if it is already on this machine. Never uses the network."""

    @abstractmethod
    def fetch(self, reference: str, relative_to: Path) -> Path:
        """Return the model's folder, downloaded where needed.

        Raises:
            PrerequisiteError: not there and not to be had; the hint says how to get it.
        """


class Task(Protocol):
    """What every task of an executor says of itself. Tasks and their results can be pickled."""

    @property
    def device(self) -> str:
        """Kind of device that the task needs: ``"cpu"`` or ``"cuda"``."""

    @property
    def threads(self) -> int:
        """Processor threads that the task keeps busy. The last bits of its results can depend on them."""


class Executor(Configured[P], ABC):
    """Runs independent tasks: here, or on other machines.

    A release makes one, with the parameters under ``evaluate.executor``.

    Attributes:
        name: what ``evaluate.executor`` calls it.
        version: of this adapter.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    summary: ClassVar[str] = ""

    @abstractmethod
    def map(self, function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
        """Yield ``function`` of each task, in the order of the tasks.

        ``function`` and tasks can be pickled. A process of its own sets up nothing: ``function`` does. Each task is a
        :class:`Task` and reads files below its ``folder``, which has to be there under the same path.

        What it raises makes the checks that wait for these tasks *unknown*; results that came before are kept. So does
        a result of a machine whose numerics differ from those of the machine that releases.
        """

    def close(self) -> None:
        """Give back what the executor holds, such as processes or machines. Called once, whatever has happened.

        What it raises is a warning: the results are there.
        """


class ReportFormat(ABC):
    """Renders the release report.

    Attributes:
        name: what ``publisher report --format`` calls it.
        version: raise it when the bytes change.
        filename: such as ``"junit.xml"``.
        quick: False where rendering takes long, such as reading large templates. Every release renders an empty report
            in each form before anything runs; a plan does so in quick ones alone.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    filename: ClassVar[str]
    summary: ClassVar[str] = ""
    quick: ClassVar[bool] = True

    @abstractmethod
    def render(self, report: ReleaseReport) -> bytes:
        """Return the whole file. Deterministic: the same report gives the same bytes."""

    def timed(self, report: ReleaseReport, seconds: Mapping[str, float]) -> bytes:  # noqa: ARG002
        """Return the file as it lies beside a package, where it may say how long each check took. Default: the same.

        Args:
            report: of a release.
            seconds: check's id -> seconds of its trainings, and from its images to its verdict, on the machine that
                made it. Checks may be missing.
        """
        return self.render(report)
