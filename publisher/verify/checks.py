"""Make the checks of all claims: the one function that the release calls, and what comes out of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from publisher.api import (
    ClaimRecord,
    ImagePair,
    ImageRequest,
    MatrixCell,
    PermeabilityTable,
    Sampling,
    Scope,
    ScorerCard,
    UsageError,
    Verdict,
)
from publisher.api.verdicts import worst
from publisher.verify.batches import Wanted
from publisher.verify.gallery import sampler_of
from publisher.verify.measuring import Bench, Prepared, cards_of, prepare, record_of
from publisher.verify.pairs import pairs_of, shown
from publisher.verify.permeabilities import table
from publisher.verify.survey import Survey, survey
from publisher.verify.tools import Arms, Setting, StepClaim, Tools, Unmeasured


@dataclass(frozen=True)
class VerifyResult:
    """What the checks found."""

    claims: tuple[ClaimRecord, ...]
    """In the order given."""
    evidence: Mapping[str, bytes]
    """File inside ``release/reports/`` -> JSON lines, one for each image of a check."""
    pairs: tuple[ImagePair, ...]
    """A few images of both models for the report."""
    permeabilities: PermeabilityTable | None
    """How far prompts open the membranes; None: the model has none, or nobody knows."""
    scorers: Mapping[str, ScorerCard]
    """Of every scorer that judged."""

    @property
    def verdict(self) -> Verdict:
        """The worst of all claims'."""
        return worst(claim.verdict for claim in self.claims)


def run_checks(
    claims: Sequence[StepClaim], scope: Scope, arms: Arms, tools: Tools, sampling: Sampling, setting: Setting
) -> VerifyResult:
    """Draw, judge, measure and compare with the gates. What cannot be measured is *unknown*, never *passed*.

    Args:
        claims: with their checks.
        scope: the release's concepts, those to go and those to stay.
        arms: the base model as control, and the hardened one.
        tools: the plugins' instances.
        sampling: how images are drawn.
        setting: device, store of images, and who is told.

    Raises:
        UsageError: two checks have the same id.
        PublisherError: the disk is full.
    """
    checks = [check for claim in claims for check in claim.claim.checks]
    _unique([check.id for check in checks])
    cards = cards_of(checks, tools, setting)
    prepared = {check.id: prepare(check, scope, tools, sampling, cards) for check in checks}
    good = [item for item in prepared.values() if isinstance(item, Prepared)]
    wanted = [(request, item.check.guards) for item in good for request in item.asked.requests]
    tools = replace(tools, scorers={name: tools.scorers[name] for name in cards if isinstance(cards[name], ScorerCard)})
    pictured = {item.check.id: shown(item.asked.requests, scope) for item in good}
    seen = _survey(wanted, pictured, scope, arms, tools, setting)
    bench = Bench(scope, seen, _sampler(arms))
    evidence: dict[str, bytes] = {}
    records = tuple(_claim(claim, prepared, bench, evidence, setting) for claim in claims)
    return VerifyResult(
        claims=records,
        evidence=evidence,
        pairs=pairs_of([(item.check, item.scorer, pictured[item.check.id]) for item in good], scope, seen),
        permeabilities=_table(seen, wanted, scope),
        scorers={name: card for name, card in cards.items() if isinstance(card, ScorerCard)},
    )


def matrix_column(claims: Sequence[ClaimRecord], after: str) -> tuple[MatrixCell, ...]:
    """The claims' verdicts as cells of the claim x step matrix.

    Args:
        claims: of a run on the model as it was after a step.
        after: the step's id, or ``"base"``.
    """
    return tuple(
        MatrixCell(claim=claim.id, after=after, verdict=claim.verdict, value=_worst_value(claim)) for claim in claims
    )


def _worst_value(claim: ClaimRecord) -> float | None:
    measured = [c.measurement.hardened.value for c in claim.checks if c.verdict == claim.verdict and c.measurement]
    return measured[0] if measured else None


def _unique(ids: Sequence[str]) -> None:
    twice = sorted({name for name in ids if ids.count(name) > 1})
    if twice:
        raise UsageError(f"two checks have the same id: {', '.join(twice)}", hint="Give each check an id of its own.")


def _table(seen: Survey, wanted: Sequence[Wanted], scope: Scope) -> PermeabilityTable | None:
    if seen.openings is None or seen.openings.problem:
        return None
    return table(seen.openings, [request for request, _ in wanted], scope)


def _survey(
    wanted: Sequence[Wanted], pictured: Mapping[str, Sequence[ImageRequest]], scope: Scope, arms: Arms,
    tools: Tools, setting: Setting,
) -> Survey:  # fmt: skip
    if not wanted:
        return Survey()
    return survey(wanted, [request for some in pictured.values() for request in some], scope, arms, tools, setting)


def _sampler(arms: Arms) -> str:
    try:
        return sampler_of(arms.hardened.folder)
    except (OSError, ValueError, KeyError):
        return "unknown"


def _claim(
    claim: StepClaim, prepared: Mapping[str, Prepared | Unmeasured], bench: Bench, evidence: dict[str, bytes],
    setting: Setting,
) -> ClaimRecord:  # fmt: skip
    records = []
    for check in claim.claim.checks:
        began = time.monotonic()
        records.append(record_of(check, prepared[check.id], bench, evidence))
        setting.check_end(claim.claim.id, records[-1], time.monotonic() - began)
    return ClaimRecord(
        id=claim.claim.id,
        step=claim.step,
        sentence=claim.claim.sentence,
        binds=claim.claim.binds,
        limits=claim.claim.limits,
        verdict=worst(record.verdict for record in records),
        checks=tuple(records),
    )
