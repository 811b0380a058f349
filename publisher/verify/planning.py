"""What checks will cost, and which gates cannot be decided with so few images. Nothing is drawn, no torch."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from publisher.api import Check, Sampling, Scope
from publisher.api.verdicts import decide
from publisher.verify.asking import ask, named, one_line, parsed
from publisher.verify.batches import drawing
from publisher.verify.tools import Tools, Unmeasured


@dataclass(frozen=True)
class CheckPlan:
    """A check before it is made."""

    check: str
    """Its id."""
    samples: dict[str, int]
    """Concept -> images of each model."""
    prompts: int
    """Distinct prompts among them."""
    refused: int = 0
    """Requests that nobody may draw."""
    undecidable: str = ""
    """Why the verdict can only be *unknown*, in one sentence; empty: it can be decided."""


def plan_check(check: Check, scope: Scope, tools: Tools, sampling: Sampling) -> CheckPlan:
    """Count the images of a check, and see whether the best result that they could show would keep its gate."""
    try:
        asked = ask(check, scope, tools, sampling)
    except Unmeasured as error:
        return CheckPlan(check.id, dict.fromkeys(check.concepts, 0), 0, undecidable=str(error))
    return CheckPlan(
        check.id,
        samples=dict(Counter(request.concept for request in asked.requests)),
        prompts=len({request.prompt for request in asked.requests}),
        refused=asked.refused,
        undecidable=_undecidable(check, tools, len(asked.requests)),
    )


def images(checks: list[Check], scope: Scope, tools: Tools, sampling: Sampling) -> Counter[str]:
    """Distinct images that all checks together need: equal ones are drawn once.

    Returns:
        ``"base"``: of the base model; ``"on"`` and ``"off"``: of the hardened model with and without membranes, which
        are one and the same model where it has none.
    """
    wanted = set()
    for check in checks:
        try:
            requests = ask(check, scope, tools, sampling).requests
        except Unmeasured:
            continue
        wanted |= {(drawing(request), how) for request in requests for how in ("base", check.guards)}
    return Counter(how for _, how in wanted)


def _undecidable(check: Check, tools: Tools, n: int) -> str:
    try:
        metric = named(tools.metrics, check.metric, "metric")
        best = metric.best(parsed(type(metric).Params, check.metric_params, "metric"), n)
    except Unmeasured as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - a plugin may raise anything
        return f"{n} images: {one_line(error)}"
    if best is None:
        return ""
    verdict, reason = decide(check.gate, best)
    return "" if verdict == "passed" else f"{n} images cannot show it, even at best: {reason}"
