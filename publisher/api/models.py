"""A diffusers folder as plugins see it: configurations and tensors by name, no network loaded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from publisher.api.families import Anatomy
from publisher.api.params import Params
from publisher.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TensorInfo:
    """What a safetensors header says of one tensor."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    """As safetensors writes it: ``"F32"``, ``"F16"``, ``"BF16"``..."""
    file: str
    """Path of the file inside the model folder."""

    @property
    def parameters(self) -> int:
        """Number of elements."""
        count = 1
        for size in self.shape:
            count *= size
        return count


class ModelInfo(ABC):
    """A model without its weights: enough to plan, nothing of torch is loaded."""

    @property
    @abstractmethod
    def anatomy(self) -> Anatomy:
        """The parts by name."""

    @property
    @abstractmethod
    def components(self) -> tuple[str, ...]:
        """Folders named in ``model_index.json`` that hold something, sorted."""

    @abstractmethod
    def config(self, component: str) -> Mapping[str, Any]:
        """Return the component's configuration, of a scheduler or tokenizer too; of ``"model_index"`` the index.

        Raises:
            KeyError: no such component.
        """

    @abstractmethod
    def base_files(self, component: str) -> Path:
        """Return the folder with a component's files as the base model has them. Never write into it.

        Raises:
            KeyError: no such component.
        """

    @abstractmethod
    def tensors(self, component: str) -> Mapping[str, TensorInfo]:
        """Return header of every tensor of a component, sorted by name."""


def cross_attention(model: ModelInfo) -> tuple[str, ...]:
    """Return the paths of the denoiser's cross-attention layers, sorted: read from the names of its weights.

    Raises:
        ModelError: the family has no such layers, this model has none, or one has keys without values or values without
            keys.
    """
    denoiser, layer = model.anatomy.denoiser, model.anatomy.cross_attention
    model.anatomy.require(("cross-attention",), "what changes cross-attention")
    found = {part: _paths(model.tensors(denoiser), layer, part) for part in "kv"}
    odd = sorted(found["k"] ^ found["v"])
    if odd or not found["k"]:
        what = f"{odd[0]!r} has keys or values alone" if odd else f"has no layer {layer}, where text would enter"
        raise ModelError(what, where=denoiser, hint="The layers may be wrapped by an adapter; save the plain model.")
    return tuple(sorted(found["k"]))


def _paths(names: Iterable[str], layer: str, part: str) -> set[str]:
    ending = f".{layer}.to_{part}.weight"
    return {f"{name.removesuffix(ending)}.{layer}" for name in names if name.endswith(ending)}


class Model(ModelInfo):
    """The model as it stands before a step: read-only, one tensor at a time."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """sha256 that names these weights."""

    @property
    @abstractmethod
    def folder(self) -> Path:
        """A complete diffusers folder with this state, for loading whole components. Never write into it."""

    @abstractmethod
    def read(self, component: str, name: str) -> Tensor:
        """Return one tensor, on the CPU, in the dtype it is stored in.

        Raises:
            KeyError: no such tensor.
        """


@dataclass(frozen=True)
class StepPlan:
    """What a step is going to do, said before it does it."""

    changes: Mapping[str, Sequence[str]]
    """Component -> names of the tensors that ``run`` will change: exactly these."""
    artifacts: tuple[str, ...] = ()
    """Names of the artifacts that ``run`` will add to the package."""
    seconds: float | None = None
    """A rough cost on this device class, where the step can tell."""
    notes: tuple[str, ...] = ()
    """Warnings the user should read before spending the time."""
    first: str = ""
    """Why no earlier step may change weights; empty: it may. ``publisher plan`` refuses that order."""
    last: str = ""
    """Why no later step may change weights; empty: it may. ``publisher plan`` refuses that order."""
    draws: tuple[str, ...] = ()
    """Ids of concepts to go that ``run`` trains on as the base model generates them. A release looks first whether it
    shows them, and runs nothing where it hardly does."""


class Credit(Params):
    """Work that was made elsewhere and went into a release, as its publisher describes it. Nobody has checked it."""

    name: str = ""
    """Name of the work, or of who made it."""
    url: str = ""
    """Address at which it is published."""
    license: str = ""
    """Licence under which it is published."""
    method: str = ""
    """Method by which it was made, such as ``"ESD-x"``."""

    def sentence(self) -> str:
        """Return it on one line; empty where nothing is said."""
        kind = {"by ": self.method, "licence ": self.license}
        said = [self.name, *(f"{word}{value}" for word, value in kind.items() if value), self.url]
        return ", ".join(part for part in said if part)
