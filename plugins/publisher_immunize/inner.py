"""The simulated attacker: an adaptation of the denoiser to N concepts, each with its own copy, all in one batch.

    theta'_n = argmin L(x_n, c_n; theta)      by k steps from theta                         (MIMA, lower level)

A copy is never made; what it differs by is kept, in the working dtype (float32 over a bfloat16 denoiser: one SGD step
is below the last bit of such a weight).

    keys, values   Delta_n = -lr sum_s dY_ns^T X_ns     X_ns the texts of step s (r, D), dY_ns the loss's gradient at
                   the layer's output (r, o): found by differentiating with respect to zeros added there
    other tensors  one delta for all: the mean of the concepts' gradients, by Adam          (as in the released code)
    adapters       A_n B_n, by Adam; on keys and values they merge as Delta_n, elsewhere their mean (or sum) counts
    words          what is added to the states of a concept's captions, by Adam

``full`` and ``cross-attention``: keys, values and other tensors. ``dreambooth``: full, with kept images in the loss.
``lora``: adapters on every attention layer. ``textual-inversion``: words. It trains the states that the text encoder
gives, not its input: whatever an embedding can reach, this reaches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from publisher.api import UsageError
from publisher_immunize.bench import Bench
from publisher_immunize.host import Change, Weights, combined
from publisher_immunize.material import Batch
from publisher_immunize.names import in_set
from publisher_immunize.params import Inner
from publisher_immunize.parts import Adapters, KeysValues, Part, Shared, Tensors, Words, packed, unpacked


class Adversary:
    """One simulated attacker.

    Args:
        kind: of adaptation.
        groups: N concepts.
        bench: what it works with.
        generator: of what it begins with.
    """

    def __init__(self, kind: Inner, groups: int, bench: Bench, generator: torch.Generator) -> None:
        self.kind, self.groups, self.bench = kind, groups, bench
        host, params, rate = bench.host, bench.params, bench.params.rate(kind)
        self.parts: dict[str, Part] = {}
        if kind == "lora":
            self.parts["adapters"] = Adapters(host, groups, rate, params.inner_rank, generator, params.merge.rest)
        elif kind == "textual-inversion":
            some = next(iter(bench.material.states.values())).states
            self.parts["words"] = Words((groups, *some.shape[1:]), host, rate)
        else:
            names = in_set(host.names, "cross-attention" if kind == "cross-attention" else "full")
            read = {f"{path}.weight" for path in host.keys_values}
            self.parts["keys-values"] = KeysValues(host, groups, rate, params.inner_rule)
            self.parts["shared"] = Shared([name for name in names if name not in read], host, groups, rate)

    @property
    def kept_rows(self) -> int:
        """Kept images that it trains on beside each concept's."""
        return self.bench.params.prior_batch or 0 if self.kind == "dreambooth" else 0

    @property
    def merges(self) -> bool:
        """Its copies have keys and values of their own."""
        return self.kind != "textual-inversion"

    def learn(self, weights: Weights, batches: Sequence[Batch]) -> list[Tensor]:
        """A step for each batch.

        Args:
            weights: of the denoiser it starts from; with ``inner_order: 2`` its result is a function of them.
            batches: of N groups.

        Returns:
            The loss of each step, ``(N,)``.

        Raises:
            UsageError: a loss is no number.
        """
        second = self.bench.host.second
        start = dict(weights) if second else {name: value.detach() for name, value in weights.items()}
        return [self._step(start, batch, second=second) for batch in batches]

    def own(self) -> Change:
        """What each concept's copy differs by, for batches of N groups."""
        return combined([part.change({}) for part in self.parts.values()])

    def shared(self) -> Change:
        """What the merged copy differs by outside of keys and values."""
        return combined([part.shared() for part in self.parts.values()])

    def read(self, rows: Tensor) -> Tensors:
        """Path -> ``Delta_n T^T (N, o, M)``."""
        return {path: value for part in self.parts.values() for path, value in part.read(rows).items()}

    def state(self) -> Tensors:
        """For a checkpoint, and to begin the next outer step with."""
        return packed({name: part.state() for name, part in self.parts.items()})

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """What :meth:`state` gave."""
        groups = unpacked(state)
        for name, part in self.parts.items():
            part.restore(groups[name])

    def _step(self, weights: Weights, batch: Batch, *, second: bool) -> Tensor:
        states = self.bench.states(batch)
        variables, owners = {}, {}
        for part in self.parts.values():
            for name, value in part.variables(states).items():
                variables[name] = value if value.requires_grad else value.detach().requires_grad_()
                owners[name] = part
        change = combined([part.change(variables) for part in self.parts.values()])

        def work() -> tuple[Tensor, tuple[Tensor, ...]]:
            losses = self.bench.losses(batch, change)
            own = losses[:, : batch.own].mean(1)
            kept = losses[:, batch.own :].mean(1) if batch.rows > batch.own else torch.zeros_like(own)
            return own, torch.autograd.grad((own + kept).sum(), list(variables.values()), create_graph=second)

        loss, gradients = self.bench.host.run(weights, change, work)
        if not bool(loss.isfinite().all()):
            raise UsageError(
                "the simulated adaptation's loss is no number any more",
                where="immunize",
                hint="Lower inner_lr or lr, or inner_steps.",
            )
        found = dict(zip(variables, gradients, strict=True))
        for part in self.parts.values():
            part.update({name: g for name, g in found.items() if owners[name] is part}, states)
        found_loss: Tensor = loss.detach()
        return found_loss
