"""What families of diffusion transformers have in common: recognition, parts, and what stands before a text's door."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from publisher.api import Anatomy, Latents, ModelFamily, TextBlock, TextEncoder
from publisher.api.diffusion.process import require_flow
from publisher.api.families import Configs
from publisher.builtin.families import class_of

if TYPE_CHECKING:
    from torch import Tensor

A = TypeVar("A", bound=Anatomy)
JOINT = "attention reads latents and text together, and its text rows change from block to block"
"""Why a family has no cross-attention."""
LANGUAGE_MODEL = "the rows of a text are a causal language model's"
"""Why a family has no CLIP."""


def hosts_in(blocks: str, *layers: str) -> str:
    """Return the expression for the weights of all linear layers inside some layers of the blocks.

    Args:
        blocks: name of the list of blocks.
        layers: expressions for names; those that make scales and shifts of the noise level are to be left out.
    """
    return rf"{blocks}\.\d+\.(?:{'|'.join(layers)})\..+\.weight"


@dataclass(frozen=True)
class OneEncoder(Anatomy):
    """A transformer that reads the rows of one text encoder, of which a mask leaves out the padding."""

    head_keys: tuple[str, str] = ("num_attention_heads", "num_attention_heads")
    """Keys of the denoiser's configuration: the number of heads of queries, and of keys and values."""
    norm_eps: float = 1e-5
    """What the norm before the text's door adds to the mean square."""

    @property
    def rows(self) -> int:
        """Number of rows that the pipeline is asked for."""
        return self.text_blocks[-1].rows

    def heads(self, name: str, config: Mapping[str, Any]) -> int:
        """Return the number of attention heads in a tensor's rows: keys and values can have fewer than queries."""
        read = self.head_keys[any(f".{part}." in name for part in ("to_k", "to_v"))]
        return int(config.get(read) or 0) if self.has_heads(name) else 0


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
        self.require_scheduler(configs)
        return self.anatomy(configs)

    def why_not(self, configs: Configs) -> str:
        """Return what of the structure is not of this family, in one sentence; empty if it is."""
        try:
            return self._classes(configs) or self.misfit(configs)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            return f"its configurations are malformed ({type(error).__name__}: {error})"

    def require_scheduler(self, configs: Configs) -> None:
        """Refuse a scheduler of another process than the family's: here one that does not sample flow matching.

        Raises:
            ModelError: it is another one, or missing.
        """
        require_flow(class_of(configs, "scheduler"))

    @abstractmethod
    def misfit(self, configs: Configs) -> str:
        """Return which sizes or options are not of this family, in one sentence; empty if all fit."""

    @abstractmethod
    def anatomy(self, configs: Configs) -> Anatomy:
        """Return the parts of a model whose structure fits."""

    def joined(self, kind: type[A], latents: Latents, width: int, rows: int, **names: Any) -> A:
        """Return the anatomy of a model with one text encoder, in the folders that all these pipelines have.

        Args:
            kind: class of the anatomy.
            latents: of one image.
            width: of the text rows, as the encoder writes them.
            rows: of a text at most; padding is masked.
            names: further arguments of the class. Those that are left out are what most families have: a causal
                language model, flow matching, and adapters on queries, keys, values and outputs.
        """
        encoder = TextEncoder("text_encoder", "tokenizer", width, names.pop("encoder", "llm"))
        plain: dict[str, Any] = {
            "pipeline": self.pipelines[0],
            "predictions": ("flow",),
            "lora_targets": ("to_q", "to_k", "to_v", "to_out.0"),
        }
        return kind(
            family=self.name,
            denoiser="transformer",
            text_encoders=(encoder,),
            text_width=width,
            latents=latents,
            text_blocks=(TextBlock((encoder.component,), rows, masked=True),),
            **plain | names,
        )

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


def why_other_width(read: int, written: int) -> str:
    """Return why text does not fit, in one sentence, if a transformer reads other rows than its text encoder writes."""
    return "" if read == written else f"its transformer reads text {read} wide, its text encoder writes {written}"


def cross_attention_entry(blocks: int) -> tuple[str, ...]:
    """Return the weights of the keys and values of every block's cross-attention, ``attn2``.

    Args:
        blocks: number of blocks.
    """
    return tuple(f"transformer_blocks.{n}.attn2.{part}.weight" for n in range(blocks) for part in ("to_k", "to_v"))


def project_caption(rows: Tensor, read: Callable[[str], Tensor]) -> Tensor:
    """Return text rows behind ``caption_projection``: two linear maps with a GELU (by tanh) between them.

    Args:
        rows: ``(n, d)`` of the text encoder.
        read: returns a tensor of the denoiser by its name.

    Returns:
        ``(n, inner)``.
    """
    import torch.nn.functional as F

    first, second = (
        [read(f"caption_projection.linear_{number}.{part}").to(rows) for part in ("weight", "bias")]
        for number in (1, 2)
    )
    return F.linear(F.gelu(F.linear(rows, *first), approximate="tanh"), *second)


def rms_norm(rows: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return rows divided by the root of their mean square, times a weight, in the rows' dtype.

    Args:
        rows: ``(..., d)``.
        weight: ``(d,)`` of the norm.
        eps: of the norm.
    """
    scale = rows.square().mean(-1, keepdim=True).add(eps).rsqrt()
    return rows * scale * weight.to(rows)
