"""Is a new release not worse than an old one, by more than a margin: image by image, with an interval and an answer.

The same requests were asked of both releases. In each pair the scorer sees the concept in the old release's image, the
new one's, both or neither; the interval is that of the difference of two paired shares (Tango's score interval, widened
by a bootstrap over prompts), as :func:`publisher.comparison.compare` has it. *Not worse* is said only where all of the
interval lies within the margin, and of all checks only where it is said of each: a release that is worse by the margin
or more in one check passes with 2.5% at most, however many checks there are (an intersection-union test).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from publisher.api import CheckRecord, ClaimRecord, Interval, Params, ScorerCard
from publisher.api.evidence import EvidenceRow
from publisher.comparison.subjects import Subject
from publisher.comparison.table import counts_images, paired_interval, request_of
from publisher.report import verdicts

Answer = Literal["not worse", "worse", "not decided", "not comparable", "by its own gate"]
_WORST_FIRST: tuple[Answer, ...] = ("worse", "not comparable", "not decided", "not worse")
KNOWLEDGE = frozenset({"calibration", "sheets", "opinions", "kinds"})
"""Fields of a scorer's card that say what is known of it, and change no judgement."""


class NonInferiorityRow(Params):
    """One check of the old release, and what the new one shows of it."""

    check: str
    sentence: str
    """The claim."""
    answer: Answer
    interval: Interval | None = None
    """Share of the new release less that of the old one; None: nothing was paired."""
    how: str
    """How it was told, or why it was not, in a short sentence."""


class NonInferiority(Params):
    """The answer about a new release."""

    old: str
    new: str
    margin: float
    """Largest allowed loss, as a share: 0.02 are two points."""
    answer: Answer
    """The worst of all rows; *not decided* where no check counts images."""
    rows: tuple[NonInferiorityRow, ...]


def not_worse(old: Subject, new: Subject, margin: float) -> NonInferiority:
    """Compare every check of an old release with the same check of a new one.

    Checks are the same if id, attack, metric, their parameters, concepts and membranes are. A number that is no share
    of judged images has no points: its row says what the new release's own gate says, and refuses where that does.

    Args:
        old: the release to measure up to.
        new: the release that is to replace it.
        margin: largest allowed loss, as a share.
    """
    rows = tuple(_rows(old, new, margin))
    answers = {row.answer for row in rows}
    answer: Answer = next((one for one in _WORST_FIRST if one in answers), "not decided")
    return NonInferiority(old=old.name, new=new.name, margin=margin, answer=answer, rows=rows)


def _rows(old: Subject, new: Subject, margin: float) -> Iterator[NonInferiorityRow]:
    found = {check.id: check for claim in new.report.claims for check in claim.checks}
    for claim in old.report.claims:
        for check in claim.checks:
            yield _row(claim, check, found.get(check.id), (old, new), margin)


def _row(
    claim: ClaimRecord, ours: CheckRecord, theirs: CheckRecord | None, subjects: tuple[Subject, Subject], margin: float
) -> NonInferiorityRow:
    old, new = subjects
    answer: Answer = "not comparable"
    interval = None
    if theirs is None:
        how = f"{new.name} does not make this check"
    elif _asked(ours) != _asked(theirs):
        how = f"{new.name} asks otherwise: attack, metric, their parameters, concepts or membranes differ"
    elif not counts_images(ours):
        answer, how = _by_gate(theirs)
    elif ours.measurement is None or theirs.measurement is None:
        how = f"{(old if ours.measurement is None else new).name} was not measured"
    elif problem := _problem(ours, theirs, old, new):
        how = problem
    else:
        pairs = (old.rows[ours.id], new.rows[theirs.id])
        interval = paired_interval(*pairs)
        answer, how = _within(interval, ours.better, margin), f"{interval.n} pairs of images"
    return NonInferiorityRow(check=ours.id, sentence=claim.sentence, answer=answer, interval=interval, how=how)


def _asked(check: CheckRecord) -> tuple[object, ...]:
    attack, metric = (check.attack, check.attack_params), (check.metric, check.metric_params)
    return (attack, metric, sorted(check.concepts), check.membranes, check.better)


def _by_gate(check: CheckRecord) -> tuple[Answer, str]:
    verdict = verdicts.check_verdict(check)
    words = f"no share of judged images, so points say nothing of it: {verdict} by its own gate"
    answers: dict[str, Answer] = {"failed": "worse", "unknown": "not decided"}
    return answers.get(verdict, "by its own gate"), words


def _problem(ours: CheckRecord, theirs: CheckRecord, old: Subject, new: Subject) -> str:
    """Return why the images of two checks are no pairs; empty: they are."""
    if _judges(old, ours) != _judges(new, theirs):
        return "other scorers, or other versions or parameters of them, judged"
    first, second = old.rows.get(ours.id, ()), new.rows.get(theirs.id, ())
    if not first or not second:
        return "no evidence of single images"
    if any(row.hardened_hit is None for row in (*first, *second)):
        return "nobody judged the images"
    asked, again = ({_request(row) for row in rows} for rows in (first, second))
    if asked == again and len(asked) == len(first) == len(second):
        return ""
    if {one[:-1] for one in asked} == {one[:-1] for one in again}:
        return "another sampler, number of steps or guidance"
    return f"other prompts or seeds: {len(asked & again)} of {len(first)} and {len(second)} images are of one request"


def _request(row: EvidenceRow) -> tuple[object, ...]:
    """Return what makes two images a pair, and last how they were sampled."""
    return (row.concept, row.prompt, row.negative_prompt, row.seed, row.membranes, request_of(row))


def _judges(subject: Subject, check: CheckRecord) -> list[object]:
    """Return what has to be equal of the scorers that judged; what is known of their errors need not."""
    cards = subject.report.scorers
    return [_judging(cards[name]) if name in cards else name for name in check.scorer.split(", ")]


def _judging(card: ScorerCard) -> dict[str, Any]:
    return {name: value for name, value in card.as_json().items() if name not in KNOWLEDGE}


def _within(interval: Interval, better: Literal["lower", "higher"], margin: float) -> Answer:
    """Return the answer of one check: by where its interval of the loss lies."""
    least, most = (interval.low, interval.high) if better == "lower" else (-interval.high, -interval.low)
    if most <= margin:
        return "not worse"
    return "worse" if least > margin else "not decided"


def lines_of(found: NonInferiority) -> Sequence[str]:
    """Return the answer as plain lines."""
    from publisher.report.wording import figure, span, visible

    points = figure(found.margin, "points")
    heads = {
        "not worse": f"Not worse: {found.new} loses no more than {points} against {found.old}, in no check",
        "worse": f"Worse: {found.new} loses more than {points} against {found.old}, or fails a gate of its own",
        "not decided": f"Not decided: whether {found.new} loses more than {points} against {found.old}",
        "not comparable": f"Not comparable: {found.new} with {found.old}",
        "by its own gate": "",
    }
    said = [visible(heads[found.answer])]
    for row in found.rows:
        number = ""
        if row.interval is not None:
            number = f" {figure(row.interval.value, 'points')} ({span(row.interval, 'points')}),"
        said += ["", visible(f"{row.answer}  {row.check}: {row.sentence}"), visible(f"   {number} {row.how}")]
    return said
