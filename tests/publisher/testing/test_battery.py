"""The contract finds what a plugin does wrong, and names the rule."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from publisher import api
from publisher.testing import contract
from publisher.testing.battery import rules_of
from publisher.testing.plugin import PluginUnderTest
from publisher.testing.running import StoppedError


class PlainParams(api.Params):
    by: float = 0.5
    """Factor."""


class Plain(api.Step[PlainParams]):
    """Multiplies the values of cross-attention; right in every way."""

    name, version, summary = "plain-step", "1", "multiplies"

    def claims(self, params: PlainParams, scope: api.Scope) -> list[api.Claim]:
        check = api.Check(id="gone", attack="plain", metric="concept-rate", concepts=(scope.concepts[0].id,))
        return [api.Claim(id="gone", sentence="it is gone", binds="in-weights", checks=(check,))]

    def plan(self, params: PlainParams, scope: api.Scope, model: api.ModelInfo) -> api.StepPlan:
        return api.StepPlan({"unet": [f"{layer}.to_v.weight" for layer in api.cross_attention(model)]})

    def run(self, params: PlainParams, ctx: api.StepContext) -> None:
        for done, name in enumerate(self.plan(params, ctx.scope, ctx.model).changes["unet"], 1):
            ctx.write("unet", name, self.changed(ctx.model.read("unet", name), ctx, params))
            ctx.progress(done, 3)

    def changed(self, weight: torch.Tensor, ctx: api.StepContext, params: PlainParams) -> torch.Tensor:
        return weight * params.by


def step(**methods: Any) -> type[Plain]:
    """Return the step with other methods."""
    return type("Other", (Plain,), {"__doc__": "Does something else.", "__module__": __name__, **methods})


def claims_of(**changes: Any) -> Callable[..., list[api.Claim]]:
    def claims(self: Plain, params: PlainParams, scope: api.Scope) -> list[api.Claim]:
        (claim,) = Plain.claims(self, params, scope)
        checks = tuple(check.model_copy(update=changes) for check in claim.checks)
        return [claim.model_copy(update={"checks": checks})]

    return claims


def writes_more(self: Plain, params: PlainParams, ctx: api.StepContext) -> None:
    Plain.run(self, params, ctx)
    name = next(name for name in ctx.model.tensors("unet") if name.endswith("attn1.to_v.weight"))
    ctx.write("unet", name, ctx.model.read("unet", name) * 2)


def goes_on(self: Plain, params: PlainParams, ctx: api.StepContext) -> None:
    for name in self.plan(params, ctx.scope, ctx.model).changes["unet"]:
        ctx.write("unet", name, ctx.model.read("unet", name) * params.by)
        try:
            ctx.progress(1, 1)
        except StoppedError:
            continue


def counts_runs(self: Plain, params: PlainParams, ctx: api.StepContext) -> None:
    mark = ctx.scratch / "begun"
    factor = 0.5 if mark.exists() else 1.0
    mark.touch()
    for name in self.plan(params, ctx.scope, ctx.model).changes["unet"]:
        ctx.write("unet", name, ctx.model.read("unet", name) * factor)
        ctx.progress(1, 1)


def edits_the_model(self: Plain, params: PlainParams, ctx: api.StepContext) -> None:
    Plain.run(self, params, ctx)
    (ctx.model.folder / "vae" / "config.json").write_text("{}")


def decides_again(self: Plain, params: PlainParams, scope: api.Scope, model: api.ModelInfo) -> PlainParams:
    return params.model_copy(update={"by": params.by / 2})


class Loose(api.Params):
    model_config = {"extra": "ignore"}  # noqa: RUF012 - pydantic's own

    by: float = 0.5
    """Factor."""


class Bare(api.Params):
    by: float = 0.5


def with_params(model: type[api.Params]) -> type[Plain]:
    """Return the step with other parameters."""
    other = step()
    other.Params = model
    return other


BROKEN = {
    "registers": step(name=""),
    "claims-can-be-tested": step(claims=claims_of(metric="concept-rat")),
    "decides-once": step(decide=decides_again),
    "plan-is-what-run-writes": step(run=writes_more),
    "tensors-fit": step(changed=lambda _self, weight, _ctx, _params: weight * float("nan")),
    "same-seed-same-bytes": step(changed=lambda _self, weight, _ctx, _params: weight + torch.rand(weight.shape)),
    "resumes": step(run=counts_runs),
    "input-untouched": step(run=edits_the_model),
    "unknown-keys-refused": with_params(Loose),
    "parameters-described": with_params(Bare),
}


def broken(plugin: type[Any], rule: str, **given: Any) -> str:
    """Return how a plugin breaks one rule; empty: it keeps it."""
    one = PluginUnderTest(plugin, **given)
    try:
        rules_of(one)[rule](one)
    except AssertionError as error:
        return str(error)
    return ""


def all_broken(plugin: type[Any]) -> set[str]:
    """Return the rules that a plugin breaks; a fresh process that imports this module would import torch."""
    return {rule for rule in rules_of(PluginUnderTest(plugin)) if rule != "without-torch" and broken(plugin, rule)}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_step_that_breaks_a_rule_is_told_so(rule: str) -> None:
    assert broken(Plain, rule) == ""
    assert len(broken(BROKEN[rule], rule)) > 20


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"claims": lambda *_: []}, "it claims nothing"),
        ({"claims": claims_of(attack="plane")}, "no attack is called 'plane'"),
        ({"claims": claims_of(scorer="nobody")}, "no scorer is called 'nobody'"),
        ({"claims": claims_of(attack_params={"loud": 1})}, "the attack 'plain' does not take {'loud': 1}"),
        ({"claims": claims_of(concepts=("horse",))}, "the scope has no concept horse"),
    ],
)
def test_claims_that_cannot_be_tested_are_named(changes: dict[str, Any], said: str) -> None:
    assert said in broken(step(**changes), "claims-can-be-tested")


def test_a_step_that_nobody_can_stop_or_that_goes_on_is_told_so() -> None:
    assert "it goes on after ctx.progress raised" in broken(step(run=goes_on), "resumes")
    quiet = step(run=lambda self, params, ctx: Plain.run(self, params, _Quiet(ctx)))
    assert "it never calls ctx.progress" in broken(quiet, "resumes")


class _Quiet:
    """A context that hears of no progress."""

    def __init__(self, ctx: api.StepContext) -> None:
        self._ctx = ctx

    def progress(self, done: int, total: int, text: str = "") -> None:
        """Ignore."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ctx, name)


@pytest.mark.slow
def test_a_module_that_imports_torch_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path(__file__).read_text(encoding="utf-8").partition("def step(")[0]
    (tmp_path / "torch_at_import.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    import torch_at_import  # type: ignore[import-not-found]

    assert "imports torch" in broken(torch_at_import.Plain, "without-torch")


class Twice(api.Attack[api.NoParams]):
    """Asks for one image several times."""

    name, version, summary, access = "twice", "1", "asks twice", api.Access.PROMPT

    def requests(self, params: Any, concept: api.Concept, sampling: api.Sampling) -> list[api.ImageRequest]:
        return [api.ImageRequest(concept="other", prompt="", seed=1, steps=1, guidance=1.0)] * sampling.images


def test_an_attack_that_counts_images_twice_is_told_so() -> None:
    assert all_broken(Twice) == {"no-image-counts-twice", "asks-for-its-concept", "seeds-move"}


class Upside(api.Metric[api.NoParams]):
    """Says that lower is better, and counts what was kept."""

    name, version, better, summary = "upside", "1", "lower", "upside down"

    def measure(self, params: Any, observations: Any) -> api.Measurement:
        kept = sum(not one.hardened for one in observations) / len(observations)
        return api.Measurement(hardened=api.Interval(value=kept, low=0.9, high=kept, n=0, method=""))

    def best(self, params: Any, n: int) -> api.Interval:
        return api.Interval(value=1.0, low=1.0, high=2.0, n=n, method="none")


def test_a_metric_that_is_upside_down_is_told_so() -> None:
    assert all_broken(Upside) == {"interval-holds-the-number", "better-is-better", "best-is-a-bound"}


class Dated(api.ReportFormat):
    """Writes something else each time."""

    name, version, filename, summary = "dated", "1", "../x", "dated"

    def render(self, report: api.ReleaseReport) -> bytes:
        return os.urandom(8)


def test_a_form_of_the_report_that_changes_is_told_so() -> None:
    assert all_broken(Dated) == {"file-has-a-plain-name", "renders-the-same-again"}


def test_a_rule_that_is_expected_to_break_has_to_break_and_be_one_of_its_kind() -> None:
    test = contract(BROKEN["tensors-fit"], expected={"tensors-fit": "it is broken"})
    (mark,) = test.pytestmark  # type: ignore[attr-defined]
    marks = {case.id: [(one.name, one.kwargs) for one in case.marks] for case in mark.args[1]}
    assert marks["tensors-fit"] == [("xfail", {"reason": "it is broken", "strict": True})]
    assert marks["resumes"] == []
    with pytest.raises(api.UsageError, match="has no rule tensors-fitt"):
        contract(Plain, expected={"tensors-fitt": "?"})
    with pytest.raises(api.UsageError, match="is no plugin"):
        contract(dict)
