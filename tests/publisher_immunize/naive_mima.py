"""The published loop in its own order of work, written from its description: one pair of an inner and an outer step.

Captions and prompts go through the text encoder one by one at every merge; every layer builds C, inverts it and solves;
every concept has its own forward and a whole copy of the projections. What the loop is compared in is kept equal: the
ridge, the rows of T, and that the adaptation begins anew with each pair.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from publisher_immunize.data import ConceptBatch

KEYS_VALUES = re.compile(r"\.attn2\.to_[kv]\.weight$")
CROSS = re.compile(r"\.attn2\.(to_[qkv]|to_out\.0)\.")


class Published:
    """One model under treatment.

    Args:
        unet: changed in place.
        encode: text -> ``(n, D)`` states, by the text encoder, at every call.
        length: text -> positions of its own, start and end included.
        noising: of the model.
        captions: to regularise on.
        rates: inner and outer.
        ridge: relative to the mean of C's diagonal.
    """

    def __init__(
        self,
        unet: Any,
        encode: Callable[[str], Tensor],
        length: Callable[[str], int],
        noising: Any,
        captions: Sequence[str],
        *,
        rates: tuple[float, float],
        ridge: float,
    ) -> None:
        self.unet, self.encode, self.length, self.noising = unet, encode, length, noising
        self.captions, self.inner_lr, self.ridge = tuple(captions), rates[0], ridge
        self.weights = {name: p for name, p in unet.named_parameters() if CROSS.search(name)}
        for weight in self.weights.values():
            weight.requires_grad_(requires_grad=True)
        self.adam = torch.optim.AdamW(list(self.weights.values()), lr=rates[1], weight_decay=0.01)

    def step(self, inner: ConceptBatch, outer: ConceptBatch) -> None:
        """Adapt, merge, ascend, and take the adaptation back."""
        before = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self._adapt(inner, outer)
        self.adam.zero_grad()
        for group in range(outer.groups):
            own, kept = self._losses(outer, group)
            ((-own + kept) / outer.groups).backward()
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(before[name])
        torch.nn.utils.clip_grad_norm_(self.weights.values(), 1.0)
        self.adam.step()

    def _adapt(self, inner: ConceptBatch, outer: ConceptBatch) -> None:
        copies: list[dict[str, Tensor]] = []
        others: dict[str, Tensor] = {}
        for group in range(inner.groups):
            own, _ = self._losses(inner, group)
            gradients = dict(zip(self.weights, torch.autograd.grad(own, list(self.weights.values())), strict=True))
            copies.append(
                {
                    name: self.weights[name].detach() - self.inner_lr * g
                    for name, g in gradients.items()
                    if KEYS_VALUES.search(name)
                }
            )
            for name, g in gradients.items():
                if not KEYS_VALUES.search(name):
                    others[name] = others.get(name, 0) + g / inner.groups
        merged = self._merge(copies, [outer.own_texts(group) for group in range(outer.groups)])
        with torch.no_grad():
            for name, weight in self.weights.items():
                if name in merged:
                    weight.copy_(merged[name])
                else:  # the first step of Adam
                    size = (others[name].square() + 1e-16).sqrt() + 1e-8
                    weight.sub_(self.inner_lr * others[name] / size)

    def _merge(self, copies: Sequence[dict[str, Tensor]], texts: Sequence[Sequence[str]]) -> dict[str, Tensor]:
        k = torch.cat([self._rows(caption) for caption in self.captions])
        rows, values = self._targets(copies, texts)
        found = {}
        for name in copies[0]:
            c = k.T @ k
            c = c + self.ridge * c.diagonal().mean() * torch.eye(len(c), dtype=c.dtype)
            inverse = torch.linalg.inv(c)
            inner = torch.linalg.inv(rows @ inverse @ rows.T)
            weight = self.weights[name].detach()
            found[name] = weight + (values[name].T - weight @ rows.T) @ inner @ rows @ inverse
        return found

    def _targets(
        self, copies: Sequence[dict[str, Tensor]], texts: Sequence[Sequence[str]]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return distinct rows of the prompts, and what each copy makes of them."""
        rows: list[Tensor] = []
        values: dict[str, list[Tensor]] = {name: [] for name in copies[0]}
        for copy, lines in zip(copies, texts, strict=True):
            for line in lines:
                for row in self._rows(line):
                    if not any(torch.equal(row, other) for other in rows):
                        rows.append(row)
                        for name, weight in copy.items():
                            values[name].append(weight @ row)
        return torch.stack(rows), {name: torch.stack(value) for name, value in values.items()}

    def _rows(self, text: str) -> Tensor:
        with torch.no_grad():
            return self.encode(text)[1 : self.length(text)]

    def _losses(self, batch: ConceptBatch, group: int) -> tuple[Tensor, Tensor]:
        part = slice(group * batch.rows, (group + 1) * batch.rows)
        x, noise, t = batch.x[part], batch.noise[part], batch.t[part]
        with torch.no_grad():
            states = torch.stack([self.encode(text) for text in batch.texts[part]])
        predicted = self.unet(self.noising.noisy(x, noise, t), t, states, return_dict=False)[0]
        losses = F.mse_loss(predicted, self.noising.target(x, noise, t), reduction="none").mean((1, 2, 3))
        kept = losses[batch.own :]
        return losses[: batch.own].mean(), kept.mean() if len(kept) else losses.new_zeros(())
