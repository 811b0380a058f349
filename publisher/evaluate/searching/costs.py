"""What searches cost on this machine: learned from those that were made, for those that are planned.

Seconds are no part of a record: another machine has others. They lie in the work folder, beside the images.
"""

from __future__ import annotations

from typing import Any

from publisher.api import Limits
from publisher.evaluate.store import ImageStore
from publisher.model.digest import sha256_json

MOST = 200
"""Number of searches that are remembered: the last ones."""


def note_cost(store: ImageStore, model: str, machine: str, spent: Limits, seconds: float) -> None:
    """Remember what one search, or the judging of its finds, took.

    Args:
        store: of the work folder.
        model: digest of the base model.
        machine: device and number format.
        spent: what was spent.
        seconds: that it took.

    Raises:
        PublisherError: the disk is full or not writable.
    """
    key = _key(model, machine)
    rows = [*(store.note(key) or []), {"spent": spent.as_json(), "seconds": seconds}]
    store.put_note(key, rows[-MOST:])


def expected_seconds(store: ImageStore, model: str, machine: str, limits: Limits) -> float | None:
    """Return how long searches take that spend this much, or None where nothing is known of one of its counts.

    Seconds are a sum of counts times unit costs that are not negative: those that fit what was remembered best.
    """
    rows: list[dict[str, Any]] = store.note(_key(model, machine)) or []
    wanted = {name: count for name, count in limits.as_json().items() if count}
    if not wanted or any(not any(row["spent"][name] for row in rows) for name in wanted):
        return None
    import numpy as np
    from scipy.optimize import nnls

    names = list(limits.as_json())
    counts = np.array([[row["spent"][name] for name in names] for row in rows], float)
    units, _ = nnls(counts, np.array([row["seconds"] for row in rows], float))
    return float(sum(count * units[names.index(name)] for name, count in wanted.items()))


def _key(model: str, machine: str) -> str:
    return sha256_json({"costs of searches": 1, "model": model, "machine": machine})
