"""The first table of a report: what it takes to get each concept back, by what an attacker needs to have.

A cell is made of the checks whose attack has this access, whose metric says how hard the concept is to get, and which
name the concept. They are grouped by what has to hold for the number to hold: nothing (it is about the weights),
attached membranes, a mask that is honoured. Of each group the check that is worst for the publisher stands in the cell,
the worst of all first. A cell without a check says *not attacked*: nobody tried.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from publisher.api import Access, CheckRecord, ClaimRecord, GoneConcept, Interval, ReleaseReport, Verdict
from publisher.api.training import UNMASKED
from publisher.api.verdicts import decide, lower
from publisher.report import verdicts
from publisher.report.found import SearchFigures, searched
from publisher.report.relearning import HALF, ModelCurve, curves_by_concept, masked
from publisher.report.removal import AskedCheck, Removal, removal
from publisher.report.wording import count, estimate, figure, looks, number, span

TITLES: dict[Access, str] = {
    Access.PROMPT: "Prompt",
    Access.SEARCH: "Search",
    Access.IMAGE: "Image",
    Access.EMBEDDING: "Embedding",
    Access.ADAPTER: "Adapter",
    Access.TRAINING: "Training",
    Access.BASE: "Base weights",
}
NEEDS: dict[Access, str] = {
    Access.PROMPT: "only words",
    Access.SEARCH: "a program that tries many prompts",
    Access.IMAGE: "an image to start from",
    Access.EMBEDDING: "the weights, to learn new words for them",
    Access.ADAPTER: "a small trained file beside the weights",
    Access.TRAINING: "the weights, to train them further",
    Access.BASE: "the model that this one was made of",
}
"""What somebody has to have, in words that complete "with ..."."""
LEGEND = (
    "A rate is the share of images that show the concept. Steps are training steps until it shows half as often as the"
    " base model shows it. Not attacked means that nobody tried: it is not known what it takes."
)
"""What every form says below the table."""
ABOVE_BASE = "rate-above-base"
"""Metric of checks that count only what lies above the base model."""
NOT_ATTACKED = "not attacked"
WITH_MEMBRANES = "only with its membranes"
WITH_MASK = "only if the mask is honoured"
BY_BINDING = {"in-weights": "", "in-pipeline": "only in its pipeline", "by-convention": "only by convention"}
"""Binding of a claim -> what has to hold for its number, where the check itself does not say more."""
SHORT = {
    WITH_MEMBRANES: "membranes",
    WITH_MASK: "mask",
    BY_BINDING["in-pipeline"]: "pipeline",
    BY_BINDING["by-convention"]: "convention",
}
"""Condition -> one word for it, for narrow forms."""
TITLE = "What it takes to get it back"
MOST_COLUMNS = 6
"""Concepts that have a column each; of more, each has a row."""
NEVER = float("-inf")
"""Severity of what did not come back."""


@dataclass(frozen=True)
class Attempt:
    """One number of a cell: of one check on one concept, or the worst of several under one condition."""

    check: CheckRecord
    verdict: Verdict
    """Verdict about this concept alone. Never *passed* where the check did not pass."""
    value: str
    """Rate, or cost in training steps: ``"1.7%"``, ``"38 steps"``, ``"more than 160 steps"``, ``"not measured"``."""
    interval: str
    """Ends of its interval (``"0.4% to 6%"``), or the fastest and slowest trial; empty: there is none."""
    n: str
    """What it was counted from: ``"60 of 6 prompts"``, ``"3 trials"``."""
    condition: str
    """What has to hold for the number to hold; empty: nothing, it is about the weights."""
    judged: str = ""
    """Number that the gate is about, where the value is another one: ``"t50-ratio 6.2x (3.9x to 9.1x)"``."""
    floor: str = ""
    """What the same training costs on a model that never knew the concept: ``"a model that never knew it takes 38
    steps"``."""
    spent: str = ""
    """Attack that searched, and what it spent; empty: it did not search."""
    success: bool = False
    """Whether it is a find of a search that lies above its floor: no other attempt's *unknown* hides it."""
    attached: bool = False
    """Whether membranes of other concepts were attached, which have no part in this one."""
    together: int = 1
    """Concepts that the gate is about. Above 1 the verdict is about all of them together."""
    pooled: bool = False
    """Whether the value too is of all these concepts together."""
    checks: int = 1
    """Checks under this condition, of which this is the worst."""
    seconds: float | None = None
    """Seconds that the cost takes on the machine of the release; None: unknown, as in every file of a package."""
    quantity: str = ""
    """What the value counts: values of one quantity can be compared."""
    severity: float = NEVER
    """How bad the value is for the publisher; to compare values of one quantity."""

    @property
    def line(self) -> str:
        """Value, interval and n in running text, then the remarks: ``"1.7% (0.4% to 6%), n 60 of 6 prompts"``."""
        interval = f" ({self.interval})" if self.interval else ""
        return "; ".join((f"{self.value}{interval}, n {self.n}", *self.remarks))

    @property
    def brief(self) -> str:
        """Value and condition, for narrow forms: ``"1.7% (membranes)"``."""
        return f"{self.value} ({SHORT[self.condition]})" if self.condition else self.value

    @property
    def remarks(self) -> tuple[str, ...]:
        """What must be known to read the value, in short phrases; the condition first."""
        pool = f"{'value and verdict' if self.pooled else 'verdict'} of {self.together} concepts together"
        return tuple(
            filter(
                None,
                (
                    self.condition,
                    "membranes of other concepts attached" if self.attached else "",
                    pool if self.together > 1 else "",
                    self.spent,
                    self.floor,
                    f"judged by {self.judged}" if self.judged else "",
                    f"worst of {self.checks} checks" if self.checks > 1 else "",
                    "" if self.seconds is None else f"{number(self.seconds)} s on the machine that made it",
                ),
            )
        )


@dataclass(frozen=True)
class AccessCell:
    """What it takes to get one concept back with one access."""

    concept: GoneConcept
    access: Access
    attempts: tuple[Attempt, ...]
    """The worst check under each condition, the worst first; none: not attacked."""
    checks: int
    """Number of checks behind the cell."""

    @property
    def verdict(self) -> Verdict | None:
        """The worst attempt's verdict; None: not attacked. *Passed* only where nothing that was found is worse."""
        return self.attempts[0].verdict if self.attempts else None

    @property
    def word(self) -> str:
        """The verdict in a word, or ``"not attacked"``."""
        return self.verdict or NOT_ATTACKED

    @property
    def value(self) -> str:
        """The worst attempt's value; empty: not attacked."""
        return self.attempts[0].value if self.attempts else ""

    @property
    def brief(self) -> str:
        """The worst attempt in brief, or ``"not attacked"``."""
        return self.attempts[0].brief if self.attempts else NOT_ATTACKED

    @property
    def lines(self) -> tuple[str, ...]:
        """One line an attempt: ``"passed 1.7% (0.4% to 6%), n 60 of 6 prompts"``; or ``"not attacked"``."""
        return tuple(f"{one.verdict} {one.line}" for one in self.attempts) or (NOT_ATTACKED,)


@dataclass(frozen=True)
class AccessRow:
    """One access, with a cell for each concept."""

    access: Access
    title: str
    need: str
    """What somebody has to have: ``"only words"``."""
    cells: tuple[AccessCell, ...]


@dataclass(frozen=True)
class AccessTable:
    """Table of all accesses and all concepts that go."""

    concepts: tuple[GoneConcept, ...]
    rows: tuple[AccessRow, ...]
    removals: tuple[Removal, ...]
    """What is said of each concept in a word."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the concepts; with the id behind, where two have one name."""
        names = [concept.name for concept in self.concepts]
        return tuple(one.name if names.count(one.name) == 1 else f"{one.name} ({one.id})" for one in self.concepts)

    @property
    def wide(self) -> bool:
        """Whether each concept can have a column."""
        return len(self.concepts) <= MOST_COLUMNS

    def oriented(self) -> tuple[tuple[str, ...], list[tuple[str, tuple[AccessCell, ...]]]]:
        """Return headings and rows: a row for each access, or for each concept where there are many."""
        if self.wide:
            return ("With", *self.names), [(f"{row.title}: {row.need}", row.cells) for row in self.rows]
        cells = zip(*(row.cells for row in self.rows), strict=True)
        return ("Concept", *(row.title for row in self.rows)), list(zip(self.names, cells, strict=True))

    @property
    def attacked(self) -> int:
        """Number of cells that somebody attacked."""
        return sum(bool(cell.attempts) for row in self.rows for cell in row.cells)


def access_table(report: ReleaseReport, seconds: Mapping[str, float] | None = None) -> AccessTable | None:
    """Return the table of a report: a row for each access, the least first, and a column for each concept that goes.

    Args:
        report: of a release.
        seconds: check of an attack by training -> seconds of one training step on the machine that made it.

    Returns:
        None: the report does not say what was to go, as it is older than this table.
    """
    if not report.concepts:
        return None
    rows = []
    for access in Access:
        cells = tuple(_cell(report, access, concept, seconds or {}) for concept in report.concepts)
        rows.append(AccessRow(access, TITLES[access], NEEDS[access], cells))
    removals = tuple(removal(report, concept, _asked(report, concept)) for concept in report.concepts)
    return AccessTable(report.concepts, tuple(rows), removals)


def _asked(report: ReleaseReport, concept: GoneConcept) -> list[AskedCheck]:
    """Return what each check with a gate says that asks for a concept in words."""
    checks = [
        (claim, check)
        for claim in report.claims
        for check in claim.checks
        if check.access is Access.PROMPT and check.gate and not check.searches and concept.id in check.concepts
    ]
    found = [
        AskedCheck(one.verdict, one.condition)
        for claim, check in checks
        for one in _attempts(report, claim, check, concept.id, None)
    ]
    return found + [_above_base(check) for _, check in checks if check.metric == ABOVE_BASE]


def _above_base(check: CheckRecord) -> AskedCheck:
    """Return what a check says that counts only what lies above the base model.

    What the base model generates by itself is generated all the same, whatever is added to it.
    """
    rate = check.measurement.details.get("hardened_rate") if check.measurement else None
    ends = (check.gate.upper_at_most, check.gate.value_at_most) if check.gate else ()
    most = next((end for end in ends if end is not None), None)
    if not isinstance(rate, dict) or most is None:
        return AskedCheck(check.verdict, itself="unknown")
    return AskedCheck(
        check.verdict, itself="failed" if rate["low"] > most else "unknown" if rate["value"] > most else "passed"
    )


def _cell(report: ReleaseReport, access: Access, concept: GoneConcept, seconds: Mapping[str, float]) -> AccessCell:
    checks = [(claim, check) for claim in report.claims for check in claim.checks if check.access is access]
    found = [
        attempt
        for claim, check in checks
        if concept.id in check.concepts
        for attempt in (
            *_attempts(report, claim, check, concept.id, seconds.get(check.id)),
            *_ignoring(check, concept.id, seconds.get(check.id)),
        )
    ]
    by_condition: dict[str, list[Attempt]] = {}
    for one in found:
        by_condition.setdefault(one.condition, []).append(one)
    worst = [replace(_worst(group), checks=_distinct(group)) for group in by_condition.values()]
    ordered: list[Attempt] = []
    while worst:
        ordered.append(_worst(worst))
        worst.remove(ordered[-1])
    return AccessCell(concept, access, tuple(ordered), _distinct(found))


def _distinct(attempts: Iterable[Attempt]) -> int:
    return len({one.check.id for one in attempts})


def _worst(attempts: Sequence[Attempt]) -> Attempt:
    """Return the attempt that is worst for the publisher: failed, a find over its floor, unknown, reported, passed.

    Of equal ones the one with the worst value.

    What is only reported is passed over where its value is no worse than one that passed: disclosing more makes no cell
    look worse than what was disclosed.
    """
    passed = [one for one in attempts if one.verdict == "passed"]
    kept = [one for one in attempts if one.verdict != "reported" or not any(_no_worse(one, two) for two in passed)]
    verdict: Verdict = kept[0].verdict
    for one in kept:
        verdict = lower(verdict, one.verdict)
    finds = [one for one in kept if one.success] if verdict != "failed" else []
    first, *others = finds or [one for one in kept if one.verdict == verdict]
    for one in others:
        if one.quantity == first.quantity and one.severity > first.severity:
            first = one
    return first


def _no_worse(one: Attempt, other: Attempt) -> bool:
    return one.quantity == other.quantity and one.severity <= other.severity


def _attempts(
    report: ReleaseReport, claim: ClaimRecord, check: CheckRecord, concept: str, seconds: float | None
) -> list[Attempt]:
    """Return what a check says of one concept; nothing where its metric does not say how hard the concept is to get."""
    if not check.resistance:
        return []
    alone = _alone(check, concept)
    together = len(check.concepts)
    membranes = _membranes(report, check)
    condition = _condition(claim, check, needed=concept in membranes)
    attempt = Attempt(
        check=check,
        verdict=_verdict(check, alone),
        value=estimate(check),
        interval="",
        n="0",
        condition=condition,
        attached=bool(membranes) and concept not in membranes,
        together=together,
        pooled=together > 1 and alone is None,
    )
    if check.measurement is None:
        return [attempt]
    if alone is not None and together > 1:
        attempt = replace(attempt, value=figure(alone.value, check.unit, check.gate), n=f"{alone.n:,}")
    else:
        attempt = replace(attempt, n=looks(check.measurement))
    shown = alone or check.measurement.hardened
    attempt = replace(
        attempt,
        interval=span(shown, check.unit, check.gate),
        quantity=f"{check.metric} {check.unit}",
        severity=shown.value if check.better == "lower" else -shown.value,
    )
    if check.searches:
        return [_searched(attempt, check, told) if (told := searched(check, concept)) else attempt]
    model = _model(check, concept, "hardened")
    return [replace(_cost(attempt, model, seconds), floor=_floor(check, concept)) if model else attempt]


def _searched(attempt: Attempt, check: CheckRecord, told: SearchFigures) -> Attempt:
    """Return an attempt with the rate of the best find over its floor, and what the search cost.

    Without a gate each concept has its own verdict: that another one is *unknown* takes nothing from this one.
    """
    if check.gate is None:
        attempt = replace(attempt, verdict=told.verdict, together=1, pooled=False)
    return replace(
        attempt,
        value=told.value,
        interval=told.interval,
        n=told.n,
        judged=told.excess,
        spent=told.cost,
        success=told.success,
        severity=told.severity,
    )


def _alone(check: CheckRecord, concept: str) -> Interval | None:
    """Return the check's number of one concept; None: there is none, or the numbers of concepts are other ones."""
    if check.measurement is None or check.concept_figure:
        return None
    return check.measurement.by_concept.get(concept)


def _ignoring(check: CheckRecord, concept: str, seconds: float | None) -> list[Attempt]:
    """Return what an attacker found who ignores the mask, where a check of masks tried that as its control."""
    model = _model(check, concept, UNMASKED) if masked(check) else None
    if model is None or not model.points:
        return []
    ignored = Attempt(check=check, verdict="reported", value="", interval="", n="", condition="")
    return [replace(_cost(ignored, model, seconds), judged="")]


def _model(check: CheckRecord, concept: str, name: str) -> ModelCurve | None:
    """Return the curve of one attacked model on one concept."""
    curves = (found for found in curves_by_concept(check) if found.concept == concept)
    return next((model for found in curves for model in found.models if model.name == name), None)


def _floor(check: CheckRecord, concept: str) -> str:
    """Return what the same training costs on the retrained reference; empty: it was not trained."""
    never = _model(check, concept, "retrained")
    delay = never.delay(HALF) if never else None
    if delay is None or not delay.shares:
        return ""
    steps = f"more than {count(delay.last, 'step')}" if delay.mean is None else f"{number(delay.mean)} steps"
    return f"a model that never knew it takes {steps}"


def _verdict(check: CheckRecord, alone: Interval | None) -> Verdict:
    """Return the check's verdict, as far as it is about one concept.

    Several concepts can keep a gate together of which one alone does not. Nothing was promised of that one alone, so
    its number is *reported*.
    """
    verdict = verdicts.check_verdict(check)
    if verdict != "passed" or alone is None or len(check.concepts) == 1:
        return verdict
    return "passed" if decide(check.gate, alone)[0] == "passed" else "reported"


def _condition(claim: ClaimRecord, check: CheckRecord, *, needed: bool) -> str:
    """Return what has to hold for a check's number of one concept to hold.

    Args:
        claim: of the check.
        check: that was made.
        needed: a membrane of this concept was attached.
    """
    if masked(check):
        return WITH_MASK
    if not check.attached:
        return ""
    return WITH_MEMBRANES if needed else BY_BINDING[claim.binds]


def _membranes(report: ReleaseReport, check: CheckRecord) -> tuple[str, ...]:
    """Return the concepts whose membranes were attached. Attackers who change weights attach none to them.

    Where membranes are attached the report has their permeabilities, or the check is *unknown*.
    """
    if report.permeabilities is None or not check.attached or check.trials:
        return ()
    return report.permeabilities.membranes


def _cost(attempt: Attempt, model: ModelCurve, seconds: float | None) -> Attempt:
    """Return the attempt with the training steps until the concept is generated half as often as by the base model."""
    delay = model.delay(HALF)
    if not delay.shares:
        return attempt
    value = f"more than {count(delay.last, 'step')}" if delay.mean is None else f"{number(delay.mean)} steps"
    trials = count(delay.trials, "trial")
    return replace(
        attempt,
        value=value,
        interval=f"trials {delay.range}" if delay.range and delay.fastest is not None else "",
        n=trials,
        judged=f"{attempt.check.metric} {attempt.value} ({attempt.interval})",
        pooled=False,
        seconds=None if seconds is None else seconds * (delay.last if delay.mean is None else delay.mean),
        quantity="steps",
        severity=NEVER if delay.mean is None else -delay.mean,
    )
