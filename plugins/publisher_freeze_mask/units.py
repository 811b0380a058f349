"""Units in one fixed order, so that a mask is a vector; scores combined over theta_ft; the budget.

s_i(D) = mean over theta_ft of side D of  c_i / (L(theta_pre) - L(theta_ft))        shares of what was learned
s_i    = s_i(illegal) - lam s_i(innocent)                                           what a frozen unit is worth
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from publisher.api.freeze_mask import Candidate, Frozen, Range, joined, top
from publisher_freeze_mask.integrated_gradients import PathScores
from publisher_freeze_mask.mixing import Slopes

Key = tuple[str, Range]


@dataclass(frozen=True)
class MaskBudget:
    """The number of parameters or units that may be frozen."""

    size: int
    """Number of parameters, or of units."""
    by: str
    """Unit of the count: ``parameters`` or ``tensors``."""


class Units:
    """All units of the candidates, by name and row.

    Args:
        candidates: tensors that may be frozen, by name.
    """

    def __init__(self, candidates: Mapping[str, Candidate]) -> None:
        self.candidates = dict(sorted(candidates.items()))
        self.keys: list[Key] = [(name, unit) for name, one in self.candidates.items() for unit in one.units()]
        sizes = [self.candidates[name].size(unit) for name, unit in self.keys]
        self.sizes = torch.tensor(sizes, dtype=torch.float64)
        self.rows = {name: one.rows for name, one in self.candidates.items()}

    def __len__(self) -> int:
        return len(self.keys)

    def vector(self, slopes: Slopes) -> Tensor:
        """Return one number for each unit, ``(n,)`` float64; 0 where nothing is known."""
        parts = [
            slopes.get(name, torch.zeros(len(one.units()), dtype=torch.float64))
            for name, one in self.candidates.items()
        ]
        return torch.cat(parts)

    def shares(self, vector: Tensor) -> dict[str, Tensor]:
        """Return the numbers of a vector by name of the tensor, ``(u,)`` each."""
        counts = [len(one.units()) for one in self.candidates.values()]
        return dict(zip(self.candidates, vector.split(counts), strict=True))

    def weights(self, budget: MaskBudget) -> Tensor:
        """Return what each unit costs, ``(n,)``."""
        return self.sizes if budget.by == "parameters" else torch.ones_like(self.sizes)

    def budget(self, ratio: float, by: str, total: int) -> MaskBudget:
        """Return the budget: ``ratio`` of ``total`` parameters, or of the units."""
        return MaskBudget(int(ratio * (total if by == "parameters" else len(self))), by)

    def top(self, scores: Tensor, budget: MaskBudget) -> dict[str, tuple[Range, ...]]:
        """Return the units with the highest scores within the budget; equal scores go by name."""
        keyed = dict(zip(self.keys, scores.tolist(), strict=True))
        if budget.by == "parameters":
            return top(keyed, self.candidates, budget.size)
        chosen: dict[str, list[Range]] = {}
        for name, unit in sorted(keyed, key=lambda key: (-keyed[key], key))[: budget.size]:
            chosen.setdefault(name, []).append(unit)
        return {name: joined(units, self.candidates[name]) for name, units in sorted(chosen.items())}

    def rank(self, scores: Tensor, budget: MaskBudget, order: str) -> Tensor:
        """Return what units are chosen by: the score, or, under a budget of parameters, the score by parameter."""
        dense = order == "density" and budget.by == "parameters"
        return scores / self.sizes.clamp(min=1) if dense else scores

    def marked(self, frozen: Frozen) -> Tensor:
        """Return 1 for each frozen unit, else 0: ``(n,)`` float64."""
        inside = [
            name in frozen and (not frozen[name] or any(a <= unit[0] and unit[1] <= b for a, b in frozen[name]))
            for name, unit in self.keys
        ]
        return torch.tensor(inside, dtype=torch.float64)


def worth(units: Units, illegal: Sequence[PathScores], innocent: Sequence[PathScores], lam: float) -> Tensor:
    """Return the worth of freezing each unit, ``(n,)`` float64: its share of one side's gain less that of the other.

    Raises:
        ArithmeticError: a theta_ft gained nothing, so there is nothing to have a share of.
    """
    sides = []
    for paths in (illegal, innocent):
        if any(not path.gain > 0 for path in paths):
            raise ArithmeticError("a fine-tuning gained nothing")
        shares = [units.vector(path.scores) / path.gain for path in paths]
        sides.append(torch.stack(shares).mean(0))
    return sides[0] - lam * sides[1]
