"""IMMA: weights from which an adaptation to a concept fails.

Source: "IMMA: Immunizing text-to-image Models against Malicious Adaptation", ECCV 2024
(arXiv 2311.18815), with the authors' code.

    max_theta  L(x', c'; theta, phi*)      subject to      phi* = argmin_phi L(x, c; theta, phi)          (bi-level)

    paper     code         shape     meaning
    theta     theta        as is     weights that will be published
    phi       Adversary    -         what the simulated adaptation trains: adapters, words, or the weights themselves
    x, x'     ConceptBatch (r,c,h,w) images of the concept, for the lower and the upper level
    c, c'     states       (r,n,D)   their captions
    L         losses       (N,r)     mean squared error of the denoiser's prediction, for each row

The names of the equations are this file's.

Deviations from the authors' code:
    - phi starts again after ``restart`` outer steps; theirs is never reset.
    - What is trained is what is exported. Their DreamBooth moves 686 tensors and exports 160.
    - L has a bound unless it is taken away. Without one the ascent never ends, and long runs destroy the model.
"""

from __future__ import annotations

from torch import Tensor


def ascend(losses: Tensor, bound: float | None) -> Tensor:
    """Return what is minimised so that the losses of (bi-level) grow.

    Args:
        losses: ``(N, r)``.
        bound: loss above which a row is left alone; None: there is none, as published.
    """
    return -losses if bound is None else (bound - losses).clamp(min=0)
