"""A sample report that attacks its reader, and one that lies."""

from __future__ import annotations

import base64
from typing import Any

from sample_checks import plain_check, synonyms_check
from sample_masks import mask_record
from sample_parts import check, claim, interval, report, steps

from publisher.api import (
    Curve,
    Gate,
    GoneConcept,
    ImagePair,
    MatrixCell,
    ModelRecord,
    PermeabilityRow,
    PermeabilityTable,
    ReleaseReport,
    Trial,
)
from publisher.api.freeze_mask import Share
from publisher.api.records import FrozenSize

HOSTILE = (
    "<script>alert(1)</script>\"'><img src=https://evil.example/x onerror=alert(1)> "
    "\x1b[2J\x00\u202egnorw | `x` [a](https://evil.example) {{ 7*7 }}"
)


def _trials() -> tuple[Trial, ...]:
    """Return many models with hostile names; rates and losses at the edge of what numbers can be."""
    fields: dict[str, Any] = {
        "concept": HOSTILE,
        "seed": 0,
        "images_per_evaluation": 10**400,
        "similarity": (),
        "problem": HOSTILE,
    }
    models = [HOSTILE, *(f"{HOSTILE} {number}" for number in range(12)), "hardened"]
    found = [
        Trial(
            **fields, model=model, evaluation_steps=(3, 1_000_000), hits=(0, 10**400), losses=(1e308, -1e308), full=1e-6
        )
        for model in models
    ]
    nothing: dict[str, Any] = {"evaluation_steps": (), "hits": (), "losses": (), "full": 1.0}
    return (
        *found,
        Trial(**fields, model="base", **nothing),
        Trial(
            **{**fields, "concept": "never"},
            model="retrained",
            evaluation_steps=(0,),
            hits=(1,),
            losses=(1.0,),
            full=5e-324,
        ),
    )


def hostile() -> ReleaseReport:
    """Return a report whose every text is an attack, or very long; a picture is no picture."""
    bad = check("plain", Gate(upper_at_most=0.1), None, concepts=(HOSTILE,), id="plain", attack=HOSTILE, reason=HOSTILE)
    measured = plain_check()
    assert measured.measurement is not None
    loud = measured.model_copy(
        update={
            "unit": HOSTILE,
            "scorer": HOSTILE,
            "evidence": HOSTILE,
            "attack_params": {HOSTILE: HOSTILE, "captions": HOSTILE, "images": {"a": [HOSTILE]}, "mask": True},
            "metric_params": {
                "against": HOSTILE,
                "evaluation_step": 1_000_000,
                "of": [HOSTILE],
                "innocents": [HOSTILE],
            },
            "trials": _trials(),
            "measurement": measured.measurement.model_copy(
                update={
                    "by_concept": {HOSTILE: interval(0.5, 0.1, 0.9)},
                    "details": {HOSTILE: [HOSTILE], "x": [{HOSTILE: HOSTILE}]},
                }
            ),
        }
    )
    step = steps()[0].model_copy(
        update={
            "id": HOSTILE,
            "params": {HOSTILE: HOSTILE},
            "warnings": (HOSTILE,),
            "inputs": {HOSTILE: HOSTILE},
            "curves": (
                Curve(name=HOSTILE, x=(1.0, 2.0), y=(1e-300, 1e299), unit=HOSTILE),
                Curve(name=HOSTILE, x=(), y=(1.0,), unit=HOSTILE),
                Curve(name=HOSTILE, x=(3.0, 1e308), y=(1e308, -1e308), unit=HOSTILE),
            ),
        }
    )
    strange = PermeabilityRow(concept=HOSTILE, prompt="very long " * 20_000, kept=True, permeability=(1e308, 2.0, 3.0))
    empty = PermeabilityRow(concept="", prompt=HOSTILE, kept=False, permeability=())
    picture = ImagePair(
        concept=HOSTILE,
        check=HOSTILE,
        prompt="very long " * 20_000 + HOSTILE,
        seed=1,
        base_png='" onerror="alert(1)',
        hardened_png=base64.b64encode(b"<svg onload=alert(1)>").decode(),
        base_label=HOSTILE,
        hardened_label=HOSTILE,
        without_png='" onerror="alert(1)',
        without_label=HOSTILE,
    )
    return report(
        (claim("hostile", HOSTILE, (bad, loud), limits=(HOSTILE,), steps=(HOSTILE,)),),
        name=HOSTILE,
        version=HOSTILE,
        license=HOSTILE,
        concepts=tuple(
            GoneConcept(id=name, name=HOSTILE * 9, kind="object", synonyms=(HOSTILE,))
            for name in (HOSTILE, "cigarette")
        ),
        steps=(step,),
        pairs=(picture,),
        limits=(HOSTILE,),
        device=HOSTILE,
        versions={HOSTILE: HOSTILE},
        manifest_sha256=HOSTILE,
        freeze_mask=mask_record(
            component=HOSTILE,
            granularity=HOSTILE,
            others={HOSTILE: 0.0, f"seed-{HOSTILE}": 1.0},
            parameters=Share(frozen=10**399, total=10**400),
            largest=(FrozenSize(name=HOSTILE * 100, frozen=10**400, total=0),),
        ),
        permeabilities=PermeabilityTable(membranes=(HOSTILE, HOSTILE), rows=(strange, empty, strange), prompts=1),
        matrix=(MatrixCell(claim="erase.hostile", after=HOSTILE, verdict="unknown"),),
        model=ModelRecord(source=HOSTILE, family=HOSTILE, digest=HOSTILE, parameters=0, bytes=0, license=HOSTILE),
    )


def lying() -> ReleaseReport:
    """Return a report that says *passed* at every level although its numbers say otherwise."""
    bad = synonyms_check(0.34, 0.27, 0.42).model_copy(update={"verdict": "passed", "reason": "all fine"})
    return report((claim("synonyms", "cigarette is not generated from synonyms", (bad,)),), decision="passed")
