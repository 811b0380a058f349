"""Families: adapters for kinds of models. A family recognises a model, names its parts and knows how it is called.

All is known without torch. The methods of :class:`Anatomy` that take tensors import it when they are called.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, get_args

from publisher.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

    from publisher.api.diffusion.text import Text

Configs = Mapping[str, Mapping[str, Any]]
"""``"model_index"`` and each component's folder name -> its configuration."""
Prediction = Literal["epsilon", "v_prediction", "flow"]
"""What a denoiser says: the noise, the velocity of DDPM, or the velocity of flow matching (noise minus image)."""
Timesteps = Literal["uniform", "logit-normal"]
"""How a training of flow matching samples the noise level before the scheduler's shift."""
Weighting = Literal["none", "image", "sigma-sqrt", "cosmap"]
"""How a training of flow matching weighs noise levels: not at all, or as an option of diffusers' scripts has it."""
PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
"""Linear maps inside an attention layer, as diffusers calls them; those with ``add`` read text in joint attention."""
_HEADED = tuple(part for part in PROJECTIONS if not part.startswith("to_out") and part != "to_add_out")
Capability = Literal["cross-attention", "clip-text", "text-entry", "membranes", "training"]
"""What a step or an attack can need of a family; :attr:`Anatomy.capabilities` says when a model has it."""
Halves = Literal["", "negative-first", "positive-first", "separate"]
"""How a pipeline runs the two halves of guidance: in one batch, the negative or the positive prompts first; or each in
a forward of its own. Empty: nobody has said."""
NEEDS: Mapping[Capability, str] = {
    "cross-attention": "cross-attention whose keys and values read the text alone",
    "clip-text": "text encoders that are CLIP alone",
    "text-entry": "linear maps that its family names as the only ways by which text enters the denoiser",
    "membranes": "layers that its family names as hosts of membranes",
    "training": "a denoiser that its family says how to train",
}
"""Capability -> what a model then has, in words."""


@dataclass(frozen=True)
class TextEncoder:
    """One text encoder of a pipeline and the tokenizer that feeds it."""

    component: str
    """Folder of the encoder, such as ``"text_encoder_2"``."""
    tokenizer: str
    """Folder of its tokenizer."""
    width: int
    """Size of its hidden states."""
    kind: str = "clip"
    """Make of the encoder: ``"clip"``, ``"t5"``, ``"llm"`` (a causal language model), or another word."""

    @property
    def causal(self) -> bool:
        """Whether a row says nothing of the words behind it."""
        return self.kind in ("clip", "llm")


@dataclass(frozen=True)
class TextBlock:
    """Neighbouring rows of a text, one for each position of a tokenizer, where several encoders' rows follow."""

    encoders: tuple[str, ...]
    """Folders of the encoders whose states stand side by side in these rows, such as SD3's two CLIPs."""
    rows: int
    """Number of rows, padding among them; where rows are masked, at most so many."""
    masked: bool = False
    """Whether the denoiser never reads the rows that a text's mask leaves out: padding then carries nothing."""


@dataclass(frozen=True)
class Latents:
    """Shape of what the denoiser denoises: the latents of one image."""

    channels: int
    """Channels, as the autoencoder writes them."""
    height: int
    """Rows, in latent pixels."""
    width: int
    """Columns, in latent pixels."""
    pixels: int = 8
    """Pixels of the image for one latent pixel, along each side."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, in latent pixels."""
        return self.height, self.width

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the image, in pixels."""
        return self.height * self.pixels, self.width * self.pixels

    @classmethod
    def read(cls, configs: Configs, denoiser: str, channels: int, default: int | None = None) -> Self:
        """Return the latents of a model whose denoiser has a ``sample_size`` and whose autoencoder has blocks.

        Args:
            configs: of the model.
            denoiser: folder of the denoiser.
            channels: of the latents.
            default: height and width where the denoiser says none; None: it has to.

        Raises:
            ModelError: the denoiser says no size, or something else than one or two whole numbers.
        """
        config = configs[denoiser]
        if config.get("sample_size") is None and default is not None:
            config = {"sample_size": default}
        height, width = latent_size(config, denoiser)
        blocks = configs["vae"].get("block_out_channels", (64,)) if "vae" in configs else (0,) * 4
        return cls(channels, height, width, 2 ** (len(blocks) - 1))


def latent_size(config: Mapping[str, Any], component: str) -> tuple[int, int]:
    """Return height and width of the latents, from the denoiser's configuration (its ``sample_size``).

    Args:
        config: of the denoiser.
        component: its folder, for the message.

    Raises:
        ModelError: it says none, or something else than one or two whole numbers.
    """
    size = config.get("sample_size")
    sizes = [size, size] if isinstance(size, int) else size
    if isinstance(sizes, (list, tuple)) and len(sizes) == 2 and all(type(one) is int and one > 0 for one in sizes):
        return sizes[0], sizes[1]
    raise ModelError(
        f"sample_size is {size!r}, so nothing says how large the model's images are",
        where=f"{component}/config.json",
        hint="Write the height and width of the latents that it was trained at: 64 for images of 512 pixels.",
    )


@dataclass(frozen=True)
class Anatomy:
    """The parts of a recognised model, and how they are called.

    A family whose denoiser is to be trained, by a step or by an attack, makes a subclass that has :meth:`predict`; one
    whose pipeline reads other arguments than Stable Diffusion's changes :meth:`call`, :meth:`pack` or
    :meth:`read_text`. Objects are sent to other processes, so a subclass stands at the top of its module.
    """

    family: str
    """Name of the family, such as ``"stable-diffusion-1"``."""
    denoiser: str
    """Folder of the network that denoises, such as ``"transformer"``."""
    text_encoders: tuple[TextEncoder, ...]
    """Text encoders, in the order in which the pipeline runs them."""
    text_width: int
    """Size of the text rows that enter the denoiser."""
    latents: Latents
    """Shape of the latents of one image."""
    pipeline: str = ""
    """Class of diffusers that generates from words alone; empty: the one that ``model_index.json`` names."""
    penultimate: bool = False
    """Whether prompts are the hidden states before the last layer, without the final norm (SDXL)."""
    pooled_text: bool = False
    """Whether a pooled text vector also enters, past the rows (SDXL, SD3)."""
    empty_is_zeros: bool = False
    """Whether the pipeline reads a missing negative prompt as zeros and not as the empty text (SDXL)."""
    predictions: tuple[Prediction, ...] = ("epsilon", "v_prediction")
    """What the denoiser can be trained to predict; the model's scheduler says which of them it is."""
    timesteps: Timesteps = "uniform"
    """How trainings of this family sample the noise level. Only flow matching has anything but uniform."""
    negative: str | None = None
    """Negative prompt where a request has none and guidance is above 1; None: the pipeline makes its own, if any."""
    autoencoder: str = "AutoencoderKL"
    """Class of the autoencoder whose latents the denoiser is trained on."""
    vae_keys: tuple[str, ...] = ()
    """Keys of the autoencoder's configuration, besides ``scaling_factor``, that the pipeline reads when it decodes."""
    cross_attention: str = ""
    """Name of the layers whose keys and values read text rows alone, such as ``"attn2"``; empty: there are none."""
    attention: tuple[str, ...] = ()
    """Names of all other attention layers, such as ``("attn1",)``."""
    text_entry: tuple[str, ...] = ()
    """Weights through which all text enters the denoiser, such as ``"context_embedder.weight"``: they read the same
    rows, at every noise level and for every image. A U-Net names none."""
    entry_width: int | None = None
    """Size of the rows that :attr:`text_entry` reads, as :meth:`enter` returns them; None: :attr:`text_width`."""
    text_fold: tuple[str, ...] = ()
    """Weight and bias of the linear layer that writes the rows which :attr:`text_entry` reads, and writes nothing else.
    A map T of these rows is then folded into it, ``T W`` and ``T b``, and :attr:`text_entry` stays as it is."""
    pooled_entry: tuple[str, ...] = ()
    """Weights through which the pooled text vector enters the denoiser, beside :attr:`text_entry`."""
    text_blocks: tuple[TextBlock, ...] = ()
    """Which rows of a text are whose, in their order, where it enters by :attr:`text_entry`; rows behind are zeros."""
    lora_targets: tuple[str, ...] = ()
    """Names, or ends of names, of the layers that a LoRA of the usual tools adapts."""
    conv_targets: tuple[str, ...] = ()
    """The same of the convolutions that a LoCon adapts beside them."""
    constants: tuple[str, ...] = ()
    """Tensors in the denoiser's files that are no parameters, such as fixed position embeddings: no training moves
    them."""
    hosts: str = ""
    """Regular expression that matches the names of the weights which can carry a membrane; empty: there are none.
    :func:`publisher.api.membranes.find_hosts` explains its groups."""
    distilled: bool = False
    """Whether the guidance scale is a number that the denoiser reads: one forward is then a guided one, and there is no
    difference of two that guidance would scale."""
    halves: Halves = ""
    """How the pipeline runs the two halves of guidance. Empty: membranes cannot follow the prompts, and are open for
    every one."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What this model has of what steps and attacks can need."""
        kinds = {one.kind for one in self.text_encoders}
        has: Mapping[Capability, bool] = {
            "cross-attention": bool(self.cross_attention),
            "clip-text": kinds == {"clip"} and not self.text_blocks,
            "text-entry": bool(self.text_entry and self.text_blocks),
            "membranes": bool(self.hosts),
            "training": type(self).predict is not Anatomy.predict,
        }
        return frozenset(name for name in get_args(Capability) if has[name])

    def require(self, needs: Sequence[Capability], who: str) -> None:
        """Refuse a model that lacks what a step or an attack needs.

        Args:
            needs: of a step or an attack.
            who: needs it, such as ``"step 'erase'"``.

        Raises:
            ModelError: with all that is missing.
        """
        missing = [NEEDS[name] for name in needs if name not in self.capabilities]
        if missing:
            raise ModelError(
                f"{who} needs {' and '.join(missing)}; models of the family {self.family} have no such thing"
            )

    def projections(
        self, names: Iterable[str], layers: Sequence[str] = (), parts: Sequence[str] = PROJECTIONS
    ) -> list[str]:
        """Return the names of the tensors that are linear maps inside attention layers, sorted.

        Args:
            names: of the denoiser's tensors.
            layers: names of attention layers; default: all of them, cross-attention among them.
            parts: some of :data:`PROJECTIONS`.
        """
        layers = layers or [layer for layer in (self.cross_attention, *self.attention) if layer]
        inside = re.compile(rf"\.(?:{_either(layers)})\.(?:{_either(parts)})\.")
        return sorted(name for name in names if layers and inside.search(name))

    def adapted(self, paths: Iterable[str]) -> list[str]:
        """Return the layers that a LoRA of the usual tools adapts, in their order.

        Args:
            paths: paths of the denoiser's layers.
        """
        ends = tuple(f".{target}" for target in self.lora_targets)
        return [path for path in paths if path.endswith(ends)]

    def heads(self, name: str, config: Mapping[str, Any]) -> int:
        """Return the number of attention heads whose rows a tensor has one after the other; 0: it has none.

        Here it is ``num_attention_heads`` of every attention layer; a family with other numbers changes it.

        Args:
            name: of a tensor of the denoiser.
            config: of the denoiser.
        """
        return int(config.get("num_attention_heads") or 0) if self.has_heads(name) else 0

    def has_heads(self, name: str) -> bool:
        """Return whether a tensor makes queries, keys or values of an attention layer."""
        return bool(self.projections([name], parts=_HEADED)) and name.rpartition(".")[2] in ("weight", "bias")

    def why_untrainable(self, config: Mapping[str, Any]) -> str:  # noqa: ARG002 - for subclasses
        """Return why the denoiser cannot be trained, although its family can, in one sentence; empty: it can.

        Args:
            config: of the denoiser.
        """
        return ""

    def call(self, guidance: float) -> dict[str, Any]:
        """Return the arguments of the pipeline's call that are this family's own, guidance among them.

        Prompts, size, number of steps, noise and generators are given anyway.

        Args:
            guidance: classifier-free guidance scale; 1 and below generate without guidance.
        """
        return {"guidance_scale": guidance}

    def call_against(self, guidance: float) -> dict[str, Any]:  # noqa: ARG002 - for subclasses
        """Return the arguments of :meth:`call` that a request with a negative prompt changes.

        Args:
            guidance: classifier-free guidance scale.
        """
        return {}

    def pack(self, latents: Tensor) -> Tensor:
        """Return noise as the pipeline's argument ``latents`` wants it: unchanged, where a family does not pack it.

        Args:
            latents: ``(n, channels, height, width)``.
        """
        return latents

    def read_text(self, pipeline: Any, texts: Sequence[str]) -> Text:
        """Return texts as the denoiser reads them, by the pipeline's own ``encode_prompt``, with gradients.

        Args:
            pipeline: with its text encoders.
            texts: B of them.
        """
        from publisher.api.diffusion.text import Text

        found = pipeline.encode_prompt(
            list(texts),
            device=pipeline.text_encoder.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
        )
        return Text(found[0].float(), found[2].float() if self.pooled_text else None)

    def read_ids(self, pipeline: Any, text: str) -> tuple[tuple[int, ...], ...]:
        """Return the token of each row that :meth:`read_text` returns of a text, of each encoder, without padding.

        A family whose pipeline puts the text into a template counts the template's rows that are read.

        Args:
            pipeline: with its tokenizers.
            text: one prompt.
        """
        names = [part.tokenizer for part in self.text_encoders]
        return tuple(tuple(getattr(pipeline, name)(text, verbose=False).input_ids) for name in names)

    def enter(self, rows: Tensor, read: Callable[[str], Tensor]) -> Tensor:  # noqa: ARG002 - for subclasses
        """Return text rows as :attr:`text_entry` reads them: unchanged, where nothing of the denoiser comes before it.

        Args:
            rows: ``(n, d)``, as :meth:`read_text` returns them.
            read: returns a tensor of the denoiser by its name.
        """
        return rows

    def predict(self, network: Any, x: Tensor, t: Tensor, text: Text) -> Tensor:  # noqa: ARG002 - for subclasses
        """Return what the denoiser says: noise or velocity, as :attr:`predictions` has it. All in the network's dtype.

        A family whose network says the opposite turns the sign round here; one that reads another timestep than its
        scheduler's scales it here.

        Args:
            network: the denoiser.
            x: ``(B, channels, height, width)`` noisy latents.
            t: ``(B,)`` timesteps of the scheduler: whole numbers for DDPM, 1000 sigma for flow matching.
            text: B texts.

        Returns:
            ``(B, channels, height, width)``.

        Raises:
            ModelError: the family does not say how.
        """
        raise ModelError(f"the family {self.family} does not say how its denoiser is called", where=self.denoiser)


def _either(words: Sequence[str]) -> str:
    return "|".join(re.escape(word) for word in words)


def denoiser_of(pipeline: Any) -> Any:
    """Return the denoiser of a pipeline that the program loaded: its attribute ``anatomy`` says which part it is."""
    return getattr(pipeline, pipeline.anatomy.denoiser)


class ModelFamily(ABC):
    """Recognises a kind of model from its configurations and says how it is called.

    Attributes:
        name: such as ``"stable-diffusion-1"``.
        version: raise it when it recognises, names or calls differently.
        lacks: capability that its models do not have -> why, in words that follow a colon.
        single_file: what of its models a one-file checkpoint holds under names that are known here: ``"all"``, the
            ``"denoiser"``, or nothing.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    summary: ClassVar[str] = ""
    lacks: ClassVar[Mapping[Capability, str]] = {}
    single_file: ClassVar[Literal["", "denoiser", "all"]] = ""

    @abstractmethod
    def recognise(self, configs: Configs) -> Anatomy | None:
        """Return the parts of the model, or None when it is of another kind. Torch-free.

        Args:
            configs: ``"model_index"`` and each component's folder name -> its configuration.

        Raises:
            ModelError: the model is of this kind, and it cannot be used; say why and what to do.
        """

    def why_not(self, configs: Configs) -> str:  # noqa: ARG002
        """Return why :meth:`recognise` says no, as ``"its pipeline is 'FluxPipeline'"``; empty: nothing to say."""
        return ""
