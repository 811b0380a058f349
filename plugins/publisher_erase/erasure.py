"""The training of an erasure: the objectives of ``surgical.py`` and ``robust.py`` on frozen rows.

AdamW on the chosen weights, in float32 whatever dtype the networks are run in, without weight decay:

    lr(i) = lr (i + 1) / warmup                          for i < warmup
    lr(i) = lr (1 + cos(pi p)) / 2,  p = (i - warmup) / (steps - warmup)                        after it

Concepts take turns. All rows of a step go through the denoiser in one batch: (x, c) and (x, 0) of the concept, (x, k)
and half as many (x', 0) of kept prompts, attackers' states and the empty prompt on pictures of the concept.

Samples of a step, from the generator ``rows``: rows of the concept, rows of kept prompts, noisy pictures, finds. The
attackers have a generator of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from publisher.api.diffusion.denoiser import Denoiser
from publisher.api.diffusion.loop import Training, optimizer_state, pack, restore_optimizer, unpack
from publisher.api.diffusion.text import Text
from publisher_erase.attackers import Attacker, chosen, frozen_weights
from publisher_erase.params import RobustParams, SurgicalParams
from publisher_erase.surgical import mean_square, surgical_loss
from publisher_erase.trajectories import FrozenRows, Pictures

TERMS = ("surgical", "drift", "kept", "kept empty", "adversarial", "image")
"""Losses of a step, in their order; then comes the last loss of the attackers' search."""
FUSED = ("cpu", "cuda")


@dataclass(frozen=True)
class ConceptRows:
    """All that is known of one concept before the training."""

    name: str
    """Id of the concept."""
    own: Text
    """The concept's prompts."""
    rows: FrozenRows
    """Rows to train on."""
    held: FrozenRows
    """Rows of a trajectory of the alternative that is kept from training."""
    pictures: Pictures | None = None
    """Pictures, where attackers are trained against."""
    varied: bool = False
    """Whether its prompts show different things, as those of a style do."""


@dataclass(frozen=True)
class ErasureData:
    """The data of one training."""

    concepts: tuple[ConceptRows, ...]
    """Concepts that go, in turn."""
    keep: Text
    """Kept prompts that have rows."""
    kept: FrozenRows
    """Their rows."""
    empty: Text
    """The empty prompt, one text."""


@dataclass
class FoundStates:
    """What the attackers found of one concept, newest last."""

    by_gradient: list[Text] = field(default_factory=list)
    """Finds of the searches, one text each."""
    derived: Text | None = None
    """Rows of the closed form; None: it is not among the attackers."""

    def keep(self, found: Text, most: int) -> None:
        """Add finds of a search; the oldest go where there are more than ``most``."""
        rows = torch.arange(len(found.states), device=found.states.device)
        self.by_gradient = [*self.by_gradient, *(chosen(found, one) for one in rows[:, None])][-most:]

    def sample(self, prompts: Tensor, generator: torch.Generator, *, own: bool) -> Text:
        """Sample texts: half from the closed form and half from the searches, as far as there are both.

        Args:
            prompts: number of the prompt that each picture was generated from, ``(n,)``.
            generator: source of what is sampled.
            own: of the closed form, take what is derived from the picture's own prompt.
        """
        texts: list[Text] = []
        for i in range(len(prompts)):
            closed = self.derived is not None and (i % 2 == 0 or not self.by_gradient)
            if self.derived is not None and closed:
                rows = torch.randint(len(self.derived.states), (1,), generator=generator)
                rows = prompts[i : i + 1] if own else rows
                texts.append(chosen(self.derived, rows.to(self.derived.states.device)))
            else:
                texts.append(self.by_gradient[int(torch.randint(len(self.by_gradient), (1,), generator=generator))])
        return Text.join(texts)


class Erasure(Training):
    """The training of one erasure.

    Args:
        params: of the method, decided.
        denoiser: denoiser with the weights to start from; it is trained in place.
        names: names of the weights that are trained.
        data: what the frozen model said.
        attackers: attackers inside; none for ``surgical``.
        generator: purpose -> generator on the CPU, from its beginning.
        scale: factor of the loss in the backward pass.
    """

    def __init__(
        self,
        params: SurgicalParams,
        denoiser: Denoiser,
        names: Sequence[str],
        data: ErasureData,
        attackers: Sequence[Attacker],
        generator: Callable[[str], torch.Generator],
        *,
        scale: float = 1.0,
    ) -> None:
        self.params, self.denoiser, self.data, self.attackers, self.scale = params, denoiser, data, attackers, scale
        self.robust = params if isinstance(params, RobustParams) else None
        self.theta = {name: denoiser.network.get_parameter(name).requires_grad_() for name in names}
        fused = denoiser.device.type in FUSED
        self.adam = torch.optim.AdamW(list(self.theta.values()), lr=0.0, weight_decay=0.0, fused=fused)
        self.generators = {purpose: generator(purpose) for purpose in ("rows", "attackers")}
        self.found = [FoundStates() for _ in data.concepts]
        self.inner = 0.0

    def step(self, done: int) -> list[float]:
        """Compute losses and gradients; return the losses and that of the attackers' last search."""
        turn = done % len(self.data.concepts)
        if self.robust is not None:
            self._attack(self.robust, done)
        losses = self._losses(self.data.concepts[turn], self.found[turn])
        total = sum(weight * loss for weight, loss in losses if weight)
        self.adam.zero_grad(set_to_none=True)
        (total * self.scale).backward()  # type: ignore[union-attr]
        return [*(float(loss.detach()) for _, loss in losses), self.inner]

    def move(self, done: int) -> None:
        """Take a step of AdamW, with the gradient shortened."""
        weights = list(self.theta.values())
        if self.scale != 1:
            torch._foreach_div_([one.grad for one in weights if one.grad is not None], self.scale)
        torch.nn.utils.clip_grad_norm_(weights, self.params.clip)
        self.adam.param_groups[0]["lr"] = learning_rate(self.params, done)
        self.adam.step()

    def state(self) -> dict[str, Tensor]:
        """Return weights, moments, the attackers' finds and their last loss."""
        groups = {"theta": self.theta, "adam": optimizer_state(self.adam), "inner": {"loss": torch.tensor(self.inner)}}
        for i, found in enumerate(self.found):
            groups |= {f"found {i} {number}": _tensors(text) for number, text in enumerate(found.by_gradient)}
            groups |= {} if found.derived is None else {f"derived {i}": _tensors(found.derived)}
        return pack(groups)

    def restore(self, state: Mapping[str, Tensor], done: int) -> None:  # noqa: ARG002 - the state says it
        """Restore what :meth:`state` returned."""
        groups, device = unpack(state), self.denoiser.device
        with torch.no_grad():
            for name, weight in self.theta.items():
                weight.copy_(groups["theta"][name])
        restore_optimizer(self.adam, groups["adam"])
        self.inner = float(groups["inner"]["loss"])
        texts = {
            name: Text(**{key: value.to(device) for key, value in group.items()})
            for name, group in groups.items()
            if name.startswith(("found ", "derived "))
        }
        for i, found in enumerate(self.found):
            count = sum(name.startswith(f"found {i} ") for name in texts)
            found.by_gradient = [texts[f"found {i} {number}"] for number in range(count)]
            found.derived = texts.get(f"derived {i}")

    def line(self, recent: Sequence[float]) -> str:
        """Return the losses that are on."""
        return ", ".join(f"{name} {value:.1e}" for name, value in zip(TERMS, recent, strict=False) if value)

    def _losses(self, concept: ConceptRows, found: FoundStates) -> list[tuple[float, Tensor]]:
        """Return weight and loss of each of :data:`TERMS`."""
        params, robust, device = self.params, self.robust, self.denoiser.device
        own, kept = self._take(concept.rows, params.batch), self._take(self.data.kept, params.keep_batch)
        quiet = kept.take(torch.arange(len(kept) // 2 if params.lam_keep_empty else 0), device)
        batch = _Batch()
        c = batch.add(own, chosen(concept.own, own.prompt))
        c_empty = batch.add(own, self._empty(len(own)))
        k = batch.add(kept, chosen(self.data.keep, kept.prompt))
        k_empty = batch.add(quiet, self._empty(len(quiet)))
        attacked = pictured = quiet.take(torch.arange(0), device)
        said = self._empty(0)
        if robust is not None and concept.pictures is not None:
            noisy = concept.pictures.noisy
            attacked = self._take(noisy, robust.adversarial_batch if robust.lam_adversarial else 0)
            pictured = self._take(noisy, robust.adversarial_batch if robust.lam_image else 0)
            if len(attacked):
                said = found.sample(attacked.prompt, self.generators["rows"], own=concept.varied)
        e, i = batch.add(attacked, said), batch.add(pictured, self._empty(len(pictured)))
        predicted = batch.predict(self.denoiser)
        zero = predicted.new_zeros(())
        return [
            (1.0, surgical_loss(predicted[c], predicted[c_empty], own.wanted, own.other)),
            (params.lam_uncond, mean_square(predicted[c_empty], own.other)),
            (params.lam_keep, mean_square(predicted[k], kept.wanted)),
            (params.lam_keep_empty, mean_square(predicted[k_empty], quiet.other) if len(quiet) else zero),
            (
                robust.lam_adversarial if robust else 0,
                mean_square(predicted[e], attacked.wanted) if len(attacked) else zero,
            ),
            (robust.lam_image if robust else 0, mean_square(predicted[i], pictured.wanted) if len(pictured) else zero),
        ]

    def _take(self, rows: FrozenRows, count: int) -> FrozenRows:
        picked = torch.randint(len(rows), (count,), generator=self.generators["rows"])
        return rows.take(picked, self.denoiser.device)

    def _empty(self, count: int) -> Text:
        return chosen(self.data.empty, torch.zeros(count, dtype=torch.int64))

    def _attack(self, params: RobustParams, done: int) -> None:
        """Let those attackers search whose turn it is."""
        if not params.lam_adversarial:
            return
        for attacker in self.attackers:
            if done % (params.attack.every if attacker.by_gradient else params.attack.derived_every):
                continue
            with frozen_weights(self.denoiser):
                found, losses = attacker.find(self.generators["attackers"])
            self.inner = losses[-1] if losses else self.inner
            for concept, text in zip(self.found, found, strict=True):
                if attacker.by_gradient:
                    concept.keep(text, params.attack.pool)
                else:
                    concept.derived = text


def _tensors(text: Text) -> dict[str, Tensor]:
    named = {"states": text.states, "pooled": text.pooled, "mask": text.mask}
    return {name: value for name, value in named.items() if value is not None}


class _Batch:
    """Rows of several terms, for one forward."""

    def __init__(self) -> None:
        self._parts: list[tuple[FrozenRows, Text]] = []
        self._count = 0

    def add(self, rows: FrozenRows, text: Text) -> slice:
        """Add rows with their texts, and return where their predictions will be."""
        start, self._count = self._count, self._count + len(rows)
        if len(rows):
            self._parts.append((rows, text))
        return slice(start, self._count)

    def predict(self, denoiser: Denoiser) -> Tensor:
        """Return the predictions of all rows."""
        x, t = (torch.cat([getattr(rows, name) for rows, _ in self._parts]) for name in ("x", "t"))
        return denoiser(x, t, Text.join([text for _, text in self._parts]))


def learning_rate(params: SurgicalParams, step: int) -> float:
    """Return the learning rate of 0-based ``step``. The parameters have to be decided."""
    peak, steps = params.lr or 0.0, params.steps or 0
    if step < params.warmup:
        return peak * (step + 1) / params.warmup
    return peak * (1 + math.cos(math.pi * (step - params.warmup) / max(1, steps - params.warmup))) / 2


@torch.no_grad()
def held_out(denoiser: Denoiser, data: ErasureData, turn: int) -> tuple[float, float]:
    """Return what is left on held-out rows of a concept: L_g, and the drift ``|eps_t(x, 0) - eps_0(x, 0)| / |eps_0|``.

    Args:
        denoiser: the model as it is.
        data: of the training.
        turn: number of the concept.
    """
    concept = data.concepts[turn]
    rows = concept.held.take(torch.arange(len(concept.held)), denoiser.device)
    asked = Text.join([chosen(concept.own, rows.prompt), *[data.empty] * len(rows)])
    text, empty = denoiser(rows.x.repeat(2, 1, 1, 1), rows.t.repeat(2), asked).chunk(2)
    drift = (empty - rows.other).norm() / rows.other.norm()
    return float(surgical_loss(text, empty, rows.wanted, rows.other)), float(drift)
