"""A policy against the facts of a release. Nothing here makes a verdict better: the answer is a list of breaches."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime

from publisher.api import Binding, Gate, WaiverRecord
from publisher.api.verdicts import decide, judge
from publisher.manifest.nearest import suggestion
from publisher.manifest.places import Path as Keys
from publisher.policy.answer import Breach, PolicyAnswer
from publisher.policy.facts import CheckFacts, ReleaseFacts
from publisher.policy.loader import LoadedPolicy
from publisher.policy.schema import Requirement

_WEAKEST_FIRST: tuple[Binding, ...] = ("by-convention", "in-pipeline", "in-weights")


def judge_facts(
    loaded: LoadedPolicy, facts: ReleaseFacts, key: str | None = None, today: date | None = None
) -> PolicyAnswer:
    """Compare a release with a policy.

    Args:
        loaded: the policy.
        facts: of the release.
        key: sha256 of the public key that signs or signed; None: not known yet.
        today: the day on which waivers count; default: today in UTC.
    """
    day = today or datetime.now(UTC).date()
    checks = {check.id for check in facts.checks}
    waived: dict[str, WaiverRecord] = {}
    found = [*_key(loaded, key), *_license(loaded, facts), *_age(loaded, facts), *_plugins(loaded, facts)]
    found += [*_required(loaded, facts), *_scorers(loaded, facts)]
    for number, waiver in enumerate(loaded.policy.waivers):
        if waiver.check not in checks:
            continue
        if date.fromisoformat(waiver.expires) < day:
            what = f"the waiver of check '{waiver.check}' ended on {waiver.expires}."
            found.append(Breach(loaded.problem(("waivers", number, "expires"), what), waiver.check))
        else:
            waived[waiver.check] = WaiverRecord(reason=waiver.reason, approver=waiver.approver, expires=waiver.expires)
    left = [breach for breach in found if not breach.check or breach.check not in waived]
    return PolicyAnswer(loaded, tuple(sorted(left, key=lambda one: one.problem)), waived)


def _key(loaded: LoadedPolicy, key: str | None) -> Iterator[Breach]:
    if loaded.keys and key is not None and key not in loaded.keys:
        said = f"the key {key[:16]}" if key else "a certificate or an identity"
        yield Breach(loaded.problem(("keys",), f"{said} is none of those that may sign."))


def _license(loaded: LoadedPolicy, facts: ReleaseFacts) -> Iterator[Breach]:
    allowed = loaded.policy.licenses
    if allowed is not None and facts.license not in allowed:
        hint = suggestion(facts.license, allowed, "Allowed")
        yield Breach(loaded.problem(("licenses",), f"the licence '{facts.license}' is not allowed. {hint}"))


def _age(loaded: LoadedPolicy, facts: ReleaseFacts) -> Iterator[Breach]:
    most, age = loaded.policy.max_age, facts.age
    if most is None or age is None:
        return
    if age > int(most[:-1]):
        yield Breach(loaded.problem(("max_age",), f"the decision was signed {age:.0f} days ago, {most} are allowed."))
    if age < -1:  # a day for clocks and time zones
        yield Breach(loaded.problem(("max_age",), f"the decision was signed {-age:.0f} days in the future."))


def _plugins(loaded: LoadedPolicy, facts: ReleaseFacts) -> Iterator[Breach]:
    rules = loaded.policy.plugins
    if rules is None:
        return
    for plugin in facts.plugins:
        name, origin = f"{plugin.kind}/{plugin.name}", plugin.origin
        if rules.distributions is not None and origin.distribution not in rules.distributions:
            what = f"{name} comes from '{origin.distribution}', which is not allowed."
            yield Breach(loaded.problem(("plugins", "distributions"), what))
        wanted = (rules.digests or {}).get(name)
        if wanted is not None and origin.digest != wanted:
            what = f"{name} has the digest {origin.digest[:16] or 'none'}, not {wanted[:16]}."
            yield Breach(loaded.problem(("plugins", "digests", name), what))


def _scorers(loaded: LoadedPolicy, facts: ReleaseFacts) -> Iterator[Breach]:
    known = loaded.policy.scorers
    if known is None:
        return
    for check in facts.checks:
        for name, weights in check.scorers.items():
            if name not in known:
                what = f"check '{check.id}' is judged by '{name}', which is not named here: it counts as unknown."
                yield Breach(loaded.problem(("scorers",), what), check.id)
            elif facts.measured and weights != known[name]:
                what = f"check '{check.id}' was judged by '{name}' with weights {weights[:16]}: it counts as unknown."
                yield Breach(loaded.problem(("scorers", name), what), check.id)


def _required(loaded: LoadedPolicy, facts: ReleaseFacts) -> Iterator[Breach]:
    for number, requirement in enumerate(loaded.policy.require or ()):
        concepts = [name for name, kind in facts.concepts.items() if kind == requirement.kind]
        if requirement.kind is None:
            concepts = [""]
        elif not concepts:
            what = f"no concept of kind '{requirement.kind}' is to go, so none is tested."
            yield Breach(loaded.problem(("require", number, "kind"), what), absent=True)
        for concept in concepts:
            for attack in requirement.attacks:
                yield from _tested(loaded, facts, number, requirement, attack, concept)


def _matching(facts: ReleaseFacts, requirement: Requirement, attack: str) -> list[CheckFacts]:
    """Return the checks that a requirement is about: of this attack and metric, where they bind enough."""
    least = _WEAKEST_FIRST.index(requirement.binds) if requirement.binds else 0
    return [
        check
        for check in facts.checks
        if (check.attack, check.metric) == (attack, requirement.metric) and _WEAKEST_FIRST.index(check.binds) >= least
    ]


def _tested(
    loaded: LoadedPolicy, facts: ReleaseFacts, number: int, requirement: Requirement, attack: str, concept: str
) -> Iterator[Breach]:
    """Yield what is missing of one attack, on one concept where one is named; every check of it counts."""
    keys: Keys = ("require", number)
    checks = [one for one in _matching(facts, requirement, attack) if not concept or concept in one.concepts]
    if not checks:
        about = f" of '{concept}'" if concept else ""
        binds = f" that binds {requirement.binds}" if requirement.binds else ""
        what = f"no check{about} has attack '{attack}' and metric '{requirement.metric}'{binds}."
        yield Breach(loaded.problem(keys, what), absent=True)
    for check in checks:
        if check.measurement is None and facts.measured:
            yield Breach(loaded.problem(keys, f"check '{check.id}' was not measured."), check.id)
            continue
        yield from _enough(loaded, keys, requirement, check, concept)
        yield from _bounded(loaded, keys, requirement, check, concept)


def _enough(
    loaded: LoadedPolicy, keys: Keys, requirement: Requirement, check: CheckFacts, concept: str
) -> Iterator[Breach]:
    least, n = requirement.n_at_least, _observations(check, concept)
    if least is not None and n is not None and n < least:
        about = f" of '{concept}'" if concept else ""
        what = f"check '{check.id}'{about} has n {n}, {least} are needed."
        yield Breach(loaded.problem((*keys, "n_at_least"), what), check.id)


def _observations(check: CheckFacts, concept: str) -> int | None:
    """Return how many observations a check has, of one concept where one is named; None: nobody knows yet."""
    if check.measurement is None:
        planned = check.planned
        return planned if planned is None else planned.get(concept, 0) if concept else sum(planned.values())
    if concept and len(check.concepts) > 1 and concept in check.measurement.by_concept:
        return check.measurement.by_concept[concept].n
    return check.measurement.hardened.n


def _bounded(
    loaded: LoadedPolicy, keys: Keys, requirement: Requirement, check: CheckFacts, concept: str
) -> Iterator[Breach]:
    measurement = check.measurement
    bounds = {name: getattr(requirement, name) for name in ("upper_at_most", "lower_at_least")}
    for name, bound in bounds.items():
        if bound is None or measurement is None:
            continue
        gate = Gate.parse({name: bound})
        if not concept or len(check.concepts) == 1:
            verdict, reason = judge(gate, measurement)
        elif check.comparable and concept in measurement.by_concept:
            verdict, reason = decide(gate, measurement.by_concept[concept])
        else:
            verdict, reason = "unknown", "its number is not known for this concept alone"
        if verdict != "passed":
            about = f" of '{concept}'" if concept else ""
            what = f"check '{check.id}'{about}: {reason}."
            yield Breach(loaded.problem((*keys, name), what), check.id)
