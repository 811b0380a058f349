"""Eq. 4, 7 and 8 at given noisy latents: one frozen forward for all texts and concepts, one forward with gradients.

The authors' code runs five, each with an unconditional half that cancels (``u + 1 (c - u) = c``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from publisher.api.diffusion.denoiser import Denoiser
from publisher.api.diffusion.text import Text
from publisher.api.diffusion.threads import Aside, at_once
from publisher_membrane_bundle.membranes import Membranes
from publisher_membrane_bundle.spm import anchoring, erasing_goal, mean_square

MOST_ROWS = 16
"""Largest number of rows of a forward with gradients, where there are several concepts: they are taken in groups."""
_LOSS_SCALE = {torch.float16: 1024.0}


@dataclass(frozen=True)
class TextTriple:
    """The three texts of one concept, by name."""

    target: str
    """Text to be erased, c_t."""
    surrogate: str
    """Text that it is to read as, c_s."""
    positive: str
    """Text that is pushed away from, c_p."""


@dataclass(frozen=True)
class NoisyPoint:
    """One x_t, at which every concept is trained."""

    x: Tensor
    """Noisy latents ``(1, c, h, w)``."""
    t: float
    """Timestep that the denoiser is asked at; of DDPM an ``int``."""
    triples: tuple[TextTriple, ...]
    """Texts of each concept."""
    anchors: tuple[Text, ...]
    """Anchors that were sampled: all but the empty prompt."""
    owner: int | None = None
    """Number of the concept whose open predictions, of target and empty prompt, are wanted; None: of no concept."""


@dataclass(frozen=True)
class MembraneLosses:
    """Losses of one step, as means over the points."""

    erase: Tensor
    """Erase loss of each concept, ``(k,)`` on the CPU."""
    anchor: Tensor
    """Anchor loss of each concept, ``(k,)`` on the CPU."""
    start: Tensor
    """Erase loss of each concept if its membrane did nothing, ``(k,)`` on the CPU. Exact where the positive is the
    target."""
    guided: tuple[tuple[Tensor, Tensor], ...]
    """Open predictions of target and empty prompt, ``(c, h, w)``, of each point with an owner."""


Key = str | int
"""A text by its name, or a sampled anchor by its number."""
Row = tuple[int, Key]
"""NoisyPoint and text: one row of a forward."""


class Objective:
    """The losses of the membranes, L = L_era + lambda L_anc.

    Args:
        denoiser: frozen denoiser, with the membranes attached.
        membranes: the k membranes.
        texts: every text by name, with ``""``.
        eta: push of the target beyond the surrogate (eq. 4).
        lam: weight of latent anchoring (eq. 8).
        uncond: weight w_u of the empty prompt in D; the sampled anchors share the rest.
    """

    def __init__(
        self, denoiser: Denoiser, membranes: Membranes, texts: Mapping[str, Text], eta: float, lam: float, uncond: float
    ) -> None:
        self.denoiser, self.membranes, self.texts = denoiser, membranes, texts
        self.eta, self.lam, self.uncond = eta, lam, uncond
        self.scale = _LOSS_SCALE.get(denoiser.dtype, 1.0)
        self.aside: Aside = at_once
        """Function that starts the frozen forward; the trainer may give one of another thread."""

    def backward(self, points: Sequence[NoisyPoint]) -> MembraneLosses:
        """Compute the losses at these points, and leave their gradients with the membranes."""
        rows = list(dict.fromkeys((i, key) for i, point in enumerate(points) for key in self._frozen_keys(point)))
        still = self.aside(partial(self.denoiser.frozen, *self._batch(points, rows)))
        self.membranes.zero_grad()
        count = len(self.membranes.concepts)
        size = max(1, MOST_ROWS // max(1, sum(2 + len(point.anchors) for point in points)))
        parts, guided = [], {}
        for start in range(0, count, size):
            group = range(start, min(start + size, count))
            opened = self._open(points, group)
            frozen = dict(zip(rows, still(), strict=True))
            parts += [self._losses(points, concept, opened[concept], frozen) for concept in group]
            total = torch.stack([erase + self.lam * anchor for erase, anchor, _ in parts[start:]]).sum()
            (total * self.scale).backward()
            for i, point in enumerate(points):
                if point.owner is not None and point.owner in group:
                    mine = opened[point.owner]
                    guided[i] = (mine[i, point.triples[point.owner].target].detach(), mine[i, ""].detach())
        self.membranes.scale_grad(1 / self.scale)
        erase, anchor, start_loss = (torch.stack(values).detach().cpu() for values in zip(*parts, strict=True))
        return MembraneLosses(erase, anchor, start_loss, tuple(guided[i] for i in sorted(guided)))

    def _frozen_keys(self, point: NoisyPoint) -> list[Key]:
        keys: list[Key] = [key for said in point.triples for key in (said.positive, said.surrogate)]
        return keys + self._anchor_keys(point)

    def _anchor_keys(self, point: NoisyPoint) -> list[Key]:
        return [*([""] if self.uncond else []), *range(len(point.anchors))]

    def _open(self, points: Sequence[NoisyPoint], group: range) -> dict[int, dict[Row, Tensor]]:
        """Return each concept's predictions, by point and text, with its membrane alone open."""
        rows: dict[tuple[int, int, Key], None] = {}
        for concept in group:
            for i, point in enumerate(points):
                keys: list[Key] = [point.triples[concept].target, *self._anchor_keys(point)]
                rows |= dict.fromkeys((concept, i, key) for key in keys + ([""] if point.owner == concept else []))
        gates = torch.zeros(len(rows), len(self.membranes.concepts))
        gates[range(len(rows)), [concept for concept, _, _ in rows]] = 1
        with self.membranes.open(gates):
            predictions = self.denoiser(*self._batch(points, [(i, key) for _, i, key in rows]))
        found: dict[int, dict[Row, Tensor]] = {concept: {} for concept in group}
        for (concept, i, key), prediction in zip(rows, predictions.unbind(), strict=True):
            found[concept][i, key] = prediction
        return found

    def _losses(
        self, points: Sequence[NoisyPoint], concept: int, opened: Mapping[Row, Tensor], frozen: Mapping[Row, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Erase loss, anchor loss and erase loss of the shut membrane; means over the points."""
        terms = []
        for i, point in enumerate(points):
            said = point.triples[concept]
            goal = erasing_goal(frozen[i, said.surrogate], frozen[i, said.positive], self.eta)
            keys = self._anchor_keys(point)
            anchors = [opened[i, key] for key in keys], [frozen[i, key] for key in keys]
            terms.append(
                (
                    mean_square(opened[i, said.target], goal),
                    anchoring(*anchors, self._weights(point)),
                    mean_square(frozen[i, said.positive], goal),
                )
            )
        erase, anchor, start = (torch.stack(values).mean() for values in zip(*terms, strict=True))
        return erase, anchor, start

    def _weights(self, point: NoisyPoint) -> list[float]:
        sampled = len(point.anchors)
        return [*([self.uncond] if self.uncond else []), *[(1 - self.uncond) / sampled if sampled else 0.0] * sampled]

    def _batch(self, points: Sequence[NoisyPoint], rows: Sequence[Row]) -> tuple[Tensor, Tensor, Text]:
        x = torch.cat([points[i].x for i, _ in rows])
        t = torch.tensor([points[i].t for i, _ in rows], device=x.device)
        return x, t, Text.join([self._text(points[i], key) for i, key in rows])

    def _text(self, point: NoisyPoint, key: Key) -> Text:
        return self.texts[key] if isinstance(key, str) else point.anchors[key]
