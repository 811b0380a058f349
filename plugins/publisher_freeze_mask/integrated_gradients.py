"""Scores along the way from theta_pre to theta_ft: what each unit's change contributes to what was learned.

Integrated gradients (arXiv 1703.01365, eq. 1) of the loss L, with theta_pre as the baseline and theta_ft as the input:

    c_i = - int_0^1 <theta_ft,i - theta_pre,i , grad_i L(theta_pre + u (theta_ft - theta_pre))> du       (1)
    sum_i c_i = L(theta_pre) - L(theta_ft)                                completeness, its Proposition 1  (2)

    here                   shape
    c        ``scores``    name -> (u,) float64, one for each unit
    u        Gauss-Legendre points on [0, 1]
    (2) left   ``predicted``   right   ``before - after``

L is the mean over the given batches, whose noise and timesteps are the same at every point; so (2) is off by the
quadrature alone. One backward for each point and batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from publisher_freeze_mask.mixing import Delta, Loss, MixedNetwork, Slopes


@dataclass(frozen=True)
class PathScores:
    """The scores of one theta_ft."""

    scores: Slopes
    """Score of each unit, by name of the tensor."""
    before: float
    """Loss at theta_pre."""
    after: float
    """Loss at theta_ft."""

    @property
    def gain(self) -> float:
        """Right side of (2): fall of the loss."""
        return self.before - self.after

    @property
    def predicted(self) -> float:
        """Left side of (2): sum of all scores."""
        return sum(float(self.scores[name].sum()) for name in sorted(self.scores))


def path_scores(network: MixedNetwork, delta: Delta, losses: Sequence[Loss], points: int) -> PathScores:
    """Compute (1); the network is at theta_pre before and after.

    Args:
        network: network at theta_pre.
        delta: theta_ft - theta_pre.
        losses: loss of each batch; L is their mean.
        points: number of points of the quadrature.
    """
    nodes, weights = np.polynomial.legendre.leggauss(points)
    scores: Slopes = {}
    for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
        network.put(delta, (node + 1) / 2)
        for loss in losses:
            _, slopes = network.slopes(delta, loss)
            for name, values in slopes.items():
                scores[name] = scores.get(name, torch.zeros_like(values)) - values * (weight / 2 / len(losses))
    ends = []
    for share in (0.0, 1.0):
        network.put(delta, share)
        with torch.no_grad():
            ends.append(sum(float(loss()) for loss in losses) / len(losses))
    network.back()
    return PathScores(scores, *ends)
