"""Make the checks of all claims: the one function that the release calls, and what comes out of it."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from publisher.api import (
    Check,
    CheckRecord,
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
from publisher.api.evidence import EvidenceRow
from publisher.api.verdicts import of_claim, overall
from publisher.evaluate.context import COUNCIL, ModelsUnderTest, ReleaseScorer, Setting, StepClaim, Tools, Unmeasured
from publisher.evaluate.finetune.record import record_of_trials
from publisher.evaluate.finetune.run import Relearned, relearn
from publisher.evaluate.images import Wanted, sampler_of, without_concept
from publisher.evaluate.measure import Observed, errors_about, record_of, rows_of, unknown, vectors_of
from publisher.evaluate.observe import Observations, observe
from publisher.evaluate.pairs import pairs_of, shown, worst_concepts
from publisher.evaluate.permeabilities import table
from publisher.evaluate.prepare import PreparedCheck, settle
from publisher.evaluate.scorers import FEATURES, JUDGE, Task, cards_of
from publisher.evaluate.searching.record import record_of_searches
from publisher.evaluate.searching.run import Searched, run_searches
from publisher.evaluate.second_opinions import opinions, second_scorers
from publisher.evaluate.sheets import require_fit, sheet_bytes
from publisher.evaluate.weight_attacks import Attacked, observe_altered, with_controls, with_fault
from publisher.model.digest import sha256_json

if TYPE_CHECKING:
    from publisher.api.metrics import Array


@dataclass(frozen=True)
class Evaluation:
    """What the checks found."""

    claims: tuple[ClaimRecord, ...]
    """Records of the claims, in the order given."""
    evidence: Mapping[str, bytes]
    """File inside ``release/reports/`` -> JSON lines, one for each image of a check, or for each of its trials."""
    pairs: tuple[ImagePair, ...]
    """A few images of both models for the report."""
    permeabilities: PermeabilityTable | None
    """How far prompts let the attached safeguards act; None: nothing is attached, or nobody knows."""
    scorers: Mapping[str, ScorerCard]
    """Id of every scorer that judged -> its card."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Check of an attack by training -> seconds of one training step here. No part of the report: another machine has
    others."""
    left_out: frozenset[str] = frozenset()
    """Checks that nobody asked for here: their attacks train, and that is expensive."""

    @property
    def verdict(self) -> Verdict:
        """The verdict of all claims together."""
        return overall(claim.verdict for claim in self.claims)


def run_checks(
    claims: Sequence[StepClaim],
    scope: Scope,
    models: ModelsUnderTest,
    tools: Tools,
    sampling: Sampling,
    setting: Setting,
    *,
    trained: Collection[str] | None = None,
) -> Evaluation:
    """Generate, judge, measure and compare with the gates. What cannot be measured is *unknown*, never *passed*.

    Args:
        claims: with their checks.
        scope: the release's concepts, those to go and those to stay.
        models: the base model as control, and the hardened one.
        tools: the plugins' instances.
        sampling: how images are generated.
        setting: device, store of images, and who is told.
        trained: make the attacks by training of the claims of these steps alone; the others' checks are *unknown*.
            None: make all.

    Raises:
        UsageError: two checks have the same id.
        PublisherError: the disk is full.
    """
    checks = [check for claim in claims for check in claim.claim.checks]
    _unique([check.id for check in checks])
    prepared = {
        check.id: _settled(check, scope, tools, sampling, claim.step)
        for claim in claims
        for check in claim.claim.checks
    }
    found = [item for item in prepared.values() if isinstance(item, PreparedCheck)]
    judges = [name for item in found for name in item.scorers.values() if name]
    cards = cards_of([*judges, *tools.second], tools, setting)
    tools = replace(tools, second=_willing(cards, tools, setting))
    for item in found:
        ready = _judged(item, cards, tools, models.base.anatomy.latents.image_size)
        prepared[item.check.id] = ready if isinstance(ready, Unmeasured) else _fit(ready, models, trained)
    good = [item for item in prepared.values() if isinstance(item, PreparedCheck)]
    plain = [item for item in good if not item.trains and not item.alters and not item.searches]
    wanted = _wanted(plain)
    seen = _observe(plain, scope, models, tools, setting)
    second = opinions([item for item in plain if item.metric.judged], seen, scope, tools)
    attacked = _altered(good, scope, models, tools, setting)
    observations: dict[str, Observations | Unmeasured] = dict.fromkeys([item.check.id for item in plain], seen)
    observations |= {name: one.views if isinstance(one, Attacked) else one for name, one in attacked.items()}
    trials = relearn([item for item in good if item.trains], scope, models, tools, sampling, setting)
    searches = run_searches([item for item in good if item.searches], scope, models, tools, sampling, setting)
    sampler = sampler_of(models.hardened.folder)
    rows = {
        item.check.id: views
        if isinstance(views := observations[item.check.id], Unmeasured)
        else rows_of(item, Observed(scope, views, sampler))
        for item in good
        if not item.trains and not item.searches
    }
    vectors = {
        item.check.id: views
        if isinstance(views := observations[item.check.id], Unmeasured)
        else vectors_of(item, views)
        for item in good
        if item.reads == FEATURES
    }
    results = _Results(scope, rows, vectors, trials, searches, attacked, prepared, tools, setting)
    records = tuple(_claim(claim, results, setting) for claim in claims)
    cards_there = {
        name: card.model_copy(update={"decides": name not in second, "opinions": second.get(name, ())})
        for name, card in cards.items()
        if isinstance(card, ScorerCard)
    }
    return Evaluation(
        claims=records,
        evidence=results.evidence | {file: data for name in cards_there for file, data in _sheets(tools.scorers[name])},
        pairs=pairs_of([(item, _shown(item, records, scope)) for item in plain], scope, seen),
        permeabilities=_table(seen, wanted, scope),
        scorers=cards_there,
        seconds={name: found.seconds for name, found in trials.items() if isinstance(found, Relearned)},
        left_out=frozenset(name for name, found in prepared.items() if isinstance(found, _LeftOut)),
    )


@dataclass(eq=False)
class _Results:
    """All that was generated and trained, for the checks to be measured with."""

    scope: Scope
    rows: Mapping[str, list[EvidenceRow] | Unmeasured]
    """Check's id -> lines of its evidence, one for each request, or why there are none."""
    vectors: Mapping[str, tuple[Array, Array] | Unmeasured]
    """Check whose metric compares features -> those of both models' images, or why there are none."""
    trials: Mapping[str, Relearned | Unmeasured]
    searches: Mapping[str, Searched | Unmeasured]
    attacked: Mapping[str, Attacked | Unmeasured]
    """Check of an attack on weights -> what was seen of the altered models."""
    prepared: Mapping[str, PreparedCheck | Unmeasured]
    tools: Tools
    setting: Setting
    evidence: dict[str, bytes] = field(default_factory=dict)

    @cached_property
    def lines(self) -> dict[str, list[EvidenceRow]]:
        """The lines of the checks that have some."""
        return {name: rows for name, rows in self.rows.items() if not isinstance(rows, Unmeasured)}

    @cached_property
    def judges(self) -> dict[str, str]:
        """The scorers of each check."""
        return {name: found.scorer for name, found in self.prepared.items() if isinstance(found, PreparedCheck)}

    def record(self, check: Check) -> CheckRecord:
        """Measure a check. What its attack needs and its metric says is known even where it could not be measured."""
        attack, metric = self.tools.attacks.get(check.attack), self.tools.metrics.get(check.metric)
        said = {"access": getattr(attack, "access", None), "resistance": bool(metric and metric.resistance)}
        return self._measured(check).model_copy(update=said)

    def _measured(self, check: Check) -> CheckRecord:
        prepared = self.prepared[check.id]
        if isinstance(prepared, Unmeasured):
            return unknown(check, str(prepared))
        if prepared.trains:
            return record_of_trials(prepared, self.trials[check.id], self.evidence)
        if prepared.searches:
            return record_of_searches(prepared, self.searches[check.id], self.evidence, self.setting)
        rows = self.rows[check.id]
        if isinstance(rows, Unmeasured):
            return unknown(check, str(rows), prepared)
        judged = prepared.metric.judged
        errors = errors_about(prepared, self.lines, self.judges, self.scope, self.tools) if judged else {}
        record = record_of(prepared, rows, errors, self.scope, self.evidence, self.vectors.get(check.id))
        attacked = self.attacked.get(check.id)
        if not isinstance(attacked, Attacked):
            return record
        record = with_controls(prepared, record, attacked, errors, self.scope, self.evidence)
        return with_fault(record, attacked.fault)


class _LeftOut(Unmeasured):
    """A check that nobody asked for."""


def _settled(check: Check, scope: Scope, tools: Tools, sampling: Sampling, step: str) -> PreparedCheck | Unmeasured:
    try:
        return settle(check, scope, tools, sampling, step)
    except Unmeasured as error:
        return error


def _judged(
    prepared: PreparedCheck, cards: Mapping[str, ScorerCard | Unmeasured], tools: Tools, size: tuple[int, int]
) -> PreparedCheck | Unmeasured:
    """Return the check if its scorers can judge and their calibration holds for images of this size, else why not.

    A metric that reads pixels alone does without them.
    """
    scorers = dict(prepared.scorers)
    for concept in prepared.concepts:
        try:
            for scorer in tools.members(prepared.scorers[concept.id]):
                card = cards[scorer.id]
                if isinstance(card, Unmeasured):
                    raise card
                if prepared.metric.judged:
                    require_fit(scorer, concept, card, size)
        except Unmeasured as error:
            if prepared.needs_scorer:
                return error
            scorers[concept.id] = ""
    return replace(prepared, scorers=scorers)


def _willing(cards: Mapping[str, ScorerCard | Unmeasured], tools: Tools, setting: Setting) -> tuple[str, ...]:
    """Return the scorers that give a second opinion and can; the others become warnings."""
    for name in tools.second:
        if isinstance(card := cards[name], Unmeasured):
            setting.warn(f"there is no second opinion of {name!r}: {card}")
    return tuple(name for name in tools.second if isinstance(cards[name], ScorerCard))


def _sheets(scorer: ReleaseScorer) -> Iterator[tuple[str, bytes]]:
    return ((file, sheet_bytes(sheet)) for file, sheet in scorer.sheets.items())


def _tasks(checks: Iterable[PreparedCheck], scope: Scope, tools: Tools) -> dict[ImageRequest, set[Task]]:
    """Return for each request, without its concept, what which scorer has to do with its images."""
    found: dict[ImageRequest, set[Task]] = {}
    for item in checks:
        for request in item.asked.requests:
            name, tasks = item.scorers[request.concept], found.setdefault(without_concept(request), set())
            tasks.update((one, JUDGE) for one in name.split(COUNCIL) if one)
            if item.metric.judged and not item.alters:
                tasks.update((one, JUDGE) for one in second_scorers(scope.concept(request.concept), name, tools))
            if item.reads:
                tasks.add((item.readers[request.concept], item.reads))
    return found


def _fit(
    prepared: PreparedCheck, models: ModelsUnderTest, trained: Collection[str] | None
) -> PreparedCheck | Unmeasured:
    """Return the check as it can be made: an attacker who changes weights has them, and attaches nothing to them."""
    if prepared.trains and trained is not None and prepared.step not in trained:
        return _LeftOut("its attack trains, and nobody asked for that after this step")
    if prepared.has_weights and models.hardened.attached:
        kept = prepared.kept and replace(prepared.kept, check=prepared.kept.check.bare)
        return replace(prepared, check=prepared.check.bare, kept=kept)
    return prepared


def _wanted(checks: Iterable[PreparedCheck]) -> list[Wanted]:
    return [(request, item.check.attached) for item in checks for request in item.asked.requests]


def _altered(
    checks: Sequence[PreparedCheck], scope: Scope, models: ModelsUnderTest, tools: Tools, setting: Setting
) -> dict[str, Attacked | Unmeasured]:
    """Generate and judge what attackers make of the weights: one model after the other, for all checks that ask."""

    def tasks(some: Sequence[PreparedCheck]) -> dict[ImageRequest, set[Task]]:
        return _tasks(some, scope, tools)

    groups: dict[str, list[PreparedCheck]] = {}
    for item in checks:
        if item.alters:
            key = sha256_json([item.check.attack, item.attack_params.as_json()])
            groups.setdefault(key, []).append(item)
    found: dict[str, Attacked | Unmeasured] = {}
    for group in groups.values():
        names = [item.check.id for item in group]
        try:
            found |= dict.fromkeys(names, observe_altered(group, tasks, scope, models, tools, setting))
        except Unmeasured as error:
            found |= dict.fromkeys(names, error)
    return found


def matrix_column(found: Evaluation, after: str) -> tuple[MatrixCell, ...]:
    """Return the claims' verdicts as cells of the claim x step matrix.

    A claim of which checks were left out has a cell only where one of the others did not pass: it is *not measured*
    otherwise, rather than *unknown*.

    Args:
        found: of a run on the model as it was after a step.
        after: the step's id, or ``"base"``.
    """
    cells = (_cell(claim, after, found.left_out) for claim in found.claims)
    return tuple(cell for cell in cells if cell)


def _cell(claim: ClaimRecord, after: str, left_out: Collection[str]) -> MatrixCell | None:
    made = [check for check in claim.checks if check.id not in left_out]
    verdict = of_claim(((check.gate, check.verdict) for check in made), discloses=claim.discloses)
    if len(made) < len(claim.checks) and (not made or verdict in ("passed", "reported")):
        return None
    values = [check.measurement.hardened.value for check in made if check.verdict == verdict and check.measurement]
    return MatrixCell(claim=claim.id, after=after, verdict=verdict, value=values[0] if values else None)


def _unique(ids: Sequence[str]) -> None:
    twice = sorted({name for name in ids if ids.count(name) > 1})
    if twice:
        raise UsageError(f"two checks have the same id: {', '.join(twice)}", hint="Give each check an id of its own.")


def _table(seen: Observations, wanted: Sequence[Wanted], scope: Scope) -> PermeabilityTable | None:
    if seen.permeabilities is None or seen.permeabilities.problem:
        return None
    return table(seen.permeabilities, [request for request, _ in wanted], scope)


def _observe(
    checks: Sequence[PreparedCheck], scope: Scope, models: ModelsUnderTest, tools: Tools, setting: Setting
) -> Observations:
    if not checks:
        return Observations()
    return observe(_wanted(checks), scope, models, tools, setting, tasks=_tasks(checks, scope, tools))


def _shown(prepared: PreparedCheck, claims: Iterable[ClaimRecord], scope: Scope) -> tuple[ImageRequest, ...]:
    """Return the requests of a check whose images the report shows."""
    records = [check for claim in claims for check in claim.checks if check.id == prepared.check.id]
    return shown(prepared.asked.requests, scope, worst_concepts(records[0]))


def _claim(claim: StepClaim, results: _Results, setting: Setting) -> ClaimRecord:
    records = []
    for check in claim.claim.checks:
        began = time.monotonic()
        records.append(results.record(check))
        setting.check_end(claim.claim.id, records[-1], time.monotonic() - began)
    return ClaimRecord(
        id=claim.claim.id,
        steps=claim.steps,
        sentence=claim.claim.sentence,
        binds=claim.claim.binds,
        limits=claim.claim.limits,
        verdict=of_claim(((one.gate, one.verdict) for one in records), discloses=claim.claim.discloses),
        checks=tuple(records),
        discloses=claim.claim.discloses,
        deletes=claim.claim.deletes,
    )
