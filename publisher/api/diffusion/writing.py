"""What was trained goes back into the model: in the dtype that it had, and aloud about what that dtype cannot hold."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from publisher.api.steps import StepContext


def write_trained(ctx: StepContext, weights: Mapping[str, Tensor]) -> None:
    """Write weights of the denoiser in the model's dtype, and record how many numbers' change rounding took away.

    Args:
        ctx: of the running step.
        weights: name -> tensor, in the dtype that it was trained in.
    """
    component = ctx.model.anatomy.denoiser
    lost = moved = 0
    for name, weight in weights.items():
        before, trained = ctx.model.read(component, name), weight.cpu()
        written = trained.to(before.dtype)
        changed = trained != before.to(trained)
        moved += int(changed.sum())
        lost += int((changed & (written == before)).sum())
        ctx.write(component, name, written)
    if lost:
        ctx.record("numbers whose change rounding took away", lost / moved, "of those that changed")
