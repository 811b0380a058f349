"""What a manifest leaves out: values for a small model, the papers' made safe, and the papers' own. Imports no torch.

                     re-learning   personalisation     (MIMA's released trainer, scripts and README)
    inner lr         1e-5          1e-5                5e-6, doubled by its scale_lr
    outer lr         3e-5          2e-5
    steps            500           500                 1000, half of them inner
    images           20            4                   personalisation: all that there are, 4 to 6
    class images     200           2
    batch            1             1                   one of the concept and one of the class, for each concept

They are for Stable Diffusion 1.4. For XL nobody published any: the outer rate is halved, for it has three times the
layers. ``large`` is that with a bound on the objective, and with captions in other words; with ``outer: denoiser`` it
has what makes the method of that (:data:`NEW_WORDS`), untried at this size. ``small`` was found on the embedded model,
by two concepts, and is measured on others in ``docs/explanation/defaults.md``: a network of at most 32 x 32 latents
learns with larger rates in few steps, and so do the attackers of its claims.

Where attention is joint (Stable Diffusion 3, FLUX.1) there is nothing to merge and no cross-attention: in every preset
``method`` is ``imma`` and ``outer`` is ``attention``. A prediction of nothing has a loss near 2 in flow matching, for
its target is noise minus image, and so has the bound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from publisher.api import Anatomy, ModelInfo, Scope
from publisher.api.presets import preset_of
from publisher_immunize.params import ImmunizeParams
from publisher_immunize.plan import choose, merges

MODES: dict[str, dict[str, Any]] = {
    "relearning": {"inner_lr": 1e-5, "lr": 3e-5, "steps": 500, "images": 20, "keep_images": 8},
    "personalization": {"inner_lr": 1e-5, "lr": 2e-5, "steps": 500, "images": 4, "keep_images": 2},
}
PUBLISHED: dict[str, Any] = {
    "batch": 1,
    "prior_batch": 1,
    "check": {"evaluation_steps": [0, 50, 100, 200, 500, 1000], "settings": {"lora": {"lr": 1e-4}}},
}
"""What both modes have in common. The check is IMMA's attack: LoRA, 20 images, 1000 steps."""
PAPER: dict[str, Any] = {"bound": None, "captions": ["name"]}
"""The objective as published: without bound it destroys the model."""
UNMERGED: dict[str, Any] = {"method": "imma"}
"""What holds of every preset where keys and values do not read the text as its encoders write it."""
JOINT: dict[str, Any] = {"outer": "attention"}
"""What holds besides where there is no cross-attention."""
FLOW_BOUND = 2.0
"""Loss of a prediction of nothing in flow matching, where noise and latents have unit variance."""
FAMILIES: dict[str, dict[str, Any]] = {"stable-diffusion-xl": {"lr": 1.5e-5}}
SMALL: dict[str, Any] = {
    "method": "imma",
    "inner": ["lora", "cross-attention", "full"],
    "inner_rule": "normalised",
    "restart": 60,
    "outer": "attention",
    "captions": ["name"],
    "first_order": True,
    "prior": 0.0,
    "lam": 100.0,
    "keep_concepts": 256,
    "keep_images": 1,
    "batch": 4,
    "prior_batch": 16,
    "steps": 20,
    "lr": 2e-3,
    "lr_schedule": "linear",
    "delay": 1.5,
    "innocents": 0,
    "check": {
        "evaluation_steps": [0, 8, 16, 32],
        "images_per_evaluation": 8,
        "controls": ["before"],
    },
}
NEW_WORDS: dict[str, Any] = {
    "method": "imma",
    "inner": ["lora", "full"],
    "inner_rule": "normalised",
    "inner_choice": "restart",
    "unadapted": 0.15,
    "restart": 30,
    "captions": {"rare": 0.75, "name": 0.25},
    "rare": 48,
    "first_order": True,
    "keep_captions": "words",
    "keep_concepts": 256,
    "prior": 0.0,
    "lam": 20.0,
    "lr_schedule": "cosine",
    "weight_decay": 0.0,
    "delay": 2.5,
}
"""What makes the method of ``outer: denoiser``, on a model of any size."""
SMALL_NEW_WORDS: dict[str, Any] = {"images": 24, "keep_images": 4, "prior_batch": 20, "steps": 220, "lr": 5e-4}
"""What changes besides on a small model."""
LARGE_NEW_WORDS: dict[str, Any] = {"prior_batch": 5}
"""What changes besides on a large one: as many kept images for each of a concept. Nobody has tried it there."""
NEW_WORDS_CHECK: dict[str, Any] = {"captions": "rare", "evaluation_steps": [0, 10, 20, 30, 40, 60, 80, 120]}
INNER_RATES = {"lora": 1e-3, "cross-attention": 3e-4, "full": 1e-4, "dreambooth": 1e-4, "textual-inversion": 5e-3}
"""Learning rates of the simulated attackers of a small model."""
NEW_WORDS_RATES = INNER_RATES | {"lora": 3e-3, "full": 2e-4}
"""The same where its whole denoiser is trained."""
LARGE_RATES = {kind: 1e-4 if kind == "lora" else 1e-5 for kind in INNER_RATES}
"""The same of a large model: the papers', and for adapters, which start from nothing, that of the attack by them."""
ATTACK_RATES = {
    "lora": 3e-3,
    "cross-attention": 1e-3,
    "full-finetune": 1e-4,
    "dreambooth": 1e-4,
    "dreambooth-lora": 3e-3,
    "textual-inversion": 5e-3,
    "custom-diffusion": 1e-4,
}
"""Learning rates of the attacks that test a small model."""


def resolve(params: ImmunizeParams, scope: Scope, model: ModelInfo) -> ImmunizeParams:
    """Return the parameters with everything that their preset says; what was given by name stays.

    Args:
        params: as the manifest has them.
        scope: whether its concepts have synonyms says which captions the tests of a small model write.
        model: its size and family.

    Raises:
        UsageError: no concept to immunise against.
    """
    preset = preset_of(params.preset, model)
    match preset:
        case "small":
            values = MODES[params.mode] | _small(params, scope, model.anatomy)
        case "large":
            values = MODES[params.mode] | PUBLISHED | FAMILIES.get(model.anatomy.family, {}) | _large(params)
        case "paper":
            values = MODES[params.mode] | PUBLISHED | PAPER
    return params.filled(values | _structure(model.anatomy, preset)).model_copy(update={"preset": preset})


def _structure(anatomy: Anatomy, preset: str) -> dict[str, Any]:
    """Return what the structure of the model changes in every preset."""
    values: dict[str, Any] = {} if merges(anatomy) else dict(UNMERGED)
    if not anatomy.cross_attention:
        values |= JOINT
    if anatomy.predictions == ("flow",) and preset != "paper":
        values["bound"] = FLOW_BOUND
    return values


def _small(params: ImmunizeParams, scope: Scope, anatomy: Anatomy) -> dict[str, Any]:
    whole = params.outer == "denoiser"
    values = SMALL | NEW_WORDS | SMALL_NEW_WORDS if whole else dict(SMALL)
    if not anatomy.cross_attention and not whole:
        values["inner"] = [kind for kind in SMALL["inner"] if kind != "cross-attention"]
    values |= _attackers(params, values["inner"], NEW_WORDS_RATES if whole else INNER_RATES)
    rates = {attack: {"lr": ATTACK_RATES[attack]} for attack in params.tested if attack in ATTACK_RATES}
    values["check"] = SMALL["check"] | {"settings": rates}
    if whole:
        values["check"] |= NEW_WORDS_CHECK
    elif all(concept.paraphrases for concept in choose(params, scope)):
        # Words that the immunisation never saw: by its own name a concept comes back later.
        values["check"]["captions"] = "synonym"
    return values


def _large(params: ImmunizeParams) -> dict[str, Any]:
    """Return what ``outer: denoiser`` changes on a large model."""
    if params.outer != "denoiser":
        return {}
    found = NEW_WORDS | LARGE_NEW_WORDS | _attackers(params, NEW_WORDS["inner"], LARGE_RATES)
    return found | {"check": PUBLISHED["check"] | {"captions": "rare"}}


def _attackers(params: ImmunizeParams, usual: Sequence[str], rates: Mapping[str, float]) -> dict[str, Any]:
    """Return kinds and rates of the simulated attackers, and what an exact derivative asks for."""
    if "inner" in params.model_fields_set:
        usual = params.inners
    elif isinstance(params.inner_lr, dict):
        usual = list(params.inner_lr)
    found: dict[str, Any] = {"inner": list(usual), "inner_lr": {kind: rates[kind] for kind in usual}}
    return found | ({"first_order": False, "restart": 1} if params.inner_order == 2 else {})
