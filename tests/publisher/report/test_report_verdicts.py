from __future__ import annotations

import report_samples as samples

from publisher.api import MatrixCell, Origin, PluginRecord
from publisher.report import verdicts
from publisher.report.rows import brief, reasons


def test_sentences_of_the_three_decisions() -> None:
    assert verdicts.sentence(samples.passed()) == (
        "All 3 claims hold: all 3 checks were measured and stayed within bounds, uncertainty included."
    )
    assert verdicts.sentence(samples.failed()) == (
        "1 of 4 claims failed, so nothing was signed and there is no package. 2 more could not be decided."
    )
    assert verdicts.sentence(samples.unknown()) == (
        "1 of 2 claims could not be decided, so nothing was signed and there is no package."
    )


def test_one_claim_with_one_check_reads_like_english() -> None:
    one = samples.report((samples.claim("plain", "gone", (samples.plain_check(),)),))
    expected = "The claim holds: its one check was measured and stayed within bounds, uncertainty included."
    assert verdicts.sentence(one) == expected


def test_what_has_no_gate_is_reported_and_counts_for_nothing() -> None:
    open_ = samples.without_check()
    assert verdicts.check_verdict(open_) == "reported"
    mixed = samples.report((samples.claim("plain", "gone", (samples.plain_check(), open_)),))
    assert verdicts.claim_verdict(mixed.claims[0]) == "passed"
    assert verdicts.sentence(mixed) == (
        "The claim holds: its one check was measured and stayed within bounds, uncertainty included."
        " 1 more figure is reported without a gate."
    )
    alone = samples.report((samples.claim("without", "stated", (open_,)),), decision="passed")
    assert (verdicts.word(alone.claims[0]), reasons(alone.claims[0])) == ("reported", [])
    assert verdicts.decision(alone) == "unknown"
    assert verdicts.sentence(alone).startswith("This report records a better verdict")


def test_a_pass_without_a_gate_is_named_as_a_contradiction() -> None:
    lying = samples.without_check().model_copy(update={"verdict": "passed"})
    assert verdicts.check_verdict(lying) == "reported"
    claim = samples.claim("without", "stated", (lying,), verdict="passed")
    assert "Check without.cigarette is recorded as passed; its numbers say reported." in verdicts.contradictions(
        samples.report((samples.claim("plain", "gone", (samples.plain_check(),)), claim))
    )


def test_nothing_claimed_is_unknown_even_if_recorded_as_passed() -> None:
    empty = samples.report((), decision="passed")
    assert verdicts.decision(empty) == "unknown"
    assert verdicts.contradictions(empty) == ["The release is recorded as passed; its claims say unknown."]


def test_a_claim_without_checks_is_unverified() -> None:
    claim = samples.claim("word", "trust me", (), verdict="passed")
    assert (verdicts.claim_verdict(claim), verdicts.word(claim)) == ("unknown", "unverified")


def test_a_pass_without_a_measurement_is_unknown() -> None:
    check = samples.unmeasured().model_copy(update={"verdict": "passed", "reason": "trust me"})
    assert verdicts.check_verdict(check) == "unknown"
    assert verdicts.reason(check) == "nothing was measured"


def test_a_pass_that_its_numbers_refute_is_a_failure_and_named() -> None:
    lying = samples.lying()
    assert verdicts.decision(lying) == "failed"
    assert verdicts.contradictions(lying) == [
        "Check synonyms.cigarette is recorded as passed; its numbers say failed.",
        "Claim erase.synonyms is recorded as passed; its checks say failed.",
        "The release is recorded as passed; its claims say failed.",
    ]
    assert "Do not rely on it" in verdicts.sentence(lying)


def test_a_recorded_failure_is_never_improved() -> None:
    strict = samples.plain_check().model_copy(update={"verdict": "failed", "reason": "waiver expired"})
    assert verdicts.check_verdict(strict) == "failed"
    assert verdicts.reason(strict) == "waiver expired"


def test_claims_that_hold_in_a_release_that_was_not_approved() -> None:
    held = samples.passed().model_copy(update={"decision": "unknown"})
    assert verdicts.sentence(held) == "The claims hold, but the release was not approved; nothing was signed."


def test_the_worst_claims_come_first_and_keep_their_numbers() -> None:
    ordered = verdicts.by_severity(samples.failed())
    assert [(number, verdicts.word(claim)) for number, claim in ordered] == [
        (2, "failed"),
        (3, "unknown"),
        (4, "unverified"),
        (1, "passed"),
    ]


def test_a_claim_that_a_later_step_undid_is_named() -> None:
    cells = [
        MatrixCell(claim="erase.plain", after="base", verdict="failed"),
        MatrixCell(claim="erase.plain", after="erase", verdict="passed"),
        MatrixCell(claim="erase.plain", after="immunize", verdict="failed"),
    ]
    undone = samples.passed().model_copy(update={"matrix": tuple(cells)})
    assert verdicts.undone(undone) == ["Claim erase.plain held after erase and no longer after immunize."]
    assert verdicts.undone(samples.passed()) == []


def test_a_step_that_judges_itself_is_self_assessed() -> None:
    record = samples.passed()
    claim = record.claims[0]
    assert not verdicts.self_assessed(record, claim, claim.checks[0])
    own = Origin(distribution="x", version="1", module="publisher_erase.scorer:Own")
    plugin = PluginRecord(kind="scorer", name="emoji", version="1", origin=own)
    assert verdicts.self_assessed(record.model_copy(update={"plugins": (plugin,)}), claim, claim.checks[0])


def test_a_claim_in_brief_has_its_interval_and_control() -> None:
    found = [brief(claim) for claim in samples.failed().claims]
    assert found == [
        "1.4% (0.17% to 4.9%), against base model 92.4%",
        "34% (27% to 42%), against base model 84.7%",
        "2 checks",
        "0 checks",
    ]
    assert brief(samples.claim("empty", "gone", (samples.unmeasured(),))) == "not measured"
