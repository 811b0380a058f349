"""The class of a pipeline that says its prompts: its own, with two methods around those that it has.

A U-Net's pipeline encodes once for each call, the negative prompts with the others. Pipelines of transformers may
encode positive and negative prompts apart (FLUX.1 with true guidance, Qwen-Image), the negative ones last. Which encode
is which is decided by comparing its texts with those of the call, never by the order: only the positive one is heard.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from publisher.errors import ModelError

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

    from publisher.api import Anatomy
    from publisher.safeguards.membranes.branches import PromptGate


PIPELINES = tuple(f"StableDiffusion{kind}{task}Pipeline" for kind in ("", "XL") for task in ("", "Img2Img", "Inpaint"))
"""Classes whose ``encode_prompt`` is understood: its arguments, and that it is called once for a batch of prompts."""


TEXTS = ("prompt", "prompt_2", "prompt_3")
"""Arguments of a call, and of ``encode_prompt``, that hold what is to be generated."""


class Listener(Protocol):
    """Who is told what a pipeline is about to generate."""

    anatomy: Anatomy | None
    """Anatomy of a transformer; None: a U-Net."""

    def opened(self) -> None:
        """Open all membranes for a call whose prompts nobody can follow."""

    def require_denoiser(self, pipeline: DiffusionPipeline) -> None:
        """Refuse a pipeline whose denoiser was exchanged."""

    def heard(self, pipeline: DiffusionPipeline, arguments: Mapping[str, Any], states: torch.Tensor) -> None:
        """Learn that a call has encoded its prompts: its arguments, and what the denoiser gets.

        Args:
            pipeline: that encoded them.
            arguments: of ``encode_prompt`` for a U-Net, of the pipeline's call for a transformer.
            states: first of the tensors that ``encode_prompt`` returned.
        """


def serving_class(kind: Any, listener: Listener, gate: PromptGate) -> type:
    """Make a subclass of a pipeline's class, of the same name, so that it is saved under that name.

    Args:
        kind: of a pipeline as :func:`require_kind` accepts it; the new class keeps it as ``plain_class``.
        listener: is told of each call; the new class keeps it as ``membranes``, and as ``attachment`` for
            :func:`publisher.runtime.pipelines.twin`, which knows no safeguard by name.
        gate: is closed again when the call ends.
    """
    signature, asking = inspect.signature(kind.encode_prompt), inspect.signature(kind.__call__)
    apart = listener.anatomy is not None
    blind = listener.anatomy is not None and not listener.anatomy.halves

    @functools.wraps(kind.__call__)
    def call(pipeline: Any, *args: Any, **kwargs: Any) -> Any:
        listener.require_denoiser(pipeline)
        with gate.saying():
            if not gate.thread.fixed:
                gate.thread.permeability, gate.thread.calling = None, not blind
                gate.thread.asked = _asked(asking, pipeline, *args, **kwargs) if apart and not blind else None
                if blind:
                    listener.opened()
            return kind.__call__(pipeline, *args, **kwargs)

    @functools.wraps(kind.encode_prompt)
    def encode_prompt(pipeline: Any, *args: Any, **kwargs: Any) -> Any:
        if not gate.thread.calling:  # it encodes for a purpose of its own, or strengths are fixed
            return kind.encode_prompt(pipeline, *args, **kwargs)
        bound = signature.bind(pipeline, *args, **kwargs)
        bound.apply_defaults()
        asked = gate.thread.asked
        if asked is not None and _texts(asked) != _texts(bound.arguments):  # the negative prompts
            return kind.encode_prompt(pipeline, *args, **kwargs)
        _require_words(bound.arguments)
        found = kind.encode_prompt(pipeline, *args, **kwargs)
        listener.heard(pipeline, bound.arguments if asked is None else asked, found[0])
        return found

    return type(
        kind.__name__,
        (kind,),
        {
            "__module__": kind.__module__,
            "__qualname__": kind.__qualname__,
            "__doc__": kind.__doc__,
            "__call__": call,
            "encode_prompt": encode_prompt,
            "plain_class": kind,
            "attachment": listener,
            "membranes": listener,
        },
    )


def _asked(signature: inspect.Signature, *args: Any, **kwargs: Any) -> Mapping[str, Any]:
    """Return the arguments of a call, all of them, if they say what is to be generated."""
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    _require_words(bound.arguments)
    return bound.arguments


def _require_words(arguments: Mapping[str, Any]) -> None:
    from publisher.safeguards.membranes.branches import PromptUnknownError

    if arguments.get("prompt_embeds") is not None or arguments["prompt"] is None:
        raise PromptUnknownError(
            "the call has prompt_embeds without their prompt, so nobody can say how far membranes open",
            hint="Give the prompt, or open them yourself: with attached.at({'concept': 1.0}): ...",
        )


def _texts(arguments: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the texts of each prompt argument; one that is not there, or empty, is none."""
    found = (arguments.get(name) or () for name in TEXTS)
    return [(texts,) if isinstance(texts, str) else tuple(texts) for texts in found]


def require_kind(pipeline: DiffusionPipeline, anatomy: Anatomy | None = None) -> None:
    """Refuse a pipeline whose prompts are not understood.

    Args:
        pipeline: of diffusers.
        anatomy: of a transformer, whose family names its pipeline; None: a U-Net.

    Raises:
        ModelError: its class is none of :data:`PIPELINES`, or of the family's.
    """
    name = type(pipeline).__name__
    known = PIPELINES
    if anatomy is not None:
        plain = (anatomy.pipeline or name).removesuffix("Pipeline")
        known = tuple(f"{plain}{task}Pipeline" for task in ("", "Img2Img", "Inpaint"))
    if name not in known:
        raise ModelError(f"membranes cannot follow the prompts of a {name}", hint=f"Known: {', '.join(known)}.")
