"""From fine-tunings to masks, as the recipe says; all masks of a running step, and the artifact.

``path``: the units with the best scores. ``refined``: the relaxed mask that starts from them. ``released``: the
authors' procedure. ``random``: nothing is learned.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from publisher.api import Concept, StepContext, UsageError
from publisher.api.diffusion.checkpoints import Checkpoints
from publisher.api.diffusion.denoiser import Denoiser
from publisher.api.diffusion.loop import Training, optimizer_state, pack, restore_optimizer, unpack
from publisher.api.diffusion.threads import Aside, is_small, one_thread_each
from publisher.api.freeze_mask import (
    Candidate,
    FreezeMask,
    FrozenTensor,
    Rows,
    Share,
    architecture_sha256,
    count,
    digests,
)
from publisher_freeze_mask.data import CaptionedImages, MaskData, gather
from publisher_freeze_mask.freezeasguard import MaskSide, ascend, begin, move, released
from publisher_freeze_mask.mixing import Loss, MixedNetwork
from publisher_freeze_mask.params import FreezeMaskParams
from publisher_freeze_mask.plan import trained
from publisher_freeze_mask.train import FineTuner, ScoredFineTuning, fine_tunings
from publisher_freeze_mask.units import MaskBudget, Units, worth

Mask = dict[str, Rows]
"""Name of a frozen tensor -> its frozen rows; none: all of it."""
NOT_LEARNING = ("check", "checkpoint_every", "innocent_at_least", "promise", "random_at_most", "replicas", "swap")
"""Parameters that a mask does not depend on."""
SMALL = 2**28
"""Bytes of a denoiser up to which theta_pre is kept in memory instead of being read again at each move."""


@dataclass(frozen=True)
class LearnedMask:
    """One mask and how it came about."""

    mask: Mask
    """Frozen tensors and rows."""
    tunings: tuple[ScoredFineTuning, ...] = ()
    """Fine-tunings that it was learned from."""
    scores: Tensor | None = None
    """Worth of freezing each unit, ``(n,)``; None where nothing was scored."""
    lost: tuple[tuple[float, float], ...] = ()
    """Shares lost by the relaxed mask, illegal and innocent, at each step of the refinement."""
    initial: Mask | None = None
    """Mask before anything was learned, with ``released`` alone."""


@dataclass(frozen=True)
class MaskLearner:
    """All that the masks of a step are learned with."""

    tuner: FineTuner | None
    """Fine-tunings of the step; None: recipe ``random`` has none."""
    units: Units
    """Units of the candidates."""
    budget: MaskBudget
    """Budget of every mask."""
    params: FreezeMaskParams
    """Parameters with every None replaced."""
    generator: Callable[[str], torch.Generator]
    """Purpose -> generator, from its beginning."""
    progress: Callable[[int, str], None]
    """Function that is told how many steps more are done, and a line."""
    aside: Aside | None = None
    """Function that starts work in another thread; None: there is none."""

    def learn(self, seed: int) -> LearnedMask:
        """Learn a mask from the seed's own samples; 0 is the mask that is published.

        Raises:
            UsageError: a fine-tuning learned nothing, or its loss is no number any more.
        """
        tuner = self.tuner
        if tuner is None:
            scores = torch.rand(len(self.units), generator=self.generator(f"seed-{seed}/mask"), dtype=torch.float64)
            return LearnedMask(self.units.top(scores, self.budget))
        tunings = tuner.all(fine_tunings(self.params, tuner.data), seed, self.aside)
        return self._mask(tuner, tunings, seed, swapped=False)

    def swapped(self, learned: LearnedMask) -> LearnedMask:
        """Learn the same mask with the sides exchanged."""
        if self.tuner is None:
            return learned
        return self._mask(self.tuner, learned.tunings, 0, swapped=True)

    def _mask(self, tuner: FineTuner, tunings: Sequence[ScoredFineTuning], seed: int, *, swapped: bool) -> LearnedMask:
        if self.params.recipe == "released":
            return self._released(tuner, tunings, seed, swapped=swapped)
        sides = tuple([one for one in tunings if one.what.side == side] for side in ("illegal", "innocent"))
        illegal, innocent = reversed(sides) if swapped else sides
        scores = self._scores(illegal, innocent)
        ranked = self.units.rank(scores, self.budget, self.params.order)
        if self.params.recipe == "path":
            return LearnedMask(self.units.top(ranked, self.budget), tuple(tunings), scores)
        name = f"{'swapped' if swapped else 'refined'}-seed-{seed}"
        return self._refined(tuner, illegal, innocent, scores, name)

    def _scores(self, illegal: Sequence[ScoredFineTuning], innocent: Sequence[ScoredFineTuning]) -> Tensor:
        for one in (*illegal, *innocent):
            if not one.path.gain > 0:
                raise UsageError(
                    f"the fine-tuning {one.what.label!r} learned nothing: loss {one.path.before:.4g} before, "
                    f"{one.path.after:.4g} after",
                    where="freeze-mask",
                    hint="Give it more steps or another rate (adapt.steps, adapt.lr). A concept that the model still "
                    "knows leaves nothing to learn under its own name: erase it first, or add captions: [rare].",
                )
        return worth(self.units, [one.path for one in illegal], [one.path for one in innocent], self.params.lam)

    def _refined(
        self,
        tuner: FineTuner,
        illegal: Sequence[ScoredFineTuning],
        innocent: Sequence[ScoredFineTuning],
        scores: Tensor,
        name: str,
    ) -> LearnedMask:
        training = Refinement(self, tuner.network, illegal, innocent, scores)
        checkpoints = Checkpoints(tuner.folder, name, tuner.identity)
        loop = tuner.loop(self.params.refine.steps, checkpoints, "refined", "Lower refine.lr.")
        rows = loop.run(training)
        loop.progress(len(rows), "done")
        mask = self.units.top(training.mask.x.detach(), self.budget)
        return LearnedMask(mask, (*illegal, *innocent), scores, tuple((row[0], row[1]) for row in rows))

    def _released(
        self, tuner: FineTuner, tunings: Sequence[ScoredFineTuning], seed: int, *, swapped: bool
    ) -> LearnedMask:
        params, (both,) = self.params.released, tunings
        generator = self.generator(f"seed-{seed}/mask")
        start, x = released(
            tuner.network,
            self.units,
            both.delta,
            partial(self._batch, tuner, generator, swapped=swapped),
            rho=self.params.ratio,
            params=params,
            generator=generator,
        )
        frozen = replace(self.budget, size=int((x > 0).sum()))
        return LearnedMask(self.units.top(x, frozen), tuple(tunings), None, initial=self.units.top(start, frozen))

    def _batch(self, tuner: FineTuner, generator: torch.Generator, *, swapped: bool) -> tuple[Loss, Loss]:
        """Sample a batch, half of it illegal, half innocent: the mask's loss and the user's."""
        data, size = tuner.data, max(1, self.params.released.batch // 2)
        illegal = CaptionedImages.join([one for ones in data.illegal.values() for one in ones])
        self.progress(1, "released")
        losses = []
        for images in (illegal, CaptionedImages.join(data.innocent)):
            sampled = data.sample(images, size, generator)
            losses.append(partial(data.loss, tuner.denoiser, images, sampled))
        bad, good = reversed(losses) if swapped else losses
        return (lambda: (good() - bad()) / 2), (lambda: (good() + bad()) / 2)


class Refinement(Training):
    """The training of a relaxed mask, from the scores on.

    Args:
        learner: units, budget and parameters.
        network: network at theta_pre.
        illegal: illegal fine-tunings, taken in turn.
        innocent: innocent fine-tunings, taken in turn.
        scores: worth of freezing each unit, ``(n,)``.
    """

    def __init__(
        self,
        learner: MaskLearner,
        network: MixedNetwork,
        illegal: Sequence[ScoredFineTuning],
        innocent: Sequence[ScoredFineTuning],
        scores: Tensor,
    ) -> None:
        self.generators: Mapping[str, torch.Generator] = {}
        self.learner, self.network, self.illegal, self.innocent = learner, network, illegal, innocent
        ranked = learner.units.rank(scores, learner.budget, learner.params.order)
        self.mask = begin(ranked, learner.params.refine)

    def step(self, done: int) -> tuple[float, float]:
        """Compute the gradient of the upper level, and return the shares lost, illegal and innocent."""
        params, units, budget = self.learner.params, self.learner.units, self.learner.budget
        one, other = self.illegal[done % len(self.illegal)], self.innocent[done % len(self.innocent)]
        sides = (
            MaskSide(one.delta, one.path, 1.0, one.batches),
            MaskSide(other.delta, other.path, -params.lam, other.batches),
        )
        t = params.refine.temperature
        return ascend(self.network, units, sides, budget, self.mask, done=done, temperature=t)

    def move(self, done: int) -> None:  # noqa: ARG002 - each step is like the others
        """Take a step of Adam on the mask's logits, and project them onto the budget."""
        move(self.learner.units, self.learner.budget, self.mask, self.learner.params.refine.temperature)

    def state(self) -> dict[str, Tensor]:
        """Return the logits and their moments."""
        return pack({"mask": {"x": self.mask.x}, "adam": optimizer_state(self.mask.adam)})

    def restore(self, state: Mapping[str, Tensor], done: int) -> None:  # noqa: ARG002 - the state says it
        """Restore what :meth:`state` returned."""
        groups = unpack(state)
        with torch.no_grad():
            self.mask.x.copy_(groups["mask"]["x"])
        restore_optimizer(self.mask.adam, groups["adam"])

    def line(self, recent: Sequence[float]) -> str:
        """Return the shares lost."""
        return f"lost {recent[0]:.0%} illegal, {recent[1]:.0%} innocent"


@dataclass(frozen=True)
class Masks:
    """All masks of a step."""

    learned: LearnedMask
    """Mask that is published."""
    others: tuple[LearnedMask, ...]
    """Masks from the seeds 1, 2 and so on."""
    swapped: LearnedMask | None
    """Mask with the sides exchanged; None: it was not asked for."""


def learn_masks(
    ctx: StepContext, params: FreezeMaskParams, illegal: Sequence[Concept], innocent: Sequence[Concept], units: Units
) -> Masks:
    """Learn all masks.

    Args:
        ctx: context of the running step.
        params: parameters with every None replaced.
        illegal: concepts whose fine-tuning is to fail.
        innocent: concepts whose fine-tuning is to work.
        units: units of the candidates.

    Raises:
        UsageError: images are missing, texts are too long, or a fine-tuning learned nothing or diverged.
        ModelError: a part of the model cannot be loaded.
    """
    with _threads(ctx) as aside:
        data = None if params.recipe == "random" else _data(ctx, params, illegal, innocent)
        progress = _Progress(ctx, _steps(params, data))
        tuner = None if data is None else _tuner(ctx, params, data, units, progress)
        budget = units.budget(params.ratio, params.count, _total(ctx))
        learner = MaskLearner(tuner, units, budget, params, ctx.generator, progress, aside)
        learned = learner.learn(0)
        others = tuple(learner.learn(seed) for seed in range(1, params.replicas + 1))
        return Masks(learned, others, learner.swapped(learned) if params.swap and tuner else None)


def artifact(
    ctx: StepContext, masks: Masks, candidates: Mapping[str, Candidate], recipe: Mapping[str, Any], granularity: str
) -> FreezeMask:
    """Return ``release/freeze-mask.json``, with the digests of what is frozen as it is stored."""
    component, mask = ctx.model.anatomy.denoiser, masks.learned.mask
    headers = ctx.model.tensors(component)
    return FreezeMask.model_validate(
        {
            "component": component,
            "model": ctx.model.digest,
            "architecture": architecture_sha256({name: info.shape for name, info in headers.items()}),
            "granularity": granularity,
            "recipe": dict(recipe),
            "tensors": Share(frozen=len(mask), total=len(headers)),
            "parameters": Share(frozen=count(mask, candidates), total=_total(ctx)),
            "candidates": dict(candidates),
            "frozen": tuple(_frozen(ctx, component, name, mask, candidates) for name in sorted(mask)),
            "others": {f"seed-{seed}": other.mask for seed, other in enumerate(masks.others, 1)},
        }
    )


def _frozen(
    ctx: StepContext, component: str, name: str, mask: Mask, candidates: Mapping[str, Candidate]
) -> FrozenTensor:
    kept = digests(ctx.model.read(component, name), mask[name])
    return FrozenTensor.model_validate(
        {"name": name, "shape": candidates[name].shape, "rows": mask[name], "sha256": kept}
    )


def _data(
    ctx: StepContext, params: FreezeMaskParams, illegal: Sequence[Concept], innocent: Sequence[Concept]
) -> MaskData:
    ctx.progress(0, 0, "images and texts")
    return gather(params, illegal, innocent, ctx)


def _tuner(
    ctx: StepContext, params: FreezeMaskParams, data: MaskData, units: Units, progress: Callable[[int, str], None]
) -> FineTuner:
    denoiser = Denoiser.load(ctx.model, ctx.device, torch.float32)
    network, names = MixedNetwork(denoiser.network, _reader(ctx, denoiser), units.rows), trained(params, ctx.model)
    identity = _identity(ctx, params, data)
    place = (ctx.generator, ctx.scratch, identity, progress, ctx.warn)
    return FineTuner(network, denoiser, data, names, params, *place)


def _reader(ctx: StepContext, denoiser: Denoiser) -> Callable[[str], Tensor]:
    """Return a reader of theta_pre: of a small denoiser from memory, of a large one from the disk each time."""
    parameters = dict(denoiser.network.named_parameters())
    if sum(tensor.numel() * tensor.element_size() for tensor in parameters.values()) <= SMALL:
        return {name: tensor.detach().clone() for name, tensor in parameters.items()}.__getitem__
    component = ctx.model.anatomy.denoiser
    return lambda name: ctx.model.read(component, name)


def _threads(ctx: StepContext) -> AbstractContextManager[Aside | None]:
    size = ctx.model.anatomy.latents.size
    return one_thread_each() if is_small(ctx.device, size) else nullcontext()


def _total(ctx: StepContext) -> int:
    return sum(info.parameters for info in ctx.model.tensors(ctx.model.anatomy.denoiser).values())


def _steps(params: FreezeMaskParams, data: MaskData | None) -> int:
    """Count the steps, as progress does."""
    if data is None:
        return 0
    last = {"refined": params.refine.steps, "released": params.released.steps}.get(params.recipe, 0)
    tunings = len(fine_tunings(params, data)) * ((params.adapt.steps or 0) + 1)
    return (1 + params.replicas) * (tunings + last) + (last if params.swap else 0)


class _Progress:
    """A counter of steps, for all threads."""

    def __init__(self, ctx: StepContext, total: int) -> None:
        self.ctx, self.total, self.done = ctx, total, 0
        self.lock = threading.Lock()

    def __call__(self, more: int, text: str) -> None:
        with self.lock:
            self.done += more
            self.ctx.progress(self.done, self.total, text)


def _identity(ctx: StepContext, params: FreezeMaskParams, data: MaskData) -> str:
    """Return a digest of what the fine-tunings depend on."""
    plain = {name: value for name, value in params.as_json().items() if name not in NOT_LEARNING}
    shown = [*(one for ones in data.illegal.values() for one in ones), *data.innocent]
    said = [plain, str(ctx.device), torch.__version__, ctx.model.digest, [one.captions for one in shown]]
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for one in shown:
        digest.update(one.latents.cpu().contiguous().numpy().tobytes())
    digest.update(ctx.generator("identity").get_state().numpy().tobytes())
    return digest.hexdigest()
