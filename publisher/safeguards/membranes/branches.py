"""The membranes of one host as one skinny pair of matrix products, added by a forward hook.

    y_b += U (gamma_b * (D x_b))

    D         (K, n)     the regulators of all membranes, one below the other; K is the sum of their ranks
    U         (m, K)     their erasing signals side by side, each times alpha / r
    gamma     (rows, k)  permeability of each membrane for each row; k membranes, expanded to their K ranks
    x_b, y_b             row b of the batch; with guidance the batch is ``[unconditional; conditional]``, and row b of
                         both halves belongs to prompt b

The sum over membranes is exact, without cross terms, and costs the same for one prompt and for many. Factors are kept
in float32 and cast to the host's dtype and device when they are attached (again if the host is moved later); the
products are computed in that dtype. Without gradients the second product adds into the host's fresh output.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.nn import functional as F

from publisher.api.membranes import Branch, Membrane
from publisher.errors import PublisherError

_LATENTS = ("sample", "hidden_states", "x")
"""Names under which denoisers of diffusers take latents."""


class PromptUnknownError(PublisherError):
    """The denoiser was called, and nobody had said for which prompts."""


@dataclass(frozen=True)
class Permeability:
    """Openings of the membranes, for the rows of a batch."""

    rows: int
    """1: the same for every row."""
    gammas: tuple[Tensor | None, ...]
    """Gammas of each layout, ``(K, 1, rows, 1)``; None: all 0, and then a host does nothing at all."""

    def require(self, batch: int) -> None:
        """Refuse a batch that is neither the prompts' nor, with guidance, twice theirs.

        Raises:
            PromptUnknownError: it is.
        """
        if self.rows != 1 and batch not in (self.rows, 2 * self.rows):
            raise PromptUnknownError(
                f"the denoiser was given {batch} rows, the permeabilities are of {self.rows}",
                hint="Rows have to be the prompts in order, once, or twice with guidance.",
            )


class _Thread(threading.local):
    """What this thread has said."""

    permeability: Permeability | None = None
    fixed = False
    """Whether the caller said it, and not prompts."""
    calling = False
    """Whether this is inside a pipeline's call, which will say the prompts."""
    asked: Mapping[str, Any] | None = None
    """Arguments of the call that this is inside of, where its encodes have to be told apart by them."""
    last: Any = None


class PromptGate:
    """What all hooks of one attachment share: what each thread has said, and whether they are still attached."""

    def __init__(self) -> None:
        self.thread = _Thread()
        self.detached = False

    def __call__(self, denoiser: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Forward pre-hook of the denoiser: no prompts, no images."""
        if self.detached:  # a compiled denoiser still has its hooks
            return
        permeability = self.thread.permeability or self.refuse()
        permeability.require(_batch(inputs, named))
        if getattr(denoiser, "original_attn_processors", None) is not None and is_fused(denoiser):
            raise PromptUnknownError("layers that carry membranes were fused: call unfuse_qkv_projections()")

    @contextmanager
    def saying(self) -> Iterator[None]:
        """Keep what this thread says inside the block inside it."""
        thread = self.thread
        before = thread.permeability, thread.fixed, thread.calling, thread.asked
        try:
            yield
        finally:
            thread.permeability, thread.fixed, thread.calling, thread.asked = before

    def refuse(self) -> Permeability:
        """Say that prompts are missing."""
        raise PromptUnknownError(
            "the denoiser has membranes and was called without prompts",
            hint="Call the pipeline that they were attached to (or another one after 'attached.serve(pipeline)'),\n"
            "or open them yourself: with attached.at({'concept': 1.0}): ...",
        )


def is_fused(denoiser: nn.Module) -> bool:
    """Tell whether queries, keys and values of an attention are computed by one layer, and not by their own.

    Where diffusers exchanges the processor of an attention, the processor's class says it; elsewhere the layer does.
    """
    for part in denoiser.modules():
        processor = getattr(part, "processor", None)
        if type(processor).__name__.startswith("Fused"):
            return True
        if getattr(part, "fused_projections", False) and not isinstance(part, Attention):
            return True
    return False


def _batch(inputs: tuple[Any, ...], named: Mapping[str, Any]) -> int:
    """Return the number of images that a denoiser is given: rows of a tensor, or entries of a list."""
    sample = next((named[name] for name in _LATENTS if name in named), inputs[0] if inputs else None)
    if sample is None:
        raise PromptUnknownError(
            "the denoiser was called in a way that does not show how many images it works on",
            hint=f"Give it its latents first, or as {' or '.join(_LATENTS)}.",
        )
    return len(sample)


class SideBranch:
    """Forward hook of one host: adds what its membranes let through."""

    def __init__(self, parts: Sequence[Branch], layout: int, host: nn.Module, gate: PromptGate) -> None:
        self._down = torch.cat([branch.down.float().cpu() for branch in parts])
        self._up = torch.cat([branch.up.float().cpu() * branch.scale for branch in parts], dim=1).T.contiguous()
        self._layout = layout
        self._gate = gate
        weight: Any = host.weight
        self._cast(weight if weight.is_floating_point() else self._down)

    def _cast(self, like: Tensor) -> None:
        with torch.inference_mode(mode=False), torch.no_grad():
            self._factors = (self._down.to(like), self._up.to(like))

    def __call__(self, _host: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        """Return the output with the branch added, or None if there is nothing to add."""
        permeability = self._gate.thread.permeability
        if permeability is None:
            if self._gate.detached:
                return None
            permeability = self._gate.refuse()
        gamma = permeability.gammas[self._layout]
        if gamma is None:
            return None
        x = inputs[0]
        permeability.require(len(x))
        if self._factors[0].dtype != output.dtype or self._factors[0].device != output.device:
            self._cast(output)
        if gamma.dtype != output.dtype or gamma.device != output.device:
            gamma = gamma.to(output)
        add = _add_grad if torch.is_grad_enabled() else _add
        return add(x.to(output.dtype), output, gamma, *self._factors)


def hook(
    denoiser: nn.Module,
    hosts: Mapping[str, nn.Module],
    membranes: Sequence[Membrane],
    gate: PromptGate,
    undo: ExitStack,
) -> tuple[tuple[int, ...], ...]:
    """Register the hooks of all membranes.

    Args:
        denoiser: gets the gate.
        hosts: stem -> module.
        membranes: that fit.
        gate: shared by all hooks.
        undo: is told how each hook is removed.

    Returns:
        The layouts that occur: for each column of the stacked factors, the membrane it belongs to.
    """
    layouts: dict[tuple[int, ...], int] = {}
    undo.callback(denoiser.register_forward_pre_hook(gate, with_kwargs=True).remove)
    for stem in sorted({stem for membrane in membranes for stem in membrane.branches}):
        parts = [(i, one.branches[stem]) for i, one in enumerate(membranes) if stem in one.branches]
        columns = tuple(i for i, branch in parts for _ in range(branch.rank))
        layout = layouts.setdefault(columns, len(layouts))
        side = SideBranch([branch for _, branch in parts], layout, hosts[stem], gate)
        undo.callback(hosts[stem].register_forward_hook(side).remove)
    return tuple(layouts)


def permeability(
    matrix: Tensor, layouts: Sequence[tuple[int, ...]], device: torch.device | str, dtype: torch.dtype
) -> Permeability:
    """Return the permeabilities as the hosts use them.

    Args:
        matrix: ``(rows, k)``.
        layouts: from :func:`hook`.
        device: of the denoiser.
        dtype: of the denoiser.
    """
    with torch.inference_mode(mode=False):
        gammas = [matrix[:, list(columns)] for columns in layouts]
        return Permeability(
            len(matrix),
            tuple(gamma.T[:, None, :, None].to(device, dtype) if gamma.any() else None for gamma in gammas),
        )


def _add(x: Tensor, output: Tensor, gamma: Tensor, down: Tensor, up: Tensor) -> Tensor:
    """Add into the output, without copying it."""
    if output.ndim != 4:
        return _add_rows(x, output, gamma, down, up)
    if output.is_contiguous():
        return _add_planes(x, output, gamma, down, up)
    last, into = x.permute(0, 2, 3, 1), output.permute(0, 2, 3, 1)
    if into.is_contiguous():
        _add_rows(last, into, gamma, down, up)
        return output
    return _add_grad(x, output, gamma, down, up)


def _add_rows(x: Tensor, output: Tensor, gamma: Tensor, down: Tensor, up: Tensor) -> Tensor:
    """Add to rows, ``(b, ..., n)`` to ``(b, ..., m)``."""
    inner = torch.mm(down, x.reshape(-1, x.shape[-1]).T)  # (K, b ...): twice as fast as its transpose
    inner.view(len(inner), -1, gamma.shape[2], inner.shape[1] // len(x)).mul_(gamma)
    output.view(-1, output.shape[-1]).addmm_(inner.T, up)
    return output


def _add_planes(x: Tensor, output: Tensor, gamma: Tensor, down: Tensor, up: Tensor) -> Tensor:
    """Add to planes, ``(b, n, h, w)`` to ``(b, m, h, w)``."""
    inner = torch.matmul(down, x.flatten(2))
    rows = gamma[:, 0].transpose(0, 1)  # (rows, K, 1)
    inner.view(-1, *rows.shape[:2], inner.shape[2]).mul_(rows)
    output.flatten(2).baddbmm_(up.T.expand(len(x), -1, -1), inner)
    return output


def _add_grad(x: Tensor, output: Tensor, gamma: Tensor, down: Tensor, up: Tensor) -> Tensor:
    """Return the same as a sum that gradients flow through."""
    image = output.ndim == 4
    inner = F.linear(x.permute(0, 2, 3, 1) if image else x, down)
    rows = gamma[:, 0].permute(1, 2, 0)  # (rows, 1, K)
    opened = (inner.reshape(-1, len(rows), inner[0, ..., 0].numel(), len(down)) * rows).reshape(inner.shape)
    added = F.linear(opened, up.T)
    return output + (added.permute(0, 3, 1, 2) if image else added)
