"""What a report says of a training: curves, numbers, warnings. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

from publisher.api.steps import MOST_POINTS

Curve = tuple[str, list[float], list[float], str]
Number = tuple[str, float, str]
TAIL = 10
"""Numbers are means over the last of so many parts."""


def curves(
    columns: Sequence[str], losses: Sequence[Sequence[float]], images_per_evaluation: Sequence[Sequence[float]]
) -> list[Curve]:
    """Each column over the steps, as means over windows; columns that are all zero are left out.

    Args:
        columns: names.
        losses: a row for each step.
        images_per_evaluation: step, delay and rise of the kept images' loss.
    """
    size = max(1, -(-len(losses) // MOST_POINTS))
    windows = [losses[i : i + size] for i in range(0, len(losses), size)]
    ends = [float(min((i + 1) * size, len(losses))) for i in range(len(windows))]
    found: list[Curve] = []
    for column, name in enumerate(columns):
        values = [_mean(window, column) for window in windows]
        if any(values):
            found.append((name if "norm" in name else f"{name.removesuffix(' loss')} loss", ends, values, ""))
    if images_per_evaluation:
        kept = images_per_evaluation[:: -(-len(images_per_evaluation) // MOST_POINTS)]
        steps = [row[0] for row in kept]
        found.append(("probed delay", steps, [row[1] for row in kept], "times"))
        found.append(("kept images' loss", steps, [row[2] for row in kept], "of its start, more"))
    return found


def numbers(columns: Sequence[str], losses: Sequence[Sequence[float]]) -> list[Number]:
    """The columns' means over the last tenth of the steps, and the steps."""
    last = losses[-max(1, len(losses) // TAIL) :]
    values = [(name, _mean(last, column)) for column, name in enumerate(columns)]
    found = [(f"{name.removesuffix(' loss')} loss at the end", value, "") for name, value in values if value]
    return [("outer steps", float(len(losses)), ""), *(row for row in found if "norm" not in row[0])]


def _mean(rows: Sequence[Sequence[float]], column: int) -> float:
    return sum(row[column] for row in rows) / len(rows)
