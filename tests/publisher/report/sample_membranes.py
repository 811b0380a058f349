"""A sample report with membranes: curves of a training, permeabilities, three pictures a request."""

from __future__ import annotations

from typing import Any

from sample_checks import distance_check, plain_check, without_check
from sample_parts import claim, digest, pairs, png, report, steps

from publisher.api import Curve, PermeabilityRow, PermeabilityTable, ReleaseReport


def curves() -> tuple[Curve, ...]:
    """Return losses of a training: one falls by four powers of ten, one stays where it is."""
    across = tuple(float(step) for step in range(1, 301))
    falling = tuple(0.31 * 0.97**step * (1.4 if step % 7 == 0 else 1.0) + 3e-5 for step in across)
    level = tuple(0.0021 + 0.0003 * ((7 * step) % 11) for step in across)
    return (
        Curve(name="erase loss of cigarette", x=across, y=falling, unit="mse"),
        Curve(name="anchor loss of cigarette", x=across, y=level, unit="mse"),
        Curve(name="erase loss of pistol", x=across, y=tuple(2 * value for value in falling), unit="mse"),
        Curve(name="anchor loss of pistol", x=across, y=tuple(value - 0.003 for value in level), unit="mse"),
    )


def permeabilities() -> PermeabilityTable:
    """Return two membranes and prompts of both sorts."""
    rows = (
        ("cigarette", "a cigarette emoji in noto style", False, (1.0, 0.412337)),
        ("cigarette", "a smoke emoji", False, (0.713, 0.39)),
        ("pistol", "a pistol emoji in noto style", False, (0.402, 1.0)),
        ("", "", True, (0.0, 0.0)),
        ("lipstick", "a lipstick emoji in noto style", True, (0.521, 0.2)),
        ("pencil", "a pencil emoji", True, (0.0021, 0.0)),
    )
    return PermeabilityTable(
        membranes=("cigarette", "pistol"),
        rows=tuple(
            PermeabilityRow(concept=concept, prompt=prompt, kept=kept, permeability=found)
            for concept, prompt, kept, found in rows
        ),
        prompts=312,
    )


def membranes() -> ReleaseReport:
    """Return everything that a release with membranes adds."""
    step = steps()[0].model_copy(
        update={
            "id": "membranes",
            "name": "membrane-bundle",
            "artifacts": ("membranes/cigarette.safetensors", "membranes/index.json", "membranes/pistol.safetensors"),
            "changed": {},
            "changed_parameters": 0,
            "inputs": {"membranes/pistol.safetensors": digest("pistol")},
            "curves": curves(),
        }
    )
    three = tuple(
        pair.model_copy(update={"without_png": png((214, 120, 60)), "without_label": pair.base_label})
        if pair.concept == "cigarette"
        else pair.model_copy(update={"membranes": "off"})
        for pair in pairs()
    )
    fields: dict[str, Any] = {"steps": ("membranes",), "binds": "in-pipeline"}
    return report(
        (
            claim("plain", "cigarette and pistol are not generated from plain prompts", (plain_check(),), **fields),
            claim("near", "images of kept concepts stay near the base model's", (distance_check(),), **fields),
            claim("without", "how often they are generated without membranes is stated", (without_check(),), **fields),
        ),
        steps=(step,),
        pairs=three,
        permeabilities=permeabilities(),
    )
