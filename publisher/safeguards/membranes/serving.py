"""The class of a pipeline that says its prompts: its own, with two methods around those that it has."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from publisher.errors import ModelError

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

    from publisher.safeguards.membranes.branches import PromptGate


PIPELINES = tuple(f"StableDiffusion{kind}{task}Pipeline" for kind in ("", "XL") for task in ("", "Img2Img", "Inpaint"))
"""Classes whose ``encode_prompt`` is understood: its arguments, and that it is called once for a batch of prompts."""


class Listener(Protocol):
    """Who is told what a pipeline is about to generate."""

    def require_denoiser(self, pipeline: DiffusionPipeline) -> None:
        """Refuse a pipeline whose denoiser was exchanged."""

    def heard(self, pipeline: DiffusionPipeline, arguments: Mapping[str, Any], states: torch.Tensor) -> None:
        """Learn that a call has encoded its prompts: arguments of ``encode_prompt``, and what the denoiser gets."""


def serving_class(kind: Any, listener: Listener, gate: PromptGate) -> type:
    """Make a subclass of a pipeline's class, of the same name, so that it is saved under that name.

    Args:
        kind: of a pipeline as :func:`require_kind` accepts it; the new class keeps it as ``plain_class``.
        listener: is told of each call; the new class keeps it as ``membranes``, and as ``attachment`` for
            :func:`publisher.runtime.pipelines.twin`, which knows no safeguard by name.
        gate: is closed again when the call ends.
    """
    from publisher.safeguards.membranes.branches import PromptUnknownError

    signature = inspect.signature(kind.encode_prompt)

    @functools.wraps(kind.__call__)
    def call(pipeline: Any, *args: Any, **kwargs: Any) -> Any:
        listener.require_denoiser(pipeline)
        with gate.saying():
            if not gate.thread.fixed:
                gate.thread.permeability, gate.thread.calling = None, True
            return kind.__call__(pipeline, *args, **kwargs)

    @functools.wraps(kind.encode_prompt)
    def encode_prompt(pipeline: Any, *args: Any, **kwargs: Any) -> Any:
        if not gate.thread.calling:  # it encodes for a purpose of its own, or strengths are fixed
            return kind.encode_prompt(pipeline, *args, **kwargs)
        bound = signature.bind(pipeline, *args, **kwargs)
        bound.apply_defaults()
        if bound.arguments["prompt_embeds"] is not None or bound.arguments["prompt"] is None:
            raise PromptUnknownError(
                "the call has prompt_embeds without their prompt, so nobody can say how far membranes open",
                hint="Give the prompt, or open them yourself: with attached.at({'concept': 1.0}): ...",
            )
        found = kind.encode_prompt(pipeline, *args, **kwargs)
        listener.heard(pipeline, bound.arguments, found[0])
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


def require_kind(pipeline: DiffusionPipeline) -> None:
    """Refuse a pipeline whose prompts are not understood.

    Raises:
        ModelError: its class is none of :data:`PIPELINES`.
    """
    name = type(pipeline).__name__
    if name not in PIPELINES:
        raise ModelError(f"membranes cannot follow the prompts of a {name}", hint=f"Known: {', '.join(PIPELINES)}.")
