"""What a report says, in words; and never better than its numbers bear out."""

from __future__ import annotations

from collections.abc import Sequence

from publisher.api import CheckRecord, ClaimRecord, MatrixCell, ReleaseReport, Verdict
from publisher.api.searching import tells_nothing
from publisher.api.verdicts import judge, lower, of_claim, overall
from publisher.report.wording import ALONE, count

DECISIONS: dict[Verdict, str] = {
    "passed": "Released",
    "failed": "Refused",
    "unknown": "Inconclusive",
    "reported": "Reported",
}
TESTED: dict[Verdict, str] = {
    "passed": "Holds",
    "failed": "Fails",
    "unknown": "Inconclusive",
    "reported": "Reported",
}
"""The same of a model that was tested as it is."""
SYMBOLS: dict[Verdict, str] = {"passed": "\u2713", "failed": "\u2717", "unknown": "?", "reported": "\u2022"}


def check_verdict(check: CheckRecord) -> Verdict:
    """Return the recorded verdict, or a lesser one where the numbers or their absence demand it."""
    if check.measurement is None:
        return lower(check.verdict, "unknown")
    if check.searches and check.verdict == "reported" and tells_nothing(check.measurement):
        return "reported"
    return lower(check.verdict, judge(check.gate, check.measurement)[0])


def title(check: CheckRecord) -> str:
    """Return the check's id, and that it is about the weights alone."""
    return check.id if check.attached else f"{check.id} ({ALONE})"


def claim_verdict(claim: ClaimRecord) -> Verdict:
    """Return the lesser of what is recorded and what the claim's checks say; without checks never *passed*."""
    checks = ((check.gate, check_verdict(check)) for check in claim.checks)
    return lower(claim.verdict, of_claim(checks, discloses=claim.discloses))


def decision(report: ReleaseReport) -> Verdict:
    """Return the lesser of what is recorded and what all claims say; without promises never *passed*."""
    return lower(report.decision, overall(map(claim_verdict, report.claims)))


def decision_word(report: ReleaseReport) -> str:
    """Return the decision in one word: ``"Released"``; ``"Holds"`` of a model that was tested as it is."""
    return (TESTED if report.tested else DECISIONS)[decision(report)]


def word(claim: ClaimRecord) -> str:
    """Return the claim's verdict in one word; ``"unverified"`` where nothing tests it."""
    verdict = claim_verdict(claim)
    return "unverified" if verdict == "unknown" and not claim.checks else verdict


def made_by(claim: ClaimRecord) -> str:
    """Return who makes the claim: ``"step erase"``; ``"steps erase, immunize"``."""
    return f"{'step' if len(claim.steps) == 1 else 'steps'} {', '.join(claim.steps)}"


def several(claim: ClaimRecord) -> str:
    """Return what stands behind the sentence of a claim of several steps: ``" (steps erase, immunize)"``."""
    return f" ({made_by(claim)})" if len(claim.steps) > 1 else ""


def contradictions(report: ReleaseReport) -> list[str]:
    """Return where the record is better than its own numbers: do not rely on such a report."""
    found = []
    for claim in report.claims:
        found += [
            f"Check {check.id} is recorded as passed; its numbers say {check_verdict(check)}."
            for check in claim.checks
            if check.verdict == "passed" != check_verdict(check)
        ]
        if claim.verdict == "passed" != claim_verdict(claim):
            found.append(f"Claim {claim.id} is recorded as passed; its checks say {claim_verdict(claim)}.")
    if report.decision == "passed" != decision(report):
        found.append(f"The release is recorded as passed; its claims say {decision(report)}.")
    return found


def broken_rules(report: ReleaseReport) -> list[str]:
    """Return what the policy asks for and the release does not have, each with the policy's file and line."""
    return [f"Policy: {line}" for line in report.policy.breaches] if report.policy else []


def sentence(report: ReleaseReport) -> str:
    """Return the decision and the reason for it, in words that a lawyer and an engineer can read."""
    if contradictions(report):
        return "This report records a better verdict than its own numbers bear out. Do not rely on it."
    if not report.claims:
        return "Nothing was promised and nothing was measured, so nothing was decided."
    verdicts = [verdict for verdict in map(claim_verdict, report.claims) if verdict != "reported"]
    if not verdicts:
        return "Figures were reported and nothing was promised, so nothing was decided."
    failed, unknown = verdicts.count("failed"), verdicts.count("unknown")
    if failed:
        rest = f" {unknown} more could not be decided." if unknown else ""
        return f"{_of(failed, verdicts)} failed{_unsigned(report)}.{rest}"
    if unknown:
        return f"{_of(unknown, verdicts)} could not be decided{_unsigned(report)}."
    return _all_hold(report)


def _unsigned(report: ReleaseReport) -> str:
    return "" if report.tested else ", so nothing was signed and there is no package"


def _of(number: int, verdicts: Sequence[Verdict]) -> str:
    return "The only claim" if len(verdicts) == 1 else f"{number} of {count(len(verdicts), 'claim')}"


def _all_hold(report: ReleaseReport) -> str:
    if report.policy and report.policy.breaches:
        broken = count(len(report.policy.breaches), "rule")
        return f"The claims hold, but the release breaks {broken} of the policy, so nothing was signed."
    if decision(report) != "passed":
        return "The claims hold, but the release was not approved; nothing was signed."
    promised = [claim for claim in report.claims if claim_verdict(claim) != "reported"]
    every = [check for claim in report.claims for check in claim.checks]
    checks = [check for check in every if check.gate]
    claims = "The claim holds" if len(promised) == 1 else f"All {count(len(promised), 'claim')} hold"
    measured = "its one check was" if len(checks) == 1 else f"all {count(len(checks), 'check')} were"
    open_ = len(every) - len(checks)
    more = f" {count(open_, 'more figure')} {'is' if open_ == 1 else 'are'} reported without a gate." if open_ else ""
    return f"{claims}: {measured} measured and stayed within bounds, uncertainty included.{more}"


def by_severity(report: ReleaseReport) -> list[tuple[int, ClaimRecord]]:
    """Return the claims with their number from 1: failed, undecided, held, and reported alone."""
    order: tuple[Verdict, ...] = ("failed", "unknown", "passed", "reported")
    return sorted(enumerate(report.claims, 1), key=lambda pair: order.index(claim_verdict(pair[1])))


def reason(check: CheckRecord) -> str:
    """Return why the check has its verdict."""
    if check.verdict == "passed" != check_verdict(check):
        return judge(check.gate, check.measurement)[1] if check.measurement else "nothing was measured"
    return check.reason


def undone(report: ReleaseReport) -> list[str]:
    """Return claims that held after one step, their own or a later one, and no longer after another."""
    found = []
    for claim in report.claims:
        held = ""
        for cell in _since(report, claim):
            if held and cell.verdict not in ("passed", "reported"):
                what = "no longer" if cell.verdict == "failed" else "could not be decided"
                found.append(f"Claim {claim.id} held after {held} and {what} after {cell.after}.")
            held = cell.after if cell.verdict == "passed" else ""
    return found


def repeated(report: ReleaseReport) -> int:
    """Return how many claims were measured after their own step and again after a later one."""
    return sum(len(_since(report, claim)) > 1 for claim in report.claims)


def _since(report: ReleaseReport, claim: ClaimRecord) -> list[MatrixCell]:
    """Return the claim's cells from the first of its steps on; what no step claims, from the first step on."""
    ids = [step.id for step in report.steps]
    own = [ids.index(step) for step in claim.steps if step in ids]
    before = {"base", *ids[: min(own, default=0)]}
    return [cell for cell in report.matrix if cell.claim == claim.id and cell.after not in before]


def self_assessed(report: ReleaseReport, claim: ClaimRecord, check: CheckRecord) -> bool:
    """Return whether the plugin of a step that makes the claim attacks, judges or measures here itself."""
    own = {_package(step.origin.module) for step in report.steps if step.id in claim.steps}
    scorers = [(name, report.scorers.get(name)) for name in check.scorer.split(", ")]
    used = {("attack", check.attack), ("metric", check.metric)}
    used |= {("scorer", card.use if card and card.use else name) for name, card in scorers}
    return any(
        (plugin.kind, plugin.name) in used and _package(plugin.origin.module) in own for plugin in report.plugins
    )


def _package(module: str) -> str:
    return module.partition(":")[0].partition(".")[0]
