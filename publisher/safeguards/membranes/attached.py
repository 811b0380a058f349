"""Membranes on a pipeline: attach them, let its prompts open them, look at them, take them off.

The denoiser carries forward hooks (:mod:`publisher.safeguards.membranes.branches`); its weights and layers are
untouched. The pipeline becomes an instance of a subclass of its own class, with the same name, that says in
``encode_prompt`` for which prompts the denoiser will run. What is said holds for the thread that said it and until its
call ends; a denoiser that runs when nothing was said is an error, never a guess.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from publisher.api.membranes import Membrane, MembraneEntry, Transport
from publisher.errors import ModelError, UsageError
from publisher.safeguards.membranes.released import Released
from publisher.safeguards.membranes.serving import require_kind, serving_class

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

    from publisher.api import Anatomy
    from publisher.safeguards.membranes.branches import Permeability, PromptGate
    from publisher.safeguards.membranes.content import ContentScorer
    from publisher.safeguards.membranes.prediction import PromptPredictor
    from publisher.safeguards.membranes.scoring import PromptScorer

log = logging.getLogger("publisher.membranes")

Members = Sequence[tuple[MembraneEntry, Membrane]]


@dataclass(frozen=True)
class Scored:
    """What a call opened."""

    prompts: tuple[str, ...]
    concepts: tuple[str, ...]
    matrix: torch.Tensor
    """Permeabilities, ``(prompts, concepts)`` float32 on the CPU."""


def attach(pipeline: DiffusionPipeline, membranes: Released | Members, transport: Transport | None = None) -> Attached:
    """Attach membranes to a pipeline, which then opens them by its prompts.

    Nothing is touched before everything is known to fit, and nothing stays behind if it fails.

    Args:
        pipeline: Stable Diffusion 1.x, 2.x or XL, or a model of another family with hosts that this program has loaded;
            its denoiser not compiled. LoRA may be loaded before or after.
        membranes: of a package in mode ``bundle``, or each with what an index would say about it.
        transport: how prompts open them; default: as the package says, or the paper's rule.

    Returns:
        What was attached; leaving it as a context manager, or ``detach()``, undoes everything.

    Raises:
        ModelError: a membrane does not fit, or cannot be opened by a prompt; another kind of pipeline.
        UsageError: the denoiser has membranes already, or was compiled.
    """
    if isinstance(membranes, Released):
        if not membranes.attachable:
            raise UsageError(
                "the weights have these membranes already (mode: merge)", hint="Use the pipeline as it is."
            )
        transport = transport or membranes.index.transport
        membranes = membranes.members
    return Attached(pipeline, tuple(membranes), transport or Transport())


class Attached:
    """Membranes that are attached to a denoiser and to the pipelines that run it."""

    def __init__(self, pipeline: DiffusionPipeline, members: Members, transport: Transport) -> None:
        """See :func:`attach`."""
        from publisher.safeguards.membranes.branches import PromptGate, hook
        from publisher.safeguards.membranes.content import ContentScorer
        from publisher.safeguards.membranes.hosts import denoiser_with_hosts, require_hosts, transformer_anatomy
        from publisher.safeguards.membranes.scoring import PromptScorer

        _require_members(members)
        self.anatomy: Anatomy | None = transformer_anatomy(pipeline)
        """Anatomy of a transformer; None: the denoiser is a U-Net."""
        self.concepts: tuple[str, ...] = tuple(entry.concept for entry, _ in members)
        """Ids, in the order of the columns of every matrix."""
        self.transport = transport
        self._pipeline = pipeline
        self._gate: PromptGate = PromptGate()
        self._served: weakref.WeakSet[DiffusionPipeline] = weakref.WeakSet()
        self._kinds: dict[type, type] = {}
        require_kind(pipeline, self.anatomy)
        if transport.prediction and self.anatomy is not None:
            raise ModelError(
                "what a prompt is about to generate can be asked of U-Nets alone, not of a transformer",
                where="transport.prediction",
                hint="Leave out 'prediction': the membranes then open by words.",
            )
        self._denoiser = denoiser_with_hosts(pipeline, self.anatomy)
        hosts = require_hosts(self._denoiser, members, self.anatomy)
        entries = [entry for entry, _ in members]
        self._scorer: PromptScorer | ContentScorer = (
            PromptScorer(pipeline, entries, transport, self._predictor(pipeline))
            if self.anatomy is None
            else ContentScorer(pipeline, self.anatomy, entries, transport)
        )
        if self.anatomy is not None and not self.anatomy.halves:
            log.warning(
                "the family %s does not say how its pipeline runs the two halves of guidance: "
                "all membranes are open for every prompt",
                self.anatomy.family,
            )
        with ExitStack() as undo:
            undo.callback(self._leave)
            self._layouts = hook(self._denoiser, hosts, [membrane for _, membrane in members], self._gate, undo)
            self.serve(pipeline)
            self._undo = undo.pop_all()

    def serve(self, pipeline: DiffusionPipeline) -> None:
        """Let another pipeline on the same denoiser open the membranes by its prompts, such as one for image to image.

        Raises:
            ModelError: another denoiser, or a kind of pipeline whose prompts are not understood.
            UsageError: detached already.
        """
        if self._gate.detached:
            raise UsageError("the membranes are detached already", hint="Attach them again.")
        if isinstance(getattr(type(pipeline), "membranes", None), Attached):
            raise UsageError("the pipeline has membranes already", hint="Detach those first.")
        require_kind(pipeline, self.anatomy)
        self.require_denoiser(pipeline)
        kind = type(pipeline)
        if kind not in self._kinds:
            self._kinds[kind] = serving_class(kind, self, self._gate)
        pipeline.__class__ = self._kinds[kind]
        self._served.add(pipeline)

    def detach(self) -> None:
        """Take everything off: hooks and pipelines are as they were. A second time does nothing."""
        self._undo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.detach()

    @contextmanager
    def at(self, strengths: Mapping[str, float] | torch.Tensor) -> Iterator[None]:
        """Open the membranes by hand, in this thread and inside the ``with`` block; prompts are not scored there.

        Args:
            strengths: concept -> permeability, for every row alike, the others shut; or ``(rows, k)``, one row for each
                image of a batch (without its unconditional half).

        Raises:
            UsageError: an unknown concept, another shape, NaN or infinity.
        """
        matrix = self._matrix(strengths)
        device = self._pipeline._execution_device  # noqa: SLF001 - where its own __call__ runs, whatever is offloaded
        permeability = self._permeability(matrix, device, self._denoiser.dtype)
        with self._gate.saying():
            thread = self._gate.thread
            thread.permeability, thread.fixed, thread.calling = permeability, True, False
            yield

    def permeabilities(self, prompts: Sequence[str], clip_skip: int | None = None) -> torch.Tensor:
        """Return how far prompts open the membranes, without generating; not while another thread generates.

        Args:
            prompts: n of them.
            clip_skip: as in the pipeline's call; a transformer's permeabilities do not depend on it.

        Returns:
            ``(n, k)`` float32 on the CPU; columns as in :attr:`concepts`.
        """
        import torch

        from publisher.safeguards.membranes.scoring import BATCH, Encoding, PromptScorer

        encoding = Encoding(clip_skip)
        parts = [torch.zeros(0, len(self.concepts))]
        with torch.no_grad():
            if not isinstance(self._scorer, PromptScorer):
                return self._content_gamma(self._pipeline, [(text,) for text in prompts]) if prompts else parts[0]
            for start in range(0, len(prompts), BATCH):
                some = list(prompts[start : start + BATCH])
                states = encoding.states(self._pipeline, some)
                parts.append(self._scorer.gamma(self._pipeline, [(text,) for text in some], states, encoding))
        return torch.cat(parts)

    @property
    def last(self) -> Scored | None:
        """What the last call of a pipeline in this thread opened; None: there was none."""
        found: Scored | None = self._gate.thread.last
        return found

    def _matrix(self, strengths: Mapping[str, float] | torch.Tensor) -> torch.Tensor:
        import torch

        if isinstance(strengths, Mapping):
            unknown = sorted(set(strengths) - set(self.concepts))
            if unknown:
                raise UsageError(f"no membrane of {unknown[0]!r}", hint=f"There are: {', '.join(self.concepts)}.")
            strengths = torch.tensor([[float(strengths.get(concept, 0)) for concept in self.concepts]])
        if strengths.ndim != 2 or not len(strengths) or strengths.shape[1] != len(self.concepts):
            raise UsageError(f"permeabilities of shape {tuple(strengths.shape)}, not (rows, {len(self.concepts)})")
        if not strengths.isfinite().all():
            raise UsageError("a permeability is NaN or infinite")
        return strengths.float()

    def _permeability(self, matrix: torch.Tensor, device: torch.device | str, dtype: torch.dtype) -> Permeability:
        from publisher.safeguards.membranes.branches import permeability

        return permeability(matrix, self._layouts, device, dtype)

    def require_denoiser(self, pipeline: DiffusionPipeline) -> None:
        """Refuse a pipeline that would generate without these membranes.

        Raises:
            ModelError: its denoiser is another one, or layers that carry membranes were fused.
        """
        from publisher.safeguards.membranes.hosts import denoiser_with_hosts, require_unfused

        denoiser = denoiser_with_hosts(pipeline, self.anatomy)
        if self.anatomy is not None:
            require_unfused(denoiser)
        if getattr(denoiser, "_orig_mod", denoiser) is not self._denoiser:
            raise ModelError(
                "the pipeline has another denoiser, without these membranes",
                hint="Build it with **pipeline.components, or detach the membranes.",
            )

    def heard(self, pipeline: DiffusionPipeline, arguments: Mapping[str, Any], states: torch.Tensor) -> None:
        """Open the membranes for the prompts that a call has just encoded."""
        from publisher.safeguards.membranes.scoring import Encoding, PromptScorer, prompts_of

        images = arguments.get("num_images_per_prompt") or 1
        prompts = prompts_of(arguments)
        if isinstance(self._scorer, PromptScorer):
            encoding = Encoding(arguments["clip_skip"], arguments["lora_scale"])
            gamma, device = self._scorer.gamma(pipeline, prompts, states[::images], encoding), states.device
        else:
            gamma = self._content_gamma(pipeline, prompts)
            device = pipeline._execution_device  # noqa: SLF001 - where its own __call__ runs, whatever is offloaded
        thread = self._gate.thread
        thread.permeability = self._permeability(gamma.repeat_interleave(images, dim=0), device, self._denoiser.dtype)
        thread.last = Scored(tuple(" | ".join(texts) for texts in prompts), self.concepts, gamma)
        for text, row in zip(thread.last.prompts, gamma.tolist(), strict=True):
            opened = ", ".join(f"{concept} {value:.3f}" for concept, value in zip(self.concepts, row, strict=True))
            log.info("permeability of %r: %s", text, opened)

    def opened(self) -> None:
        """Open all membranes for a call whose prompts nobody can follow."""
        import torch

        device = self._pipeline._execution_device  # noqa: SLF001 - where its own __call__ runs, whatever is offloaded
        matrix = torch.ones(1, len(self.concepts))
        self._gate.thread.permeability = self._permeability(matrix, device, self._denoiser.dtype)
        self._gate.thread.last = Scored(("any prompt",), self.concepts, matrix)

    def _predictor(self, pipeline: DiffusionPipeline) -> PromptPredictor | None:
        from publisher.safeguards.membranes.prediction import PromptPredictor

        rule = self.transport.prediction
        return (
            PromptPredictor(rule, self._denoiser, pipeline.scheduler.config.num_train_timesteps, self._shut)
            if rule
            else None
        )

    @contextmanager
    def _shut(self) -> Iterator[None]:
        """Keep all membranes shut in this thread."""
        import torch

        with self._gate.saying():
            shut = torch.zeros(1, len(self.concepts))
            self._gate.thread.permeability = self._permeability(shut, "cpu", torch.float32)
            yield

    def _content_gamma(self, pipeline: DiffusionPipeline, prompts: Sequence[Sequence[str]]) -> torch.Tensor:
        """Return permeabilities by rows of content, while nobody listens to what the pipeline encodes for it."""
        scorer: Any = self._scorer
        thread = self._gate.thread
        before, thread.calling = thread.calling, False
        try:
            found: torch.Tensor = scorer.gamma(pipeline, prompts)
        finally:
            thread.calling = before
        return found

    def _leave(self) -> None:
        self._gate.detached = True
        for pipeline in list(self._served):
            pipeline.__class__ = type(pipeline).plain_class
        self._served.clear()


def _require_members(members: Members) -> None:
    if not members:
        raise UsageError("there is no membrane to attach")
    names = [entry.concept for entry, _ in members]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UsageError(f"two membranes of the concept {twice!r}")
    for entry, _ in members:
        if not any(text.strip() for text in entry.words) or not any(text.strip() for text in entry.texts):
            raise ModelError(
                f"the membrane of {entry.concept!r} has no words, so no prompt can open it",
                where=entry.file,
                hint="Say in its entry what it erases, or merge it into the weights.",
            )
