"""The promises that many steps make, from one place."""

from __future__ import annotations

from publisher.api import Concept, Gate, Scope
from publisher.api.claims import ON_AVERAGE, RARE, RARE_IN_OTHER_WORDS, kept, kept_near, not_generated, unconditional

SKULL, CAT = (Concept(id=name, kind="object", name=name, label=name, prompts=(name,)) for name in ("skull", "cat"))
SCOPE = Scope(concepts=(SKULL,), keep=(CAT,))


def test_a_concept_is_not_generated_by_its_name_or_its_synonyms() -> None:
    plain, other = (
        not_generated(SKULL, attack, binds="in-weights", limits=("so far",), condition="when it rains")
        for attack in ("plain", "paraphrase")
    )
    assert plain.sentence == "skull is not generated from plain prompts when it rains"
    assert other.sentence == "skull is not generated from its synonyms when it rains"
    assert [(claim.id, claim.checks[0].gate) for claim in (plain, other)] == [
        ("skull.plain", RARE),
        ("skull.paraphrase", RARE_IN_OTHER_WORDS),
    ]


def test_of_a_style_the_mean_is_promised_and_the_claim_says_so() -> None:
    noto = SKULL.model_copy(update={"id": "noto", "name": "noto", "kind": "style"})
    claim = not_generated(noto, "plain", binds="in-weights", limits=("so far",))
    assert claim.sentence == "on average noto is not generated from plain prompts"
    assert claim.limits[:2] == ("so far", ON_AVERAGE)


def test_what_is_kept_is_promised_only_where_something_is() -> None:
    assert [claim.id for claim in (*kept(SCOPE, binds="in-weights"), *kept_near(SCOPE, binds="in-weights"))] == [
        "kept",
        "kept-distance",
    ]
    nothing = Scope(concepts=(SKULL,))
    assert (kept(nothing, binds="in-weights"), kept_near(nothing, binds="in-weights")) == ((), ())


def test_a_step_may_set_its_own_bounds() -> None:
    gate = Gate(upper_at_most=0.2)
    assert unconditional(SKULL, binds="in-pipeline", gate=gate).checks[0].gate == gate
