"""Shares with exact intervals."""

from __future__ import annotations

from typing import TypedDict

from publisher.api import intervals


class ShareOfImages(TypedDict):
    """A share of images, with its 95% Clopper-Pearson interval."""

    hits: int
    """Number of images that count."""
    n: int
    """Number of all images."""
    share: float
    """``hits / n``, rounded."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""


def share(hits: int, n: int) -> ShareOfImages:
    """Return the share of ``hits`` in ``n`` with its 95% Clopper-Pearson interval.

    Raises:
        ValueError: nothing was measured (``n`` is 0): there is no share to report.
    """
    if n == 0:
        raise ValueError("nothing was measured: a share of no images does not exist")
    found = intervals.share(hits, n)
    return ShareOfImages(
        hits=hits, n=n, share=round(found.value, 4), low=round(found.low, 4), high=round(found.high, 4)
    )
