"""What families of diffusion transformers have in common: how they are recognised, and the norm before a door."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from publisher.api import Anatomy, ModelFamily
from publisher.api.diffusion.process import require_flow
from publisher.api.families import Configs
from publisher.builtin.families import class_of

if TYPE_CHECKING:
    from torch import Tensor


class TransformerFamily(ModelFamily):
    """A family that is recognised by the classes of its parts, then by their sizes, then by its scheduler."""

    pipelines: ClassVar[tuple[str, ...]]
    """Names of diffusers' classes for this kind; the first one generates from words alone."""
    parts: ClassVar[Mapping[str, tuple[str, ...]]]
    """Folder of each part -> the classes that it may have; none: any class will do."""

    def recognise(self, configs: Configs) -> Anatomy | None:
        """Return the parts, or None; :meth:`why_not` says why.

        Raises:
            ModelError: its scheduler is of another process, so the model would generate noise.
        """
        if self.why_not(configs):
            return None
        self.require_scheduler(class_of(configs, "scheduler"))
        return self.anatomy(configs)

    def why_not(self, configs: Configs) -> str:
        """Return what of the structure is not of this family, in one sentence; empty if it is."""
        try:
            return self._classes(configs) or self.misfit(configs)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            return f"its configurations are malformed ({type(error).__name__}: {error})"

    def require_scheduler(self, scheduler: str | None) -> None:
        """Refuse a scheduler of another process than the family's: here one that does not sample flow matching.

        Raises:
            ModelError: it is another one, or missing.
        """
        require_flow(scheduler)

    @abstractmethod
    def misfit(self, configs: Configs) -> str:
        """Return which sizes or options are not of this family, in one sentence; empty if all fit."""

    @abstractmethod
    def anatomy(self, configs: Configs) -> Anatomy:
        """Return the parts of a model whose structure fits."""

    def _classes(self, configs: Configs) -> str:
        name = configs.get("model_index", {}).get("_class_name")
        if name not in self.pipelines:
            return f"its pipeline is {name!r}, which is none of {', '.join(self.pipelines)}"
        for component, kinds in self.parts.items():
            found = class_of(configs, component)
            if not found:
                return f"it has no {component}"
            if kinds and found not in kinds:
                return f"its {component} is {found!r}, not {' or '.join(kinds)}"
        return ""


def rms_norm(rows: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return rows divided by the root of their mean square, times a weight, in the rows' dtype.

    Args:
        rows: ``(..., d)``.
        weight: ``(d,)`` of the norm.
        eps: of the norm.
    """
    scale = rows.square().mean(-1, keepdim=True).add(eps).rsqrt()
    return rows * scale * weight.to(rows)
