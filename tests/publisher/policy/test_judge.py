from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

import pytest

from publisher.api import Check, ReleaseReport
from publisher.package.statements import outcomes, policies, properties
from publisher.policy import LoadedPolicy, PolicyError, facts_of_plan, facts_of_report, judge_facts, under_policy
from publisher.policy.answer import PolicyAnswer
from publisher.policy.schema import Policy
from support.packages import interval

Read = Callable[[str], LoadedPolicy]
REQUIRE = (
    "require:\n- {kind: object, attacks: [plain], metric: rate, upper_at_most: 0.1, n_at_least: 60, binds: in-weights}"
)
WAIVER = "waivers:\n- {check: cigarette.plain, reason: ticket 1, approver: board, expires: 2026-12-31}\n"
TODAY = date(2026, 11, 28)


def ask(policy: LoadedPolicy, report: ReleaseReport, age: float | None = None, key: str | None = None) -> PolicyAnswer:
    return judge_facts(policy, facts_of_report(report, age), key, today=TODAY)


def said(answer: PolicyAnswer) -> str:
    return "\n".join(answer.lines(short=True))


GOOD = {
    "licenses": "licenses: [Apache-2.0]",
    "require": REQUIRE,
    "scorers": f"scorers: {{emoji: {'ab' * 32}}}",
    "plugins": f"plugins: {{distributions: [dist], digests: {{step/erase: {'ab' * 32}, step/gone: {'cd' * 32}}}}}",
    "max_age": "max_age: 30d",
    "waivers": WAIVER,
}


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD)
def test_a_release_can_keep_what_a_policy_asks(policy: Read, report: ReleaseReport, text: str) -> None:
    assert ask(policy(text), report, age=29).breaches == ()


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("licenses: [MIT]", "2:1", "the licence 'Apache-2.0' is not allowed"),
        (REQUIRE.replace("0.1", "0.05"), "3:50", "check 'cigarette.plain' of 'cigarette': upper bound 0.06"),
        (REQUIRE.replace("60", "61"), "3:70", "has n 60, 61 are needed"),
        (REQUIRE.replace("object", "unsafe"), "3:4", "no concept of kind 'unsafe' is to go"),
        (REQUIRE.replace("[plain]", "[plain, paraphrase]"), "3:3", "no check of 'cigarette' has attack 'paraphrase'"),
        (REQUIRE.replace("metric: rate", "metric: rates"), "3:3", "and metric 'rates'"),
        ("require:\n- {attacks: [plain], metric: rate, lower_at_least: 0.5}", "3:36", "value 0 < 0.5"),
        (f"scorers: {{emoji: {'cd' * 32}}}", "2:11", "it counts as unknown"),
        (f"scorers: {{other: {'ab' * 32}}}", "2:1", "is judged by 'emoji', which is not named here"),
        ("plugins: {distributions: [model-publisher]}", "2:11", "step/erase comes from 'dist'"),
        (f"plugins: {{digests: {{step/erase: {'cd' * 32}}}}}", "2:21", "step/erase has the digest abab"),
        ("max_age: 28d", "2:1", "the decision was signed 29 days ago, 28d are allowed"),
        (WAIVER.replace("2026-12-31", "2026-11-27"), "3:63", "the waiver of check 'cigarette.plain' ended"),
    ],
)
def test_a_breach_names_the_line_of_the_policy(
    policy: Read, report: ReleaseReport, text: str, place: str, message: str
) -> None:
    answer = ask(policy(text), report, age=29)
    (line,) = answer.lines(short=True)
    assert line.startswith(f"policy.yaml:{place}: ")
    assert message in line
    absent = "no check" in line or "no concept" in line
    with pytest.raises(PolicyError) as caught:
        answer.require()
    assert caught.value.exit_code == (2 if absent else 1)


def test_a_weaker_binding_is_no_test(policy: Read, record: dict[str, Any]) -> None:
    record["claims"][0]["binds"] = "in-pipeline"
    weak = ReleaseReport.parse(record)
    assert "that binds in-weights" in said(ask(policy(REQUIRE), weak))
    assert not ask(policy(REQUIRE.replace("in-weights", "by-convention")), weak).breaches


def test_a_check_of_several_concepts_answers_for_each_alone(policy: Read, record: dict[str, Any]) -> None:
    (check,) = record["claims"][0]["checks"]
    check["concepts"] = ["cigarette", "pistol"]
    record["concepts"].append({"id": "pistol", "name": "pistol", "kind": "object"})
    text = REQUIRE.replace("n_at_least: 60", "n_at_least: 30")
    found = said(ask(policy(text), ReleaseReport.parse(record)))
    assert found.count("is not known for this concept alone") == 2
    check["measurement"]["by_concept"] = {"cigarette": interval(0, 0, 0.1, 30), "pistol": interval(0.2, 0.08, 0.39, 30)}
    assert "of 'pistol': value 0.2 > 0.1" in said(ask(policy(text), ReleaseReport.parse(record)))
    check["concept_figure"] = "something else"
    assert "alone" in said(ask(policy(text), ReleaseReport.parse(record)))


def test_what_was_not_measured_or_shows_nothing_keeps_no_policy(policy: Read, record: dict[str, Any]) -> None:
    (check,) = record["claims"][0]["checks"]
    check["measurement"]["base"] = interval(0.05, 0.01, 0.09)
    assert "it shows nothing" in said(ask(policy(REQUIRE), ReleaseReport.parse(record)))
    check |= {"measurement": None, "verdict": "unknown"}
    assert "was not measured" in said(ask(policy(REQUIRE), ReleaseReport.parse(record)))


def test_a_plan_knows_what_is_missing_and_too_few(policy: Read) -> None:
    check = Check(id="c.plain", attack="plain", metric="rate", concepts=("c",))

    def planned(images: int, *scorers: str) -> PolicyAnswer:
        facts = facts_of_plan("MIT", {"c": "object"}, [("in-weights", check, {"c": images}, scorers)], ())
        return judge_facts(policy(f"{REQUIRE}\nscorers: {{emoji: {'ab' * 32}}}"), facts)

    assert not planned(60, "emoji").breaches
    assert "of 'c' has n 59, 60 are needed" in said(planned(59, "emoji"))
    assert "is judged by 'other'" in said(planned(60, "other"))


def test_only_a_named_key_may_sign(policy: Read, report: ReleaseReport, key_pair: tuple[Any, Any]) -> None:
    loaded = policy(f"keys: ['{key_pair[1]}']")
    (hint,) = loaded.keys
    assert not ask(loaded, report, key=hint).breaches
    assert "is none of those that may sign" in said(ask(loaded, report, key="0" * 64))


def test_a_waiver_is_recorded_and_the_verdict_stays(policy: Read, report: ReleaseReport) -> None:
    answer = ask(policy(WAIVER + REQUIRE.replace("0.1", "0.05")), report)
    assert answer.breaches == ()
    found = under_policy(report, answer)
    check = found.claims[0].checks[0]
    assert (found.decision, check.verdict) == ("passed", "passed")
    assert check.waiver is not None
    assert check.waiver.sentence() == "WAIVED until 2026-12-31 by board: ticket 1"
    assert outcomes([check])["result"] == "WARNED"
    assert outcomes([check])["warnedTests"] == ["cigarette.plain"]
    assert "PUBLISHER_CHECK_WAIVED:cigarette.plain" in properties(found)
    named = policies(found, {"release/manifest.resolved.json": "0" * 64})
    assert named[1] == {"name": "policy.yaml", "digest": {"sha256": answer.loaded.sha256}}


def test_a_waiver_of_another_check_helps_nobody(policy: Read, report: ReleaseReport) -> None:
    text = WAIVER.replace("cigarette.plain", "cigarette.plane") + REQUIRE.replace("0.1", "0.05")
    assert len(ask(policy(text), report).breaches) == 1


def test_no_key_of_a_policy_loosens_anything(policy: Read, record: dict[str, Any]) -> None:
    """Each key in the form that allows most, alone, on reports that are not good: nothing gets better."""
    assert {*GOOD, "keys", "policy"} == set(Policy.model_fields)
    for verdict in ("failed", "unknown"):
        record["decision"] = record["claims"][0]["verdict"] = record["claims"][0]["checks"][0]["verdict"] = verdict
        bad = ReleaseReport.parse(record)
        for text in GOOD.values():
            found = under_policy(bad, ask(policy(text), bad))
            assert found.decision == verdict
            assert [check.verdict for check in found.claims[0].checks] == [verdict]
            assert outcomes(found.claims[0].checks) == outcomes(bad.claims[0].checks)
    strict = "licenses: [MIT]\n" + REQUIRE.replace("0.1", "0.05")
    broken = set(ask(policy(strict), ReleaseReport.parse(record)).lines(short=True))
    for name in ("scorers", "plugins", "max_age"):
        assert broken <= set(ask(policy(f"{strict}\n{GOOD[name]}"), ReleaseReport.parse(record)).lines(short=True))


def test_a_breach_refuses_the_release_in_every_form(policy: Read, report: ReleaseReport) -> None:
    from publisher.builtin.reports import FORMATS
    from publisher.ci import of_report
    from publisher.report.terminal import lines

    answer = ask(policy("licenses: [MIT]"), report)
    found = under_policy(report, answer)
    assert found.decision == "failed"
    assert [check.verdict for check in found.claims[0].checks] == ["passed"]
    text = "\n".join(lines(found))
    assert text.startswith("Refused: tiny 1.2.0\nThe claims hold, but the release breaks 1 rule of the policy")
    for form in FORMATS:
        assert "policy" in form().render(found).decode(), form
    assert [(one.rule, one.level) for one in of_report(found, None)] == [("release", "error")]


def test_a_waiver_is_shown_in_every_form(policy: Read, report: ReleaseReport) -> None:
    from publisher.builtin.reports import FORMATS
    from publisher.ci import of_report
    from publisher.package.card import render
    from publisher.report.terminal import lines

    found = under_policy(report, ask(policy(WAIVER), report))
    texts = [form().render(found).decode() for form in FORMATS if form.name != "json"]
    for text in [*texts, "\n".join(lines(found)), render(found, base_card=False).decode()]:
        assert "WAIVED until 2026-12-31 by board: ticket 1" in text.replace("\\", "").replace("&#45;", "-")
    (one,) = of_report(found, None)
    assert one.waived == "until 2026-12-31 by board: ticket 1"
    assert "waiver" not in report.claims[0].checks[0].as_json()
    assert "policy" not in report.as_json()
    assert ReleaseReport.parse(found.as_json()) == found
