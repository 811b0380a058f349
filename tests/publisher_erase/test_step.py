from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from erase_fakes import SD1, Context, Headers, concept

from publisher.api import Model, ModelError, Scope, UsageError
from publisher_erase import publisher_register_steps
from publisher_erase.params import EraseParams
from publisher_erase.step import Erase
from publisher_erase.tensors import find_projections

SMOKE = concept("cigarette", synonyms=("smoke", "cig"))
KEEP = tuple(concept(name) for name in ("pencil", "candle", "dog"))
SCOPE = Scope(concepts=(SMOKE,), keep=KEEP)
TO_PIZZA = {"cigarette": "pizza"}


class Damaged(Context):
    """A context whose model has one projection replaced."""

    def __init__(self, scope: Scope, model: Model, change: Any) -> None:
        super().__init__(scope, model)
        self.model = Replaced(model, change)  # type: ignore[assignment]


class Replaced:
    """A model in which every projection has gone through a function."""

    def __init__(self, model: Model, change: Any) -> None:
        self._model, self._change = model, change

    def read(self, component: str, name: str) -> torch.Tensor:
        found: torch.Tensor = self._change(self._model.read(component, name))
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def run(ctx: Context, **params: Any) -> Context:
    Erase().run(EraseParams(**params), ctx)
    return ctx


def test_the_plugin_registers_the_step() -> None:
    assert publisher_register_steps() == (Erase,)
    assert Erase.Params is EraseParams


def test_the_plan_lists_exactly_what_is_written(embedded: Model) -> None:
    ctx = run(Context(SCOPE, embedded), targets=TO_PIZZA)
    plan = Erase().plan(EraseParams(targets=TO_PIZZA), SCOPE, embedded)
    assert {"unet": tuple(sorted(ctx.written))} == dict(plan.changes)
    assert ctx.numbers["projections"] == len(ctx.written)


def test_every_projection_changes_and_keeps_shape_and_dtype(embedded: Model) -> None:
    ctx = run(Context(SCOPE, embedded))
    for name, tensor in ctx.written.items():
        before = embedded.read("unet", name)
        assert tensor.dtype == before.dtype
        assert not torch.equal(tensor, before)


@pytest.mark.parametrize("method", ["uce", "rece"])
@pytest.mark.parametrize("rows", ["content", "mean-pad", "last-eos", "last", "tail", "all"])
def test_every_method_and_rule_comes_nearer_to_the_target(embedded: Model, method: str, rows: str) -> None:
    ctx = run(Context(SCOPE, embedded), targets=TO_PIZZA, method=method, rows=rows, preserve_scale=0.1)
    assert ctx.numbers["residual"] < (0.15 if method == "uce" else 1)
    assert 0 < ctx.numbers["unconditional drift"] < 0.5


@pytest.mark.parametrize("method", ["uce", "rece"])
def test_the_same_run_gives_the_same_bytes(embedded: Model, method: str) -> None:
    first, second = (run(Context(SCOPE, embedded), method=method).written for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_progress_counts_prompts_and_then_projections(embedded: Model) -> None:
    steps, names = run(Context(SCOPE, embedded)).steps, len(find_projections(embedded))
    prompts, writing = steps[1 : -names - 1], steps[-names - 1 :]
    assert prompts == sorted(prompts)
    assert prompts[-1][0] == prompts[-1][1] > 0
    assert writing == [(done, names) for done in range(names + 1)]


def test_authors_lambda_is_absolute(embedded: Model) -> None:
    relative, absolute, far = (
        run(Context(SCOPE, embedded), lam=lam, lam_scale=scale).numbers["residual"]
        for lam, scale in ((0.5, "relative"), (0.5, "absolute"), (1e6, "absolute"))
    )
    assert absolute < relative < far
    assert far > 0.99


def test_synonyms_are_rows_only_when_asked_for(embedded: Model) -> None:
    without, with_them = (
        run(Context(SCOPE, embedded), synonyms=flag).numbers["rank of the edit"] for flag in (False, True)
    )
    assert (without, with_them) == (3, 9)


def test_an_already_edited_model_is_warned_about(embedded: Model) -> None:
    plain = run(Context(SCOPE, embedded), targets=TO_PIZZA, preserve_scale=0.0)
    again = Context(SCOPE, embedded)
    names = iter(sorted(plain.written))
    again.model = Replaced(embedded, lambda _: plain.written[next(names)])  # type: ignore[assignment]
    run(again, targets=TO_PIZZA)
    assert not plain.warnings
    assert "already read much like their targets" in again.warnings[0]


@pytest.mark.parametrize("method", ["uce", "rece"])
def test_weights_that_are_not_finite_are_refused(embedded: Model, method: str) -> None:
    broken = Damaged(SCOPE, embedded, lambda weight: weight * float("nan"))
    with pytest.raises(ModelError, match="NaN or infinity"):
        run(broken, method=method)
    assert not broken.written


def test_an_overflow_of_half_precision_is_refused(embedded: Model) -> None:
    """Give targets whose outputs do not fit into float16: the projections are at its limit already."""
    huge = Damaged(SCOPE, embedded, lambda weight: (weight.sign() * 65_000).half())
    with pytest.raises(ModelError, match=r"NaN or infinity \(torch.float16\)"):
        run(huge, lam=1e-6)


def test_half_precision_is_edited_in_float32_and_cast_once(embedded: Model) -> None:
    wide = run(Context(SCOPE, embedded)).written
    half = run(Damaged(SCOPE, embedded, torch.Tensor.half)).written
    for name, tensor in half.items():
        assert tensor.dtype == torch.float16
        assert float((tensor.float() - wide[name]).abs().max()) < 1e-3 * float(wide[name].abs().max())


def test_contradictions_are_refused_before_anything_is_written(embedded: Model) -> None:
    ctx = Context(Scope(concepts=(SMOKE,), keep=(SMOKE,)), embedded)
    with pytest.raises(UsageError, match="has to be kept"):
        run(ctx)
    assert not ctx.written


def test_warnings_of_the_plan_are_given_by_the_run_as_well(embedded: Model) -> None:
    two = Scope(concepts=(SMOKE, concept("pistol")))
    plan = Erase().plan(EraseParams(), two, embedded)
    assert "nothing to keep" in plan.notes[0]
    assert run(Context(two, embedded)).warnings == list(plan.notes)


def test_the_pooled_vector_is_named_as_a_leak() -> None:
    xl = replace(SD1, family="stable-diffusion-xl", pooled_text=True)
    notes = Erase().plan(EraseParams(), SCOPE, Headers(anatomy=xl)).notes
    assert any("pooled text vector" in note for note in notes)


def test_claims_are_made_for_what_is_there() -> None:
    bare = concept("pistol")
    ids = [claim.id for claim in Erase().claims(EraseParams(), Scope(concepts=(SMOKE, bare), keep=KEEP))]
    assert ids == ["cigarette.plain", "pistol.plain", "cigarette.paraphrase", "kept", "unconditional"]
    assert [claim.id for claim in Erase().claims(EraseParams(), Scope(concepts=(bare,)))] == [
        "pistol.plain",
        "unconditional",
    ]


def test_claims_name_their_limits_and_use_registered_checks() -> None:
    from publisher.builtin.attacks.asking import ASKING
    from publisher.builtin.metrics import METRICS

    attacks, metrics = {attack.name for attack in ASKING}, {metric.name for metric in METRICS}
    for claim in Erase().claims(EraseParams(), SCOPE):
        assert claim.limits
        assert claim.binds == "in-weights"
        for check in claim.checks:
            assert check.attack in attacks
            assert check.metric in metrics


def test_parameters_survive_json_and_are_all_described() -> None:
    params = EraseParams(targets=TO_PIZZA, method="rece", epochs=3)
    assert EraseParams.parse(params.as_json()) == params
    assert all(field.get("description") for field in EraseParams.model_json_schema()["properties"].values())


@pytest.mark.parametrize(
    "bad",
    [
        {"lam": 0},
        {"rho": 0},
        {"erase_scale": -1},
        {"preserve_scale": -1},
        {"epochs": 6},
        {"epochs": -1},
        {"concepts": ["a", "a"]},
        {"rows": "some"},
        {"lam": "1e-3"},
        {"lambda": 1},
    ],
)
def test_parameters_outside_their_range_are_refused(bad: dict[str, Any]) -> None:
    from pydantic import ValidationError

    with pytest.raises(ValidationError):
        EraseParams.parse(bad)
