"""``publisher plan``: what a release would do, without torch and without the model's weights in memory."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from publisher.cli import output
from publisher.cli.options import out_option, policy_option, work_option
from publisher.cli.plugins import aside_line, set_aside
from publisher.errors import ExitCode, ManifestError, PublisherError, UsageError
from publisher.text import printable

if TYPE_CHECKING:
    from publisher.ci import Annotation
    from publisher.engine.plan import PlannedStep
    from publisher.evaluate.context import ReleaseScorer
    from publisher.evaluate.plan import CheckPlan
    from publisher.policy import LoadedPolicy
    from publisher.release.prepare import PreparedRelease

WIDTH = 112
"""Columns of the lines that say what a step decided."""
DECIDES = "      decides "
WORST_FIRST = (ExitCode.USAGE, ExitCode.REFUSED, ExitCode.UNDECIDED, ExitCode.INCONCLUSIVE)
"""Of several manifests' exit codes the first one of these is the command's."""
MANY_STEPS = 2000
"""Training steps from which the plan warns: minutes for the smallest models, hours for large ones."""


@click.command()
@click.argument("manifests", metavar="MANIFEST...", type=click.Path(path_type=Path), nargs=-1, required=True)
@out_option
@work_option
@policy_option
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "github", "sarif"]),
    help="json: one document; github: annotations of a log; sarif: for code scanning.  [default: text]",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document: the same as --format json.")
def plan(
    manifests: tuple[Path, ...], *, out: Path, work: Path | None, policy: Path | None, form: str | None, as_json: bool
) -> int:
    """Show what a release would do: steps, changed tensors, what is cached, checks, samples, disk.

    Nothing is fetched and no weights are loaded. Plugins that were set aside are named with the reason. A gate that so
    few images cannot decide is named, and the exit code is then 4: such a release could not pass.

    All manifests are planned, also after a bad one. json, github and sarif say on stdout what is wrong with a manifest,
    each problem with its line; text says it on stderr.

    \b
    Examples:
      publisher plan manifests/quickstart.yaml
      publisher plan manifest.yaml --json
      publisher plan manifests/*.yaml --format github

    With --policy the plan is held to it: what a release of this manifest would break is said with the policy's line.

    Exit codes: 0 could pass; 1 the policy would refuse it; 2 edit a manifest, where a test that the policy requires may
    be missing, or the command; 3 could not decide; 4 too little would be measured. Of several the first of 2, 1, 3, 4.
    """
    from publisher.policy import load_policy

    if as_json and form not in (None, "json"):
        raise UsageError(f"--json and --format {form} exclude each other", hint="Leave one of them out.")
    rules = load_policy(policy) if policy else None
    if not as_json and form in (None, "text") and len(manifests) == 1:
        return _shown(_planned(manifests[0], out, work, rules))
    attempts = [_attempt(path, out, work, rules) for path in manifests]
    code = _worst(attempt.code for attempt in attempts)
    if as_json or form == "json":
        entries = [attempt.as_json() for attempt in attempts]
        output.document(entries[0] if len(entries) == 1 else {"manifests": entries, "exit_code": int(code)})
    elif form in (None, "text"):
        _text_of_several(attempts)
    else:
        output.file(_placed(attempts, form or ""))
    return code


def _worst(codes: Iterable[ExitCode]) -> ExitCode:
    found = set(codes)
    return next((code for code in WORST_FIRST if code in found), ExitCode.OK)


def code_of(data: dict[str, Any]) -> ExitCode:
    """Return the exit code of a plan."""
    breaches = data.get("policy", {}).get("breaches", ())
    codes = [ExitCode.USAGE if breach["absent"] else ExitCode.REFUSED for breach in breaches]
    return _worst([*codes, *([ExitCode.INCONCLUSIVE] if data["undecidable"] else [])])


@dataclass(frozen=True)
class PlanAttempt:
    """What came of planning one manifest."""

    path: Path
    data: dict[str, Any] | None
    """The plan as JSON data; None: there is none."""
    error: PublisherError | None
    """Reason why there is none."""

    @property
    def code(self) -> ExitCode:
        """The exit code of this manifest alone."""
        return self.error.exit_code if self.error is not None else code_of(self.data or {})

    def as_json(self) -> dict[str, Any]:
        """Return the plan, or what is wrong, with the manifest's path and exit code."""
        return {
            "manifest": str(self.path),
            "exit_code": int(self.code),
            "problems": _problems(self.error),
            **(self.data or {}),
        }


def _planned(path: Path, out: Path, work: Path | None, rules: LoadedPolicy | None) -> dict[str, Any]:
    from publisher.policy import judge_facts
    from publisher.release.prepare import planned_facts, prepare

    prepared = prepare(path, work or out / ".work", fetch=False, out=out)
    answer = judge_facts(rules, planned_facts(prepared)) if rules else None
    return as_data(prepared) | ({"policy": answer.as_json()} if answer else {})


def _attempt(path: Path, out: Path, work: Path | None, rules: LoadedPolicy | None) -> PlanAttempt:
    try:
        return PlanAttempt(path, _planned(path, out, work, rules), None)
    except PublisherError as error:
        return PlanAttempt(path, None, error)


def _shown(data: dict[str, Any]) -> int:
    output.result(as_text(data))
    return code_of(data)


def _text_of_several(attempts: Sequence[PlanAttempt]) -> None:
    for attempt in attempts:
        if attempt.error is not None:
            output.note(f"Error: {attempt.error}")
    texts = [f"{one.path}\n{as_text(one.data)}" for one in attempts if one.data is not None]
    if texts:
        output.result("\n\n".join(texts))


def _problems(error: PublisherError | None) -> list[dict[str, Any]]:
    """Return every problem with its place; of an error without lines, where and what it is."""
    if error is None:
        return []
    if isinstance(error, ManifestError):
        return [
            {"file": error.path, "line": one.line, "column": one.column, "message": one.message, "hint": one.hint}
            for one in error.problems
        ]
    return [{"file": error.where, "line": None, "column": None, "message": error.what, "hint": error.hint}]


def _placed(attempts: Sequence[PlanAttempt], form: str) -> bytes:
    """Return what is wrong with the manifests as annotations of a log, or as SARIF."""
    from publisher.ci import Rule, annotate, as_sarif

    found = [_without_secrets(one) for attempt in attempts for one in _annotations(attempt)]
    if form == "github":
        return annotate(found)
    rules = [
        Rule(check["id"], claim["sentence"])
        for attempt in attempts
        for claim in (attempt.data or {"claims": []})["claims"]
        for check in claim["checks"]
    ]
    return as_sarif(found, rules, "plan")


def _without_secrets(one: Annotation) -> Annotation:
    """Return the annotation without what was given in the wrong place, such as a key for a manifest's path."""
    site = replace(one.site, file=output.without_secrets(one.site.file)) if one.site else None
    title, message = output.without_secrets(one.title), output.without_secrets(one.message)
    return replace(one, site=site, title=title, message=message)


def _annotations(attempt: PlanAttempt) -> list[Annotation]:
    from publisher.ci import of_error, of_plan, of_policy
    from publisher.ci.places import Sites
    from publisher.manifest.loader import read_bytes

    if attempt.data is None or attempt.error is not None:
        return of_error(attempt.error, attempt.path) if attempt.error else []
    claims = attempt.data["claims"]
    undecidable = {
        check["id"]: (check["undecidable"], claim["steps"])
        for claim in claims
        for check in claim["checks"]
        if check["id"] in attempt.data["undecidable"]
    }
    undecidable |= {claim["id"]: ("no check tests it", claim["steps"]) for claim in claims if not claim["checks"]}
    sites = Sites(attempt.path, read_bytes(attempt.path))
    found = of_plan(attempt.data["name"], undecidable, attempt.data["warnings"], sites)
    return [*found, *of_policy(attempt.data.get("policy"), attempt.data["name"])]


def as_data(prepared: PreparedRelease) -> dict[str, Any]:
    """Return the plan as JSON data."""
    about, model, retrained = prepared.resolved.release, prepared.model, prepared.resolved.evaluate.retrained
    plans = {check.check: check for check in prepared.checks}
    claims = [
        {
            "id": item.claim.id,
            "steps": list(item.steps),
            "sentence": item.claim.sentence,
            "checks": [
                {
                    "id": check.id,
                    "attack": check.attack,
                    "metric": check.metric,
                    "gate": check.gate.sentence() if check.gate else "no gate, reported",
                    "membranes": check.membranes,
                    "images": sum(plans[check.id].samples.values()),
                    "models": plans[check.id].models,
                    "trainings": plans[check.id].trainings,
                    "training_steps": plans[check.id].steps,
                    **_search(plans[check.id]),
                    "prompts": plans[check.id].prompts,
                    "refused_prompts": plans[check.id].refused,
                    "undecidable": plans[check.id].undecidable,
                }
                for check in item.claim.checks
            ],
        }
        for item in prepared.claims
    ]
    return {
        "name": about.name,
        "version": about.version,
        "model": {
            "source": prepared.resolved.model,
            "here": model is not None,
            "family": model.family.name if model else None,
            "digest": model.folder.digest if model else None,
            "parameters": model.folder.parameters if model else None,
            "bytes": model.folder.bytes if model else None,
            "left_out": list(model.folder.ignored) if model else [],
        },
        "retrained": {"source": retrained, "here": prepared.retrained is not None} if retrained else None,
        "device": str(prepared.device),
        "steps": [_step(step) for step in prepared.steps],
        "warnings": list(prepared.warnings),
        "set_aside": set_aside(prepared.registry),
        "judges": [
            _judge(scorer, decides=scorer.id not in prepared.tools.second) for scorer in prepared.tools.scorers.values()
        ],
        "claims": claims,
        "images_of_each_model": prepared.images["base"],
        "images_without_membranes": prepared.images["off"],
        "images_of_altered_models": prepared.images["altered"],
        "trainings": sum(check.trainings for check in prepared.checks),
        "training_steps": sum(check.steps for check in prepared.checks),
        "disk_bytes": prepared.disk,
        "undecidable": [check.check for check in prepared.open_checks]
        + [claim["id"] for claim in claims if not claim["checks"]],
    }


def _search(plan: CheckPlan) -> dict[str, Any]:
    """Return what a search spends at most; nothing of other checks."""
    if plan.limits is None:
        return {}
    return {"search": plan.limits.as_json(), "seconds": None if plan.seconds is None else round(plan.seconds, 1)}


def _judge(scorer: ReleaseScorer, *, decides: bool) -> dict[str, Any]:
    return {
        "id": scorer.id,
        "use": scorer.scorer.name,
        "version": scorer.scorer.version,
        "kinds": list(scorer.kinds),
        "decides": decides,
        "calibrated": [sheet.label for sheet in scorer.sheets.values()],
    }


def _step(step: PlannedStep) -> dict[str, Any]:
    changes = step.plan.changes if step.plan else None
    return {
        "id": step.identity.id,
        "use": step.identity.name,
        "version": step.identity.version,
        "summary": step.step.summary,
        "decided": dict(step.decided),
        "concepts": [concept.id for concept in step.identity.scope.concepts],
        "changes": {component: len(names) for component, names in changes.items()} if changes is not None else None,
        "tensors": {component: list(names) for component, names in changes.items()} if changes is not None else None,
        "artifacts": list(step.plan.artifacts) if step.plan else [],
        "credits": [credit.sentence() for credit in step.step.credits(step.params)],
        "missing": list(step.missing),
        "draws": list(step.plan.draws) if step.plan else [],
        "cached": step.cached,
        "notes": list(step.plan.notes) if step.plan else [],
    }


def as_text(data: dict[str, Any]) -> str:
    """Return the plan for people."""
    model = data["model"]
    lines = [f"{data['name']} {data['version']}", "", f"model   {model['source']}"]
    if model["here"]:
        lines.append(f"        {model['family']}, {model['parameters']:,} parameters, {_size(model['bytes'])}")
        lines.append(f"        sha256 {model['digest']}")
    else:
        lines.append("        not on this machine: the release would fetch it; tensors and cache are not known yet")
    lines += [f"        left out: {name} (no step edits it)" for name in model["left_out"]]
    if data["retrained"]:
        here = "" if data["retrained"]["here"] else ", not on this machine: the release would fetch it"
        lines.append(f"retrained    {data['retrained']['source']}{here}")
    lines += [f"device  {data['device']}", "", "steps"]
    for step in data["steps"]:
        lines += _step_lines(step)
    lines += [f"  warning: {warning}" for warning in data["warnings"]]
    lines += ["", "plugins", *(f"  {aside_line(one)}" for one in data["set_aside"])] if data["set_aside"] else []
    lines += ["", f"judges  {'; '.join(map(_judged, data['judges'])) or 'nobody: claims about images are unknown'}"]
    lines += ["", "claims"]
    for claim in data["claims"]:
        lines += _claim_lines(claim)
    lines += ["", f"images  {data['images_of_each_model']} of the base model and as many of the hardened one"]
    if data["images_without_membranes"]:
        lines.append(
            f"        {data['images_without_membranes']} of them without membranes, where the package has some"
        )
    if data["images_of_altered_models"]:
        lines.append(f"        {data['images_of_altered_models']} of models whose weights an attacker changed")
    lines += _training_lines(data)
    lines += _searching_lines(data)
    if data["disk_bytes"] is not None:
        lines.append(f"disk    {_size(data['disk_bytes'])} for the package and the steps' results, and the images")
    lines += _policy_lines(data["policy"]) if "policy" in data else []
    if data["undecidable"]:
        lines += ["", f"Cannot be decided: {', '.join(data['undecidable'])}. This release could not pass."]
    return "\n".join(map(printable, lines))


def _policy_lines(policy: dict[str, Any]) -> list[str]:
    file = policy["file"]
    lines = [f"  {file}:{one['line']}:{one['column']}: {one['message']}" for one in policy["breaches"]]
    lines += [f"  {check}: {waiver['sentence']}" for check, waiver in policy["waived"].items()]
    return ["", f"policy  {file}: {'broken' if policy['breaches'] else 'kept, as far as a plan can tell'}", *lines]


def _training_lines(data: dict[str, Any]) -> list[str]:
    if not data["trainings"]:
        return []
    lines = [
        f"trials  {data['trainings']} with {data['training_steps']:,} training steps at most; equal ones are made once"
    ]
    if data["training_steps"] > MANY_STEPS:
        lines.append(
            "        this takes long: time a few steps of your model on this device, or lower seeds, evaluation_steps"
            " or controls in attack_params"
        )
    return lines


def _searching_lines(data: dict[str, Any]) -> list[str]:
    """Say what all searches spend together, and how long that took here before."""
    found = [check for claim in data["claims"] for check in claim["checks"] if "search" in check]
    if not found:
        return []
    sums = {name: sum(check["search"][name] for check in found) for name in found[0]["search"]}
    spent = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in sums.items() if count)
    took = [check["seconds"] for check in found if check["seconds"] is not None]
    known = f"about {sum(took):.0f} s for {len(took)} of them, by what earlier ones took here"
    return [
        f"search  {len(found)} checks: at most {spent}, and the images that judge what they find",
        f"        {known if took else 'how long is not known before the first one was made in this work folder'}",
    ]


def _step_lines(step: dict[str, Any]) -> list[str]:
    changes = step["changes"]
    counted = ", ".join(f"{count} tensors of {part}" for part, count in (changes or {}).items()) or "no tensor"
    what = "unknown" if changes is None else counted
    cached = "   (finished: in the work folder)" if step["cached"] else ""
    lines = [f"  {step['id']}   {step['use']} {step['version']} on {', '.join(step['concepts'])}{cached}"]
    lines += [f"      {step['summary']}"] if step["summary"] else []
    decided = "; ".join(f"{name}: {_value(value)}" for name, value in step["decided"].items())
    indent = " " * len(DECIDES)
    lines += textwrap.wrap(decided, WIDTH, initial_indent=DECIDES, subsequent_indent=indent, break_on_hyphens=False)
    lines += [f"      made elsewhere: {credit}" for credit in step["credits"]]
    lines += [f"      {name} is not on this machine: the release would fetch it" for name in step["missing"]]
    lines.append(f"      changes {what}" + "".join(f", adds {name}" for name in step["artifacts"]))
    if step["draws"] and not step["cached"]:
        lines.append(f"      is run if the base model shows {', '.join(step['draws'])}: the release looks first")
    return lines + [f"      note: {note}" for note in step["notes"]]


def _judged(judge: dict[str, Any]) -> str:
    """Say who judges what, such as ``emoji 1: object, style``, and about what it is calibrated."""
    name = judge["use"] if judge["id"] == judge["use"] else f"{judge['id']} ({judge['use']})"
    sheets = f" (calibrated about {', '.join(judge['calibrated'])})" if judge["calibrated"] else ""
    second = "" if judge["decides"] else " (second opinion)"
    return f"{name} {judge['version']}: {', '.join(judge['kinds'])}{sheets}{second}"


def _value(value: Any) -> str:
    """Return a decided parameter as a manifest would have it."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_value(one)}' for key, one in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    return value if isinstance(value, str) and value else json.dumps(value)


def _claim_lines(claim: dict[str, Any]) -> list[str]:
    several = f" (steps {', '.join(claim['steps'])})" if len(claim["steps"]) > 1 else ""
    lines = [f"  {claim['id']}: {claim['sentence']}{several}"]
    if not claim["checks"]:
        lines.append("      no check: the claim can only be unknown")
    for check in claim["checks"]:
        asked = f"{check['images']} images of {check['prompts']} prompts"
        if check["trainings"]:
            steps = f"{check['trainings']} trials with {check['training_steps']:,} steps"
            asked = f"{steps} on {check['models']} models, {asked} of each model"
        if "search" in check:
            counts = {name.replace("_", " "): count for name, count in check["search"].items() if count}
            spent = ", ".join(f"{count:,} {name}" for name, count in counts.items())
            asked = f"search on {check['models']} models: at most {spent}; {check['images']} images to judge each"
            asked += "" if check["seconds"] is None else f"; about {check['seconds']:.0f} s here"
        bare = ", without membranes" if check["membranes"] == "off" else ""
        lines.append(f"      {check['id']}   {check['attack']} > {check['metric']}: {check['gate']}   {asked}{bare}")
        if check["refused_prompts"]:
            lines.append(f"          {check['refused_prompts']} prompts are never generated and were left out")
        if check["undecidable"]:
            lines.append(f"          cannot be decided: {check['undecidable']}")
    return lines


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
