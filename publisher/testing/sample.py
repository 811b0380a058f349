"""A small release report, for forms of the report to render."""

from __future__ import annotations

from publisher.api import (
    Access,
    CheckRecord,
    ClaimRecord,
    Gate,
    GoneConcept,
    Interval,
    Measurement,
    ModelRecord,
    Origin,
    PluginRecord,
    ReleaseReport,
    ScorerCard,
    StepRecord,
    Verdict,
)
from publisher.api.verdicts import judge

DIGEST = "0" * 64
HITS: dict[Verdict, tuple[float, float, float]] = {
    "passed": (0.0, 0.0, 0.06),
    "failed": (0.5, 0.37, 0.63),
    "unknown": (0.05, 0.01, 0.14),
}
"""Decision -> share of images that show the concept, and its interval."""


def sample_report(decision: Verdict = "passed") -> ReleaseReport:
    """Return a report of one step and one claim with one check.

    Args:
        decision: ``passed``, ``failed`` or ``unknown``.
    """
    value, low, high = HITS[decision]
    hardened = Interval(value=value, low=low, high=high, n=60, method="Clopper-Pearson 95%")
    measurement = Measurement(hardened=hardened, base=Interval(**{**hardened.as_json(), "value": 0.9, "high": 0.97}))
    gate = Gate(upper_at_most=0.1)
    verdict, reason = judge(gate, measurement)
    check = CheckRecord(
        id="dampen.plain",
        attack="plain",
        attack_params={},
        access=Access.PROMPT,
        scorer="fake",
        metric="concept-rate",
        metric_params={},
        resistance=True,
        unit="share",
        better="lower",
        concepts=("cigarette",),
        gate=gate,
        verdict=verdict,
        reason=reason,
        measurement=measurement,
        evidence="evidence/dampen.plain.jsonl",
        evidence_sha256=DIGEST,
    )
    claim = ClaimRecord(
        id="dampen.plain",
        steps=("dampen",),
        sentence="cigarette is not generated from plain prompts <b>&\"'",
        binds="in-weights",
        limits=("Holds for the prompts tested.",),
        verdict=verdict,
        checks=(check,),
    )
    return ReleaseReport(
        name="sample",
        version="1.0.0",
        license="Apache-2.0",
        decision=verdict,
        model=ModelRecord(
            source="testing:tiny",
            family="stable-diffusion-1",
            digest=DIGEST,
            parameters=1000,
            bytes=4000,
            license="Apache-2.0",
        ),
        concepts=(GoneConcept(id="cigarette", name="cigarette", kind="object"),),
        steps=(_step(),),
        claims=(claim,),
        scorers={
            "fake": ScorerCard(
                weights=DIGEST, preprocessing="none", decision="none", classes={"object": 1}, calibration="none"
            )
        },
        plugins=(PluginRecord(kind="step", name="dampen", version="1", origin=_origin()),),
        pairs=(),
        seed=0,
        device="cpu float32",
        versions={"python": "3.11.9", "torch": "2.13.0"},
        manifest_sha256=DIGEST,
        limits=("Nothing is said about fine-tuning.",),
    )


def _origin() -> Origin:
    return Origin(distribution="publisher-dampen", version="0.1.0", module="publisher_dampen:Dampen", digest=DIGEST)


def _step() -> StepRecord:
    return StepRecord(
        id="dampen",
        name="dampen",
        version="1",
        origin=_origin(),
        params={"strength": 0.5},
        input=DIGEST,
        output=DIGEST,
        changed={"unet": 14},
        changed_parameters=1000,
        artifacts=(),
    )
