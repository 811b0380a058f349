"""What a manifest leaves out: values for a small model, the authors' made safe, and the authors' own. No torch.

3000 steps at 1e-4, warm-up of 500, 3 cycles, lam 1000, the concept's name as target and the empty prompt as surrogate
are the authors', for Stable Diffusion 1.4; their loop is ``exact``, at resolutions that change. ``large`` is that on
trajectories (``pool``), towards a neighbour, with a threshold. ``small`` was found on the embedded model, by two
concepts, and is measured on others in ``docs/explanation/defaults.md``.

Prompts that read less alike than the threshold leave a membrane shut. The paper has none. Its own figures give a name
and its neighbours up to 0.89 (Batman and Superman), and a prompt with the name in it 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from publisher.api import Concept, ModelInfo, Scope
from publisher.api.presets import preset_of
from publisher.api.words import stand_ins
from publisher_membrane_bundle.params import MembraneParams
from publisher_membrane_bundle.plan import choose, surrogates_of, texts_of

THRESHOLD = 0.9
PRESETS: dict[str, dict[str, Any]] = {
    "small": {
        "train_on": "prompts",
        "lam": 30.0,
        "steps": 240,
        "lr": 1e-3,
        "warmup": 20,
        "cycles": 1,
        "transport": {"threshold": THRESHOLD},
    },
    "large": {"warmup": 500, "transport": {"threshold": THRESHOLD}},
    "paper": {"trainer": "exact", "warmup": 500, "dynamic_resolution": True, "transport": {"stop_words": []}},
}
STYLE: dict[str, Any] = {"steps": 480, "lr": 3e-3, "eta": 2.0, "lam": 3.0}
"""What ``small`` has in mode ``bundle`` where a style is trained: it is in every prompt's image, and goes less easily.
Less weight on the anchors costs nothing there, for what stays leaves the membrane shut."""
POOL = 16, 32
"""Least and largest number of trajectories: one for each text that is trained, as far as that goes."""


def resolve(params: MembraneParams, scope: Scope, model: ModelInfo) -> MembraneParams:
    """Return the parameters with everything that their preset says, and a surrogate for each concept that is trained.

    Args:
        params: as the manifest has them; what it gives by name stays.
        scope: what goes, and what may stand in for it.
        model: its size; its text encoder's files are read where a neighbour is looked for.

    Raises:
        ModelError: the text encoder's files cannot be read.
        UsageError: no concept, or a name that is none.
    """
    preset = preset_of(params.preset, model)
    wanted = [one for one in choose(params, scope) if one.id not in params.reuse]
    values = dict(PRESETS[preset])
    if params.mode == "merge":
        del values["transport"]  # merged membranes do not see the prompt
    elif preset == "small" and any(one.kind == "style" for one in wanted):
        values |= STYLE
    steps = params.steps if "steps" in params.model_fields_set else values.get("steps", params.steps)
    full = params.filled({**values, "warmup": min(values["warmup"], steps)})
    if full.trainer == "pool" and "pool" not in params.model_fields_set:
        full = full.model_copy(update={"pool": _trajectories(full, wanted)})
    given = surrogates_of(full)
    trained = [one for one in wanted if one.id not in given]
    asked = params.surrogates == "auto" and "surrogates" in params.model_fields_set
    empty = preset == "paper" and not asked
    found = dict.fromkeys((one.id for one in trained), "") if empty else stand_ins(trained, scope, model)
    return full.model_copy(update={"preset": preset, "surrogates": given | found})


def _trajectories(params: MembraneParams, trained: Sequence[Concept]) -> int:
    """Return a number of trajectories: with fewer than there are texts, the last texts hardly get a turn."""
    texts = max((len(texts_of(params, one)) for one in trained), default=0)
    least, most = POOL
    return min(max(least, len(trained) * texts), most)
