"""Rules of steps. A step is run on a very small model: twice with one seed, and once more with a stop in the middle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from publisher.api import Check, Claim, ModelError
from publisher.engine.run import stamps
from publisher.model.digest import sha256_file
from publisher.registry import load_registry
from publisher.testing.plugin import BrokenRuleError, PluginUnderTest, Rule, demand, new_folder

if TYPE_CHECKING:
    from pathlib import Path

    from publisher.testing.running import CountingProgress, WatchedStep


def decided(one: PluginUnderTest) -> Any:
    """Return the parameters as the step decides them for its model."""
    return one.make().decide(one.params, one.scope, one.model.base)


def decides_once(one: PluginUnderTest) -> None:
    """Demand that decided parameters stay as they are, and survive JSON: they stand in the key of the result."""
    first = decided(one)
    again = one.make().decide(type(first).parse(first.as_json()), one.scope, one.model.base)
    demand(again == first, f"it decides {first!r}, and {again!r} when it is asked again with these")


def claims_can_be_tested(one: PluginUnderTest) -> None:
    """Demand claims with checks, whose attacks, metrics, scorers and concepts exist, and take the parameters given."""
    claims = list(one.make().claims(decided(one), one.scope))
    demand(claims, "it claims nothing: a step says what it is good for, and how to test it")
    demand(len({claim.id for claim in claims}) == len(claims), "two of its claims have one id")
    bare = [claim.id for claim in claims if not claim.checks]
    demand(not bare, f"no check tests the claim {', '.join(bare)}: it would end as unknown, and nothing be signed")
    problems = [problem for claim in claims for check in claim.checks for problem in _problems(claim, check, one)]
    demand(not problems, "\n".join(problems))


def _problems(claim: Claim, check: Check, one: PluginUnderTest) -> list[str]:
    registry, found = load_registry(), []
    for kind, name, params in (
        ("attack", check.attack, check.attack_params),
        ("metric", check.metric, check.metric_params),
        *((("scorer", check.scorer, None),) if check.scorer else ()),
    ):
        if name not in registry.names(kind):
            found.append(f"{claim.id}: no {kind} is called {name!r}; there are: {', '.join(registry.names(kind))}")
        elif params is not None:
            try:
                registry.get(kind, name).cls.Params.parse(params)
            except ValidationError as error:
                found.append(f"{claim.id}: the {kind} {name!r} does not take {params!r}: {error}")
    known = {concept.id for concept in (*one.scope.concepts, *one.scope.keep)}
    strangers = sorted(set(check.concepts) - known)
    return found + ([f"{claim.id}: the scope has no concept {', '.join(strangers)}"] if strangers else [])


def plan_is_what_run_writes(one: PluginUnderTest) -> None:
    """Demand that the plan names exactly the tensors and artifacts that the run writes."""
    plan = one.make().plan(decided(one), one.scope, one.model)
    planned = {(part, name) for part, names in plan.changes.items() for name in names}
    ran = _first(one)
    demand(
        planned == ran.tried and sorted(plan.artifacts) == sorted(ran.artifacts),
        f"planned and not written: {_some(planned - ran.tried)}; "
        f"written and not planned: {_some(ran.tried - planned)}; "
        f"artifacts planned: {sorted(plan.artifacts)}, written: {sorted(ran.artifacts)}",
    )
    demand(ran.tried or ran.artifacts, "it changes no tensor and adds no artifact")


def _some(names: set[tuple[str, str]]) -> str:
    shown = [f"{part}/{name}" for part, name in sorted(names)[:3]]
    return ", ".join(shown) + (f" and {len(names) - 3} more" if len(names) > 3 else "") if names else "none"


def tensors_fit(one: PluginUnderTest) -> None:
    """Demand that a tensor keeps its shape and type, and has neither NaN nor infinity."""
    refused = _first(one).refused
    demand(not refused, "\n".join(refused[:5]))


def same_seed_same_bytes(one: PluginUnderTest) -> None:
    """Demand that two runs with one seed give the same bytes, whatever state torch's own generator is in."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12345)
        again = _run(one, new_folder())
    _demand_equal(_first(one), again, "a second run with the same seed")


def resumes(one: PluginUnderTest) -> None:
    """Demand that a run that was stopped in its middle, and is begun again, gives the same bytes."""
    from publisher.testing.running import CountingProgress, StoppedError

    _first(one)
    told = one.results["told"]
    demand(told, "it never calls ctx.progress: nobody sees how far it is, and no test can stop it on the way")
    scratch = new_folder()
    try:
        _run(one, scratch, CountingProgress(last=max(1, told // 2)))
    except StoppedError:
        _demand_equal(_first(one), _run(one, scratch), "a run that was stopped and resumed")
        return
    raise BrokenRuleError("it goes on after ctx.progress raised: let what it raises pass")


def input_untouched(one: PluginUnderTest) -> None:
    """Demand that no file of the model is touched: a step writes by ctx.write alone."""
    before = one.results.get("files") or (_first(one), one.results["files"])[1]
    demand(before == _files(one), "it wrote into the folder of the model that it was given: use ctx.write")


def _files(one: PluginUnderTest) -> dict[str, object]:
    state = one.model
    return {name: (stamps(state)[name], sha256_file(path)) for name, path in state.base.files.items()}


def _first(one: PluginUnderTest) -> WatchedStep:
    """Run the step once; every rule reads this run."""
    from publisher.testing.running import CountingProgress

    if "first" not in one.results:
        progress = CountingProgress()
        one.results["files"] = _files(one)
        one.results["first"] = _run(one, new_folder(), progress)
        one.results["told"] = progress.told
    found: WatchedStep = one.results["first"]
    return found


def _run(one: PluginUnderTest, scratch: Path, progress: CountingProgress | None = None) -> WatchedStep:
    from publisher.testing.running import context_of

    step = one.make()
    try:
        one.model.anatomy.require(step.requires.needs, f"step {step.name!r}")
        params = step.decide(one.params, one.scope, one.model.base)
        step.plan(params, one.scope, one.model)
    except ModelError as error:
        raise BrokenRuleError(f"it cannot work on this model: {error}\nGive contract(..., model=FOLDER).") from error
    ctx = context_of(one.plugin, params, one.model, one.scope, scratch, progress=progress)
    step.run(params, ctx)
    return ctx


def _demand_equal(first: WatchedStep, again: WatchedStep, what: str) -> None:
    ours, theirs = first.result, again.result
    other: Sequence[str] = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
    demand(not other, f"{what} gives another {', '.join(other[:3])}: take random numbers from ctx.generator alone")


RULES: dict[str, Rule] = {
    "decides-once": decides_once,
    "claims-can-be-tested": claims_can_be_tested,
    "plan-is-what-run-writes": plan_is_what_run_writes,
    "tensors-fit": tensors_fit,
    "same-seed-same-bytes": same_seed_same_bytes,
    "resumes": resumes,
    "input-untouched": input_untouched,
}
