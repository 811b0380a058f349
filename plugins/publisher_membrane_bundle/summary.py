"""What a report says of a training: curves, numbers, warnings."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from publisher.api.steps import MOST_POINTS

Curve = tuple[str, list[float], list[float], str]
Number = tuple[str, float, str]
SMALL_SCALE = 0.25
HIGH_RESIDUAL = 0.5


def curves(concepts: Sequence[str], losses: Tensor) -> list[Curve]:
    """Erase loss, anchor loss and erase residual of each concept over the steps, as means over windows.

    The erase loss depends on the noise level of the step more than on the membrane; the residual does not.

    Args:
        concepts: k names.
        losses: ``(steps, 3, k)``, see ``loop.Run``.
    """
    size = -(-len(losses) // MOST_POINTS)
    windows = losses.double().split(size)
    ends = [float(min((i + 1) * size, len(losses))) for i in range(len(windows))]
    found: list[Curve] = []
    for i, concept in enumerate(concepts):
        erase, anchor, start = ([float(window[:, row, i].mean()) for window in windows] for row in range(3))
        residual = [now / max(shut, 1e-30) for now, shut in zip(erase, start, strict=True)]
        found += [
            (f"{concept}: erase loss", ends, erase, ""),
            (f"{concept}: anchor loss", ends, anchor, ""),
            (f"{concept}: erase residual", ends, residual, "of its start"),
        ]
    return found


def numbers(concepts: Sequence[str], losses: Tensor) -> list[Number]:
    """Over the last tenth of the steps: what is left of the erase loss, and the anchor loss."""
    found: list[Number] = []
    for i, concept in enumerate(concepts):
        residual, anchor, _ = _end(losses[:, :, i])
        found += [(f"{concept}: erase residual", residual, "of its start"), (f"{concept}: anchor loss", anchor, "")]
    return found


def warnings(concepts: Sequence[str], losses: Tensor, lam: float, scale: float) -> list[str]:
    """What somebody should read before trusting the membranes.

    Args:
        concepts: k names.
        losses: ``(steps, 3, k)``.
        lam: weight of the anchor loss.
        scale: alpha / rank.
    """
    found = []
    if scale < SMALL_SCALE:
        found.append(f"alpha / rank is {scale:g}: the membranes learn {1 / scale:.0f} times slower; raise alpha")
    for i, concept in enumerate(concepts):
        residual, anchor, erase = _end(losses[:, :, i])
        if residual > HIGH_RESIDUAL and lam * anchor > erase:
            found.append(
                f"{concept}: the anchors outweigh the erasing ({lam * anchor:.2g} to {erase:.2g}) and {residual:.0%} "
                "of the erase loss is left: lower lam, or train longer"
            )
    return found


def _end(losses: Tensor) -> tuple[float, float, float]:
    """Residual, anchor loss and erase loss of ``(steps, 3)``, over the last tenth."""
    erase, anchor, start = losses[-max(1, len(losses) // 10) :].double().mean(0).tolist()
    return (erase / start if start else 0.0), anchor, erase
