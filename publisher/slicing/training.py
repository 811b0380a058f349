"""One stage: a low-rank adapter on some layers, trained on what it may see, and on nothing else.

    L = mean ||target - eps_theta(x_t, t, c)||^2                    the ordinary diffusion loss, over slices
      + w mean ||eps_before(x_t, t, c) - eps_theta(x_t, t, c)||^2    over replay; before: without the stage's adapter

The second term holds what other prompts give, not only what their pictures look like. So adapters that were trained
apart hardly move each other's model, and can be added up.

A stage begins from files alone: the base model's weights with the stages before it, composed as a release composes
them. Its random numbers come from generators that are named after the stage, so that they depend on no other data:
which pictures a step takes is known before the first one, and every step's noise has a generator of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from publisher.api import Model, denoiser_of
from publisher.api.diffusion.checkpoints import Checkpoints, Unusable
from publisher.api.diffusion.denoiser import Denoiser
from publisher.api.diffusion.latents import Noising
from publisher.api.diffusion.learner import PromptReader, ShuffledRows, freeze_pipeline
from publisher.api.diffusion.threads import is_small
from publisher.api.slices import LayerUpdate, recompose
from publisher.errors import PrerequisiteError, UsageError
from publisher.model.digest import seed_of
from publisher.runtime.pipelines import load
from publisher.slicing.recipe import StageRecipe

if TYPE_CHECKING:
    from torch import Tensor

KEPT_EVERY = 25
"""Steps between two checkpoints."""
Tell = Callable[[int, int], None]
"""Function that is told steps done and steps in all."""


@dataclass(frozen=True, eq=False)
class BatchPart:
    """Pictures that one part of each batch is taken from."""

    latents: Tensor
    """``(n, c, h, w)`` float32."""
    captions: tuple[str, ...]
    """Captions, one for each picture."""
    share: int
    """Number of pictures in a batch."""


@dataclass(frozen=True, eq=False)
class StageJob:
    """All that one stage is made of."""

    id: str
    """Name of the stage; its generators are named after it."""
    model: Model
    """The base model."""
    device: str
    """Kind of device."""
    before: Mapping[str, Sequence[LayerUpdate]]
    """Layer -> what the stages that it builds on add to it."""
    layers: tuple[str, ...]
    """Layers that it adapts."""
    learned: tuple[BatchPart, ...]
    """Parts of each batch that the adapter learns."""
    replay: BatchPart | None
    """Part of each batch on which it should change nothing."""
    weight: float
    """Weight of replay in the loss."""
    recipe: StageRecipe
    """What it is trained with."""


def train_stage(job: StageJob, kept: Checkpoints, tell: Tell) -> dict[str, LayerUpdate]:
    """Train one stage, from its checkpoint where there is one: killed and resumed it has the same bytes.

    Args:
        job: the stage.
        kept: its checkpoint.
        tell: is told of every step.

    Returns:
        Layer -> what the stage adds to it.

    Raises:
        UsageError: the training diverged.
        PrerequisiteError: peft is not installed.
    """
    before = torch.get_num_threads()
    small = is_small(torch.device(job.device), job.model.anatomy.latents.size)
    torch.set_num_threads(1 if small else before)
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
            run = _StageRun(job)
            run.resume(kept)
            while run.done < job.recipe.steps:
                run.step()
                tell(run.done, job.recipe.steps)
                if run.done % KEPT_EVERY == 0 and run.done < job.recipe.steps:
                    kept.save(run.done, run.tensors())
            return run.updates()
    finally:
        torch.set_num_threads(before)


class _StageRun:
    """A stage that is being trained."""

    def __init__(self, job: StageJob) -> None:
        self.job, self.done = job, 0
        model, anatomy = job.model, job.model.anatomy
        self._pipeline: Any = load(model.folder, anatomy, torch.device(job.device), torch.float32)
        freeze_pipeline(self._pipeline)
        network = denoiser_of(self._pipeline)
        with torch.no_grad():
            for layer, added in job.before.items():
                weight = recompose(model.read(anatomy.denoiser, f"{layer}.weight"), added)
                network.get_parameter(f"{layer}.weight").copy_(weight.float())
        self._adapters = _adapters(network, job)
        self._optimizer = torch.optim.AdamW(self._adapters.values(), lr=job.recipe.lr, weight_decay=0.0, fused=True)
        self._noising, self._denoiser = Noising.of(self._pipeline), Denoiser.of(self._pipeline)
        self._read = PromptReader(self._pipeline, changing=False)
        self._network, self._replayed = network, job.replay.share if job.replay else 0
        self._parts = (*job.learned, job.replay) if job.replay else job.learned
        self._rows = [_rows(part, job, number) for number, part in enumerate(self._parts)]

    def step(self) -> None:
        """Take one step of the optimizer."""
        taken = [(part, rows[self.done]) for part, rows in zip(self._parts, self._rows, strict=True)]
        latents = torch.cat([part.latents[rows] for part, rows in taken]).to(self._denoiser.device)
        captions = [part.captions[row] for part, rows in taken for row in rows]
        loss = self._loss(latents, captions)
        self._require_finite(loss.item(), "loss")
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(list(self._adapters.values()), self.job.recipe.clip)
        self._require_finite(norm.item(), "gradient")
        self._optimizer.step()
        self.done += 1

    def _loss(self, latents: Tensor, captions: Sequence[str]) -> Tensor:
        noise, t = self._noising.sample(latents, _generator(self.job, "noise", self.done))
        noisy, goal = self._noising.noisy(latents, noise, t), self._noising.target(latents, noise, t)
        own = len(captions) - self._replayed
        before = self._before(noisy[own:], t[own:], captions[own:]) if self._replayed else None
        predicted = self._denoiser(noisy, t, self._read(captions))
        loss = F.mse_loss(predicted[:own], goal[:own])
        return loss if before is None else loss + self.job.weight * F.mse_loss(predicted[own:], before)

    def _before(self, noisy: Tensor, t: Tensor, captions: Sequence[str]) -> Tensor:
        """Return what the model says without the stage's own adapter."""
        self._network.disable_adapters()
        try:
            return self._denoiser.frozen(noisy, t, self._read(captions))
        finally:
            self._network.enable_adapters()

    def _require_finite(self, value: float, what: str) -> None:
        if not math.isfinite(value):
            raise UsageError(
                f"the {what} is {value} after {self.done} steps: the training has diverged",
                where=f"stage {self.job.id}",
                hint=f"Give a smaller learning rate than {self.job.recipe.lr:g}. Finished stages are kept only under "
                "the recipe that they were trained with.",
            )

    def tensors(self) -> dict[str, Tensor]:
        """Return all that the next step depends on."""
        found: dict[str, Tensor] = {}
        for name, weight in self._adapters.items():
            found |= {f"{name}|{key}": value for key, value in self._optimizer.state[weight].items()}
            found[f"{name}|weight"] = weight.detach()
        return {name: value.cpu().contiguous() for name, value in found.items()}

    def resume(self, kept: Checkpoints) -> None:
        """Restore a checkpoint, where there is one; one that is damaged or of another run is dropped."""
        try:
            found = kept.load()
        except Unusable:
            kept.clear()
            return
        if found is None:
            return
        self.done, tensors = found
        with torch.no_grad():
            for name, weight in self._adapters.items():
                weight.copy_(tensors[f"{name}|weight"])
                keys = [key for key in tensors if key.startswith(f"{name}|") and key != f"{name}|weight"]
                state = {key.rpartition("|")[2]: tensors[key].to(weight.device) for key in keys}
                self._optimizer.state[weight].update(state)

    def updates(self) -> dict[str, LayerUpdate]:
        """Return what the stage adds to each layer: of ``B A``, convolutions as matrices."""
        found = {}
        for layer in self.job.layers:
            down, up = (self._adapters[f"{layer}.{part}"].detach().cpu().flatten(1).contiguous() for part in "AB")
            if not (down.isfinite().all() and up.isfinite().all()):
                self._require_finite(math.nan, f"adapter of {layer}")
            found[layer] = LayerUpdate(down, up, 1.0)
        return found


def _adapters(network: Any, job: StageJob) -> dict[str, nn.Parameter]:
    """Add adapters that change nothing yet, as diffusers' examples do: Gaussian down-projections, and zeros."""
    try:
        from peft import LoraConfig
    except ImportError as error:
        hint = "Install it: pip install 'peft>=0.18'"
        raise PrerequisiteError("training by slices needs peft", hint=hint) from error
    rank = job.recipe.rank
    names = list(job.layers)
    network.add_adapter(LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=names))
    generator = _generator(job, "adapters", 0)
    found: dict[str, nn.Parameter] = {}
    with torch.no_grad():
        for layer in job.layers:
            module = network.get_submodule(layer)
            down, up = module.lora_A["default"].weight, module.lora_B["default"].weight
            down.copy_(torch.randn(down.shape, generator=generator) / rank)
            up.zero_()
            found |= {f"{layer}.A": down.requires_grad_(), f"{layer}.B": up.requires_grad_()}
    return found


def _generator(job: StageJob, name: str, number: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed_of("slices", name, job.recipe.seed, job.id, number))


def _rows(part: BatchPart, job: StageJob, number: int) -> list[list[int]]:
    """Return the row numbers of all steps."""
    shuffled = ShuffledRows(len(part.captions), _generator(job, "rows", number))
    return [shuffled.take(part.share) for _ in range(job.recipe.steps)]
