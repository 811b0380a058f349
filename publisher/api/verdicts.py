"""From an interval to a verdict: the one rule, for the checks and for readers who recompute them from a package.

A bound is *kept* when the end of the interval that faces it is within; *broken* when the value itself is beyond it;
otherwise the value is within and the interval is too wide to say: *unknown*, more samples are needed. All bounds kept
is *passed*, one broken is *failed*. Anything that is no number, or no observation at all, is *unknown*. A sound number
without a gate is *reported*: it promises nothing, and nothing that counts passes includes it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from publisher.api.claims import Gate, Verdict
from publisher.api.metrics import Interval, Measurement

_ORDER: tuple[Verdict, ...] = ("failed", "unknown", "passed", "reported")
_RANK: tuple[Verdict, ...] = ("failed", "unknown", "reported", "passed")


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the verdict of several together: *failed* before *unknown* before *passed*.

    What is *reported* does not count beside others. Of no verdicts it is *unknown*: nothing was shown.
    """
    found = set(verdicts)
    return next((verdict for verdict in _ORDER if verdict in found), "unknown")


def of_claim(checks: Iterable[tuple[Gate | None, Verdict]], *, discloses: bool = False) -> Verdict:
    """Return the verdict of a claim: the worst of its checks'.

    Args:
        checks: gate and verdict of each.
        discloses: the claim promises nothing, so that an *unknown* check without a gate counts as *reported*.
    """
    return worst(
        "reported" if discloses and gate is None and verdict == "unknown" else verdict for gate, verdict in checks
    )


def overall(claims: Iterable[Verdict]) -> Verdict:
    """Return the verdict of a release: as :func:`worst`, and *unknown* where nothing but figures was promised."""
    verdict = worst(claims)
    return "unknown" if verdict == "reported" else verdict


def lower(recorded: Verdict, computed: Verdict) -> Verdict:
    """Return the lesser of what a record says and what its numbers say: *reported* is less than *passed*."""
    return min(recorded, computed, key=_RANK.index)


def decide(gate: Gate | None, interval: Interval) -> tuple[Verdict, str]:
    """Compare an interval with a gate.

    Args:
        gate: the bounds to keep; None: there are none.
        interval: the hardened model's number.

    Returns:
        The verdict, and why in one sentence.
    """
    ends = (interval.low, interval.value, interval.high)
    if not all(map(math.isfinite, ends)):
        return "unknown", "the measurement is not a finite number"
    if interval.n < 1:
        return "unknown", "nothing was observed"
    if not interval.low <= interval.value <= interval.high:
        return "unknown", "the value lies outside its own interval"
    if gate is None:
        return "reported", "no gate: the number is reported, and promises nothing"
    found = _bounds(gate, interval)
    verdict = worst(verdict for verdict, _ in found)
    return verdict, "; ".join(reason for this, reason in found if this == verdict) or "the gate has no bound"


def judge(gate: Gate | None, measurement: Measurement) -> tuple[Verdict, str]:
    """Compare a measurement with a gate, the control included.

    Where a rate has to be low and the base model's is within the bound already, a pass would say nothing about the
    hardening: the verdict is then *unknown*.

    Args:
        gate: the bounds to keep; None: there are none.
        measurement: of a metric.

    Returns:
        The verdict, and why in one sentence.
    """
    verdict, reason = decide(gate, measurement.hardened)
    bound, base = gate.upper_at_most if gate else None, measurement.base
    if verdict == "passed" and bound is not None and base is not None and not base.value > bound:
        return "unknown", f"the base model keeps this gate too ({base.value:.4g} <= {bound:g}): it shows nothing"
    return verdict, reason


def _bounds(gate: Gate, interval: Interval) -> list[tuple[Verdict, str]]:
    found = []
    if gate.upper_at_most is not None:
        found.append(_end("upper", interval.high, interval.value, gate.upper_at_most, 1))
    if gate.lower_at_least is not None:
        found.append(_end("lower", interval.low, interval.value, gate.lower_at_least, -1))
    if gate.value_at_most is not None:
        found.append(_value(interval.value, gate.value_at_most, 1))
    if gate.value_at_least is not None:
        found.append(_value(interval.value, gate.value_at_least, -1))
    return found


def _end(name: str, end: float, value: float, bound: float, sign: int) -> tuple[Verdict, str]:
    relation = "<=" if sign > 0 else ">="
    if sign * end <= sign * bound:
        return "passed", f"{name} bound {end:.4g} {relation} {bound:g}"
    if sign * value <= sign * bound:
        return "unknown", f"{name} bound {end:.4g} is not {relation} {bound:g}, value {value:.4g} is: too few samples"
    return _value(value, bound, sign)


def _value(value: float, bound: float, sign: int) -> tuple[Verdict, str]:
    relation, opposite = ("<=", ">") if sign > 0 else (">=", "<")
    if sign * value <= sign * bound:
        return "passed", f"value {value:.4g} {relation} {bound:g}"
    return "failed", f"value {value:.4g} {opposite} {bound:g}"
