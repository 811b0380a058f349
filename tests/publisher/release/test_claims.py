"""Which claims a release makes: gates of the manifest, and equal claims of several steps as one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from publisher.api import Check, Claim, Concept, Gate, Scope, TrainingAttack
from publisher.api.claims import about, kept, not_generated, promised, promised_of, strictest, unconditional
from publisher.engine.plan import PlannedStep, prefixed
from publisher.errors import UsageError
from publisher.evaluate.context import StepClaim
from publisher.manifest.resolve import Resolved
from publisher.registry import load_registry
from publisher.release.claims import collect_claims

CIGARETTE, SKULL = (
    Concept(id=name, kind="object", name=name, label=name, prompts=(name,)) for name in ("cigarette", "skull")
)
SCOPE = Scope(
    concepts=(CIGARETTE, SKULL), keep=(Concept(id="cat", kind="object", name="cat", label="cat", prompts=("cat",)),)
)
WEAK = Gate(value_at_least=-0.02, lower_at_least=-0.05)
STRICT = Gate(value_at_least=-0.01, lower_at_least=-0.1)


OWN_STEPS = [one.name for one in load_registry().all("step") if one.cls.__module__.startswith("publisher_")]
NEEDED: dict[str, dict[str, Any]] = {
    "slices": {"ledger": "licensed", "deleted": ["one"], "words": {"one": "skull", "other": "cat"}},
    "apply": {"from": "hardened"},
}
"""Step -> parameters without which it does not run, or claims little."""
OF_USERS = {"kept", "kept-distance", "unconditional", "other.stays"}
"""Claims about what stays: they are about no attacker."""
OF_THE_MAKING = {"exact"}


def collect(steps: dict[str, list[Claim]], gates: dict[str, Gate] | None = None, *own: Check) -> list[StepClaim]:
    planned = [
        SimpleNamespace(identity=SimpleNamespace(id=step), claims=[prefixed(step, claim) for claim in claims])
        for step, claims in steps.items()
    ]
    resolved = SimpleNamespace(evaluate=SimpleNamespace(gates=gates or {}, red_team=(), checks=own))
    return collect_claims(cast(Resolved, resolved), cast("list[PlannedStep]", planned), load_registry())


def two(gates: dict[str, Gate] | None = None, *own: Check) -> list[StepClaim]:
    ours = [*kept(SCOPE, binds="in-weights", gate=WEAK), unconditional(CIGARETTE, binds="in-weights")]
    theirs = [*kept(SCOPE, binds="in-pipeline", gate=STRICT), unconditional(SKULL, binds="in-pipeline")]
    gone = not_generated(CIGARETTE, "plain", binds="in-weights", limits=("ours",))
    return collect({"erase": [gone, *ours], "membranes": theirs}, gates, *own)


def test_equal_claims_of_several_steps_are_one_that_names_them() -> None:
    assert [(item.claim.id, item.steps) for item in two()] == [
        ("erase.cigarette.plain", ("erase",)),
        ("kept", ("erase", "membranes")),
        ("unconditional", ("erase", "membranes")),
    ]


def test_one_claim_of_several_steps_has_the_strictest_bounds_and_the_weakest_binding() -> None:
    shared = two()[1].claim
    assert shared.binds == "in-pipeline"
    assert [(check.id, check.gate) for check in shared.checks] == [
        ("kept", Gate(value_at_least=-0.01, lower_at_least=-0.05))
    ]


def test_the_limits_of_all_steps_stand_under_the_one_claim() -> None:
    claims = [not_generated(SKULL, "plain", binds="in-weights", limits=limits) for limits in (("a", "b"), ("b", "c"))]
    (shared,) = collect({"one": [claims[0]], "other": [claims[1]]})
    assert shared.claim.limits == ("a", "b", promised("prompt"), "c")


@pytest.mark.parametrize(
    ("gates", "least"),
    [
        ({"membranes.kept": Gate(lower_at_least=-0.3)}, -0.05),
        ({"membranes.kept": Gate(lower_at_least=-0.01)}, -0.01),
        ({"kept": Gate(lower_at_least=-0.4)}, -0.4),
    ],
)
def test_a_manifest_may_set_a_steps_share_of_a_gate_or_the_whole(gates: dict[str, Gate], least: float) -> None:
    (check,) = two(gates)[1].claim.checks
    assert check.gate is not None
    assert check.gate.lower_at_least == least


def test_a_gate_that_names_no_check_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"'membrane\.kept'") as caught:
        two({"membrane.kept": WEAK})
    assert "Did you mean 'membranes.kept'?" in str(caught.value.hint)


def test_claims_about_the_model_before_their_step_stay_apart() -> None:
    check = Check(id="late", attack="lora", metric="t50-ratio", concepts=("skull",), gate=Gate(lower_at_least=2))
    late = Claim(id="late", sentence="late", binds="in-weights", checks=(check,))
    assert [item.claim.id for item in collect({"one": [late], "other": [late]})] == ["one.late", "other.late"]


@pytest.mark.parametrize("change", [{"concepts": ("skull",)}, {"membranes": "off"}, {"attack": "nowhere"}])
def test_claims_with_other_checks_stay_apart(change: dict[str, Any]) -> None:
    (claim,) = kept(SCOPE, binds="in-weights")
    check = claim.checks[0].model_copy(update=change)
    other = claim.model_copy(update={"checks": (check,)})
    assert [item.steps for item in collect({"one": [claim], "other": [other]})] == [("one",), ("other",)]


def test_a_step_that_makes_a_claim_twice_is_not_helped() -> None:
    (claim,) = kept(SCOPE, binds="in-weights")
    assert len(collect({"one": [claim, claim]})) == 2


def test_a_shorter_id_that_is_taken_is_not_used() -> None:
    own = Check(id="kept", attack="plain", metric="concept-rate", concepts=("skull",), gate=WEAK)
    assert [item.claim.id for item in two({}, own)] == [
        "erase.cigarette.plain",
        "erase.kept",
        "unconditional",
        "manifest.checks",
    ]


def test_the_strictest_gate_of_promised_and_reported_is_the_promised_one() -> None:
    assert strictest([None, WEAK]) == WEAK
    assert strictest([None, None]) is None
    assert strictest([Gate(upper_at_most=0.1), Gate(upper_at_most=0.2, value_at_most=0.05)]) == Gate(
        upper_at_most=0.1, value_at_most=0.05
    )


@pytest.mark.parametrize("trained", ["", "lora", "full-finetune"])
@pytest.mark.parametrize("name", OWN_STEPS)
def test_every_claim_of_a_step_says_which_access_it_is_about(name: str, trained: str) -> None:
    """The access is that of the attacks by which the claim is tested, as these say it themselves."""
    registry = load_registry()
    step = registry.get("step", name).cls
    by = {
        "immunize": {"attacks": [trained]},
        "freeze-mask": {"check": {"attack": trained}},
        "slices": {"attack": trained},
    }
    params = step.Params.parse({**NEEDED.get(name, {}), **(by.get(name, {}) if trained else {})})
    images = SKULL.model_copy(update={"images": ("a.png",), "paraphrases": ("a bone",)})
    scope = SCOPE.model_copy(update={"concepts": (CIGARETTE, images)})
    claims = step().claims(params, scope)
    assert claims
    for claim in claims:
        if claim.id in OF_USERS:
            continue
        if claim.id in OF_THE_MAKING:
            assert any("not about an attacker" in limit for limit in claim.limits)
            continue
        access = {registry.get("attack", check.attack).cls.access for check in claim.checks}
        says = [limit for limit in claim.limits if limit.startswith("This is about an attacker")]
        gated = any(check.gate for check in claim.checks)
        assert says == [promised(*access) if gated else about(*access)], claim.id


def test_a_claim_names_the_access_that_its_training_says_itself() -> None:
    attacks = [one for one in load_registry().all("attack") if issubclass(one.cls, TrainingAttack)]
    assert len(attacks) > 6
    for one in attacks:
        assert promised_of([one.name]) == promised(one.cls.access), one.name
