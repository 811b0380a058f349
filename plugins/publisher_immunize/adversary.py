"""The simulated attacker (lower level of ``mima.py`` and ``imma.py``): an adaptation to N concepts, all in one batch.

Each concept has its own copy of the denoiser, kept as what it differs by:

``full`` and ``cross-attention``: keys, values and other tensors. ``dreambooth``: full, with kept images in the loss.
Where attention is joint, no keys and values read the text alone, and all tensors are like the others.
``lora``: adapters on every layer that those of the usual tools sit on. ``textual-inversion``: words. It trains the
states that the text encoder gives, not its input: whatever an embedding can reach, this reaches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from publisher.api import UsageError
from publisher.api.diffusion.loop import pack, unpack
from publisher_immunize.adapters import AdaptationPart, KeysValues, LoraAdapters, SharedDeltas, Tensors, Words
from publisher_immunize.data import ConceptBatch
from publisher_immunize.denoiser import Denoising, Patch, Weights, combined
from publisher_immunize.params import Inner
from publisher_immunize.plan import in_set


class Adversary:
    """One simulated attacker.

    Args:
        kind: kind of adaptation.
        groups: number of concepts N.
        denoising: denoiser, data and parameters.
        generator: source of what it begins with.
    """

    def __init__(self, kind: Inner, groups: int, denoising: Denoising, generator: torch.Generator) -> None:
        self.kind, self.groups, self.denoising = kind, groups, denoising
        host, params, rate = denoising.host, denoising.params, denoising.params.rate(kind)
        self.parts: dict[str, AdaptationPart] = {}
        if kind == "lora":
            self.parts["adapters"] = LoraAdapters(host, groups, rate, params.inner_rank, generator, params.merge.rest)
        elif kind == "textual-inversion":
            some = next(iter(denoising.data.states.values())).states
            self.parts["words"] = Words((groups, *some.shape[1:]), host, rate)
        else:
            anatomy = host.denoiser.anatomy
            names = in_set(host.names, "cross-attention" if kind == "cross-attention" else "denoiser", anatomy)
            read = {f"{path}.weight" for path in host.keys_values}
            if read:
                self.parts["keys-values"] = KeysValues(host, groups, rate, params.inner_rule)
            self.parts["shared"] = SharedDeltas([name for name in names if name not in read], host, groups, rate)

    @property
    def kept_rows(self) -> int:
        """Number of kept images that each concept's copy is trained on as well."""
        return self.denoising.params.prior_batch or 0 if self.kind == "dreambooth" else 0

    @property
    def merges(self) -> bool:
        """Whether its copies have keys and values of their own."""
        return self.kind != "textual-inversion"

    def learn(self, weights: Weights, batches: Sequence[ConceptBatch]) -> list[Tensor]:
        """Take a step with each batch.

        Args:
            weights: weights of the denoiser it starts from; with ``inner_order: 2`` its result is a function of them.
            batches: batches of N groups.

        Returns:
            The losses of each step, ``(N,)``.

        Raises:
            UsageError: a loss is no number.
        """
        second = self.denoising.host.second
        start = dict(weights) if second else {name: value.detach() for name, value in weights.items()}
        return [self._step(start, batch, second=second) for batch in batches]

    def own(self) -> Patch:
        """Return what each concept's copy differs by, for batches of N groups."""
        return combined([part.patch({}) for part in self.parts.values()])

    def shared(self) -> Patch:
        """Return what the merged copy differs by outside of keys and values."""
        return combined([part.shared() for part in self.parts.values()])

    def read(self, rows: Tensor) -> Tensors:
        """Return ``Delta_n T^T (N, o, M)`` by path of the key or value projection."""
        return {path: value for part in self.parts.values() for path, value in part.read(rows).items()}

    def state(self) -> Tensors:
        """Return the tensors for a checkpoint, and to begin the next outer step with."""
        return pack({name: part.state() for name, part in self.parts.items()})

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`state` returned."""
        groups = unpack(state)
        for name, part in self.parts.items():
            part.restore(groups[name])

    def _step(self, weights: Weights, batch: ConceptBatch, *, second: bool) -> Tensor:
        states = self.denoising.states(batch)
        variables, owners = {}, {}
        for part in self.parts.values():
            for name, value in part.variables(states).items():
                variables[name] = value if value.requires_grad else value.detach().requires_grad_()
                owners[name] = part
        patch = combined([part.patch(variables) for part in self.parts.values()])

        def work() -> tuple[Tensor, tuple[Tensor, ...]]:
            losses = self.denoising.losses(batch, patch)
            own = losses[:, : batch.own].mean(1)
            kept = losses[:, batch.own :].mean(1) if batch.rows > batch.own else torch.zeros_like(own)
            return own, torch.autograd.grad((own + kept).sum(), list(variables.values()), create_graph=second)

        loss, gradients = self.denoising.host.run(weights, patch, work)
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
