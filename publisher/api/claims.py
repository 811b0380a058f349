"""What a release promises, and how each promise is tested."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from publisher.api.params import Params

Binding = Literal["in-weights", "in-pipeline", "by-convention"]
Verdict = Literal["passed", "failed", "unknown", "reported"]
"""``reported``: measured and disclosed, without a gate. It is never counted as passed."""
MembraneUse = Literal["on", "off"]


class Gate(Params):
    """The bounds that a measurement has to keep. All that are given must hold; at least one must be given."""

    upper_at_most: float | None = None
    """The interval's upper end is at most this."""
    lower_at_least: float | None = None
    """The interval's lower end is at least this."""
    value_at_most: float | None = None
    """The point estimate is at most this. Only beside a bound of the interval."""
    value_at_least: float | None = None
    """The point estimate is at least this. Only beside a bound of the interval."""

    @model_validator(mode="after")
    def _some_bound_of_the_interval(self) -> Self:
        if self.upper_at_most is None and self.lower_at_least is None:
            raise ValueError(
                "a gate needs upper_at_most or lower_at_least: it compares the interval, not only the value"
            )
        return self

    def sentence(self) -> str:
        """The gate in words, such as ``"upper bound <= 0.1"``."""
        parts = {
            "value <=": self.value_at_most,
            "value >=": self.value_at_least,
            "upper bound <=": self.upper_at_most,
            "lower bound >=": self.lower_at_least,
        }
        return " and ".join(f"{words} {bound:g}" for words, bound in parts.items() if bound is not None)


class Check(Params):
    """One test of a claim: attack, scorer, metric, gate, by the names they are registered under."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,127}$")
    """Unique in a release, such as ``"cigarette.plain"``."""
    attack: str
    """How somebody would get the concept."""
    attack_params: dict[str, Any] = Field(default_factory=dict)
    """Parameters of the attack; checked against its model when the manifest is resolved."""
    metric: str
    """Many judgements to one number with an interval."""
    metric_params: dict[str, Any] = Field(default_factory=dict)
    """Parameters of the metric."""
    scorer: str = ""
    """Who judges the images; empty: the manifest's ``evaluate.scorer``."""
    concepts: tuple[str, ...]
    """Ids of the concepts that the attack goes for; may name kept ones."""
    gate: Gate | None = None
    """The bounds to keep. None: the number is *reported*, which promises nothing and counts for nothing."""
    membranes: MembraneUse = "on"
    """``on``: the package's membranes are attached, as ``publisher.load`` does. ``off``: the weights alone, as plain
    diffusers loads them. The same where the package has none."""


class Claim(Params):
    """A sentence that a step puts into the release, with the checks that test it and the limits of what it says."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,127}$")
    """Unique in a release; the engine prefixes the step's id."""
    sentence: str
    """What is promised, such as ``"cigarette is not generated from plain prompts"``."""
    binds: Binding
    """``in-weights``, ``in-pipeline`` (whoever drops the artifact is free of it) or ``by-convention``."""
    limits: tuple[str, ...] = ()
    """What the sentence does not say, and who could get around it."""
    checks: tuple[Check, ...] = ()
    """Without checks the claim is *unverified*, which is never *passed*."""
