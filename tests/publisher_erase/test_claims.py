from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from erase_fakes import concept
from trained_cases import SCOPE, TARGETS, params_of

from publisher.api import Claim, Scope
from publisher.api.intervals import difference
from publisher.builtin.attacks.derived import DerivedEmbedding
from publisher.builtin.attacks.inversion import ConceptInversion
from publisher.builtin.metrics.finds import FoundExcess
from publisher.model.state import State
from publisher.testing.tiny import open_model
from publisher_erase.params import EraseParams
from publisher_erase.step import Erase
from support.tiny_families import TINY

SEARCHES = {"derived-embedding": DerivedEmbedding, "concept-inversion": ConceptInversion}
UNSAFE = concept("nude").model_copy(update={"kind": "unsafe"})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> State:
    return open_model(TINY["stable-diffusion-1"](tmp_path_factory.mktemp("tiny") / "model"))


def searched(params: EraseParams, scope: Scope = SCOPE) -> dict[str, Claim]:
    """Return the claims about what searches find."""
    claims = Erase().claims(params, scope)
    return {claim.id: claim for claim in claims if claim.checks[0].metric == FoundExcess.name}


@pytest.mark.parametrize("attack", SEARCHES)
def test_robust_promises_that_searches_find_nothing_of_each_concept(attack: str) -> None:
    found = searched(EraseParams(method="robust"))
    assert len(found) == 4
    for one in SCOPE.concepts:
        claim = found[f"{one.id}.{attack}"]
        (check,) = claim.checks
        assert (check.attack, check.concepts, check.gate.upper_at_most) == (attack, (one.id,), 0.1)
        assert one.name in claim.sentence
        assert any("or 'base'" in limit for limit in claim.limits) == (attack == "derived-embedding")
        assert any("access" in limit and "'embedding'" in limit for limit in claim.limits)


@pytest.mark.parametrize("method", ["uce", "rece", "surgical"])
def test_no_other_method_promises_it(method: str) -> None:
    assert not searched(EraseParams.parse({"method": method}))


@pytest.mark.parametrize("attack", SEARCHES)
def test_the_budget_is_the_attacks_own_and_a_search_without_a_hit_keeps_the_gate(attack: str) -> None:
    claim = searched(EraseParams(method="robust"))[f"cigarette.{attack}"]
    (check,) = claim.checks
    search: Any = SEARCHES[attack]()
    params = search.sized(search.Params.parse(check.attack_params))
    if attack == "derived-embedding":
        assert f"{len(params.rho)} pulls, {params.images * len(params.rho)} images" in claim.sentence
        tried = params.images * len(params.rho)
    else:
        assert (
            f"{params.pictures} pictures of cigarette in {params.steps} steps of {params.batch} rows" in claim.sentence
        )
        tried = 12 * params.looks
    assert difference(0, tried, 0, tried).high <= 0.1
    assert difference(0, params.images_per_find, 0, params.images_per_find).high <= 0.1


def test_what_is_promised_can_be_chosen(model: State) -> None:
    one = EraseParams.parse({"method": "robust", "robust": {"promises": ["derived-embedding"]}})
    assert set(searched(one)) == {"cigarette.derived-embedding", "pistol.derived-embedding"}
    none = params_of("robust", promises=[])
    assert not searched(none)
    plan = Erase().plan(none, SCOPE, model)
    assert any(note.startswith("nothing is promised of searches") for note in plan.notes)
    with pytest.raises(ValueError, match="an attack is named twice"):
        EraseParams.parse({"method": "robust", "robust": {"promises": ["derived-embedding"] * 2}})


@pytest.mark.parametrize(
    ("family", "promised"),
    [
        ("stable-diffusion-1", ("derived-embedding", "concept-inversion")),
        ("stable-diffusion-xl", ("derived-embedding", "concept-inversion")),
        ("stable-diffusion-3", ()),
        ("pixart", ()),
    ],
)
def test_what_does_not_run_on_a_family_is_not_promised(tmp_path: Path, family: str, promised: tuple[str, ...]) -> None:
    found = Erase().decide(params_of("robust"), SCOPE, open_model(TINY[family](tmp_path / "model")))
    assert found.robust is not None
    assert found.robust.promises == promised


def test_pictures_of_unsafe_concepts_are_never_searched_with(model: State) -> None:
    scope = Scope(concepts=(UNSAFE,), keep=SCOPE.keep)
    params = EraseParams(method="robust", targets={"nude": "dog"})
    assert set(searched(params, scope)) == {"nude.derived-embedding"}
    notes = Erase().plan(params, scope, model).notes
    assert any(note.startswith("nude: concept-inversion is never run") for note in notes)
    assert not any(
        "never run" in note for note in Erase().plan(EraseParams(method="robust", targets=TARGETS), SCOPE, model).notes
    )
