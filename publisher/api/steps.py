"""Steps: hardening actions, the heart of a plugin."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar, get_args, get_origin

from publisher.api.claims import Claim
from publisher.api.concepts import Scope
from publisher.api.models import Model, ModelInfo, StepPlan
from publisher.api.params import Params

if TYPE_CHECKING:
    import torch

P = TypeVar("P", bound=Params)
MOST_POINTS = 400
"""Of one curve."""


class Parametrised(Generic[P]):
    """A class whose parameters are the model in its brackets: ``class Dampen(Step[DampenParams])``."""

    Params: ClassVar[type[Params]]
    """The parameter model, taken from the brackets."""

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        for base in getattr(cls, "__orig_bases__", ()):
            arguments = get_args(base)
            if get_origin(base) is not Generic and arguments and isinstance(arguments[0], type):
                cls.Params = arguments[0]


class NoParams(Params):
    """Nothing to set."""


@dataclass(frozen=True)
class References:
    """Images of a concept, and the prompts that they show."""

    images: torch.Tensor
    """``(n, 3, h, w)`` float32 in [0, 1] on the CPU, of the size that the model draws."""
    prompts: tuple[str, ...]
    """One for each image."""


@dataclass(frozen=True)
class Requirements:
    """What a model must have for a step to work on it."""

    families: tuple[str, ...] = ()
    """Names of families; empty: any."""
    components: tuple[str, ...] = ()
    """Folders that must be there."""


class StepContext(ABC):
    """What a running step may use. It gives no way to the package, the verdicts or the key."""

    scope: Scope
    """The concepts this step is about, and what is to stay."""
    model: Model
    """The state before this step."""
    device: torch.device
    """Where to compute."""
    dtype: torch.dtype
    """For networks that are run; closed forms use float64 whatever this says."""
    scratch: Path
    """A folder of this step's own that survives a kill: checkpoints go here. Its content is not part of the result."""

    @abstractmethod
    def write(self, component: str, name: str, tensor: torch.Tensor) -> None:
        """Set a tensor of the result. Shape and dtype must be those of the model's.

        Raises:
            PluginError: unknown tensor, other shape or dtype, NaN or infinity.
        """

    @abstractmethod
    def artifact(self, name: str, data: bytes) -> None:
        """Add a file to the package, under ``release/``: ``.json`` or ``.safetensors``."""

    @abstractmethod
    def generator(self, purpose: str) -> torch.Generator:
        """A CPU generator seeded by the manifest's seed, this step and ``purpose``."""

    @abstractmethod
    def references(self, concept: str, count: int) -> References:
        """Images of a concept to go or to stay. Only for a step that says so (:attr:`Step.references`).

        They are the publisher's half of those that the manifest names, or, where it names none, drawn by the *base*
        model from the concept's prompts. Attacks get others.

        Raises:
            ModelError: the base model cannot draw them.
            UsageError: the manifest names fewer than ``count`` images, or no such concept.
        """

    def references_of(self, counts: Mapping[str, int]) -> dict[str, References]:
        """Images of several concepts: what :meth:`references` gives, up to the last bits, drawn together and so faster.

        Args:
            counts: concept's id -> how many.

        Raises:
            ModelError, UsageError: as :meth:`references` does.
        """
        return {concept: self.references(concept, count) for concept, count in counts.items()}

    @abstractmethod
    def progress(self, done: int, total: int, text: str = "") -> None:
        """Say how far the step is; call it often, it is cheap."""

    def counted(self, total: int, text: str) -> Callable[[int], None]:
        """Return a function that is told how many more pieces of work are done, and passes it to :meth:`progress`.

        For ``encode_images`` and ``encode`` of :mod:`publisher.api.diffusion`, which take it as ``tell``.

        Args:
            total: pieces of this phase.
            text: what they are.
        """
        done = 0

        def tell(more: int) -> None:
            nonlocal done
            done += more
            self.progress(done, total, text)

        tell(0)
        return tell

    @abstractmethod
    def record(self, name: str, value: float, unit: str = "") -> None:
        """A number for the report, such as a residual."""

    @abstractmethod
    def curve(self, name: str, x: Sequence[float], y: Sequence[float], unit: str = "") -> None:
        """A curve for the report, such as a loss over the steps. At most :data:`MOST_POINTS` points; thin out more."""

    @abstractmethod
    def warn(self, message: str) -> None:
        """Something that the report and the terminal must show."""


class Step(Parametrised[P], ABC):
    """One hardening action.

    Attributes:
        name: what a manifest calls it; lower case with dashes.
        version: raise it whenever the same input gives another result: it is part of the cache's key.
        summary: one line for ``publisher plugins``.
        requires: what the model must have.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    summary: ClassVar[str] = ""
    requires: ClassVar[Requirements] = Requirements()
    references: ClassVar[bool] = False
    """``run`` asks for reference images: base model and images are then part of the result's identity."""
    files: Mapping[str, Path] = MappingProxyType({})
    """Name, as :meth:`inputs` gave it -> the file, there and readable. Set before ``plan`` and ``run``."""

    def inputs(self, params: P) -> Sequence[str]:  # noqa: ARG002 - for subclasses
        """Files that the parameters name, relative to the manifest. Their digests are part of the result's identity."""
        return ()

    @abstractmethod
    def claims(self, params: P, scope: Scope) -> Sequence[Claim]:
        """What the step promises about ``scope`` and how to test it. Called before the run, without torch."""

    @abstractmethod
    def plan(self, params: P, scope: Scope, model: ModelInfo) -> StepPlan:
        """What ``run`` will change, from headers alone. Called without torch.

        Raises:
            ModelError: this model cannot be treated; say why and what to do.
            UsageError: these parameters make no sense for this scope.
        """

    @abstractmethod
    def run(self, params: P, ctx: StepContext) -> None:
        """Do it: read from ``ctx.model``, write with ``ctx.write`` and ``ctx.artifact``."""
