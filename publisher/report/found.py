"""What a search says of one concept, in the words of the table of accesses: its best find, its floor, and the cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from publisher.api import CheckRecord, Interval, Limits, Search, Verdict
from publisher.api.finds import STOPPED
from publisher.report.wording import figure, span

UNINFORMATIVE = "uninformative"
NOTHING_FOUND = "nothing found"
OPEN = ("powerless", "without floor")
"""Standings of which nothing can be said, unless there is a find above its floor."""


@dataclass(frozen=True)
class SearchFigures:
    """One check that searched, on one concept."""

    verdict: Verdict
    """*Unknown* where the search cannot tell, else *reported*: what holds without a gate."""
    success: bool
    """Whether its best find is above the floor with its whole interval, whatever the base model shows."""
    value: str
    """``"46% over a floor of 2.1%"``, ``"nothing found"``, ``"uninformative"``, ``"powerless"``; of a find that lies
    above its floor all the same ``"powerless, 46% over a floor of 2.1%"``."""
    interval: str
    """Of the rate."""
    n: str
    """Images that judged the best find, and which one it is; or images that were tried."""
    excess: str
    """Rate less floor, with its interval; empty where the search cannot tell."""
    cost: str
    """Attack, and what it had spent when it came upon the find; more than that where nothing lies above its floor."""
    severity: float
    """Rate less floor: to compare searches."""


def searched(check: CheckRecord, concept: str) -> SearchFigures | None:
    """Return what a search says of a concept; None: the check has no numbers of one.

    Args:
        check: of an attack that searches.
        concept: id.
    """
    details: dict[str, Any] = check.measurement.details if check.measurement else {}
    search = next((one for one in check.searches if (one.concept, one.model) == (concept, "hardened")), None)
    rate, floor = _interval(details, "rates", concept), _interval(details, "floors", concept)
    excess = check.measurement.by_concept.get(concept) if check.measurement else None
    if search is None or rate is None or excess is None:
        return None
    standing = _of(details, "standing", concept)
    stopped = next((one for one in check.searches if one.concept == concept and one.stop in STOPPED), None)
    best = _of(details, "best", concept)
    success = best is not None and standing in ("decided", "powerless") and excess.low > 0
    above = figure(rate.value, "share") + (f" over a floor of {figure(floor.value, 'share')}" if floor else "")
    told = above if best is not None else NOTHING_FOUND
    if standing != "decided":
        told = f"{standing}, {told}" if success else str(standing)
    return SearchFigures(
        verdict="unknown" if stopped or (standing in OPEN and not success) else "reported",
        success=success,
        value=_value(stopped, told),
        interval=span(rate, "share"),
        n=f"{rate.n:,} of find {best + 1}" if isinstance(best, int) else f"{search.tried:,} tried",
        excess=f"{check.metric} {figure(excess.value, check.unit)} ({span(excess, check.unit)})" if floor else "",
        cost=f"{check.attack}, {_cost(search, best if success else None)}",
        severity=excess.value,
    )


def counts(spent: Limits) -> str:
    """Return what was spent, in words: ``"12 images and 30 gradient steps"``."""
    words = [f"{amount:,} {name.replace('_', ' ')}" for name, amount in spent.as_json().items() if amount]
    return " and ".join(words) or "nothing"


def _cost(search: Search, best: int | None) -> str:
    """Return what was spent until the best find came, or in all where nobody wrote that down or nothing was found."""
    if best is None:
        return f"more than {counts(search.spent)}"
    until = search.finds[best].spent
    return f"after {counts(until)}" if until else f"in a search of {counts(search.spent)}"


def _value(stopped: Search | None, told: str) -> str:
    return {"crashed": "crashed", "refused": "stopped at refused words"}[stopped.stop] if stopped else told


def _of(details: dict[str, Any], name: str, concept: str) -> Any:
    values = details.get(name)
    return values.get(concept) if isinstance(values, dict) else None


def _interval(details: dict[str, Any], name: str, concept: str) -> Interval | None:
    """Return an interval of a metric's details; None: it is not there, or none."""
    try:
        return Interval.parse(numbers) if (numbers := _of(details, name, concept)) else None
    except (TypeError, ValueError):
        return None
