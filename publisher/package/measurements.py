"""Measurements of a foreign package, made again from its evidence: V031 and V032. No foreign code is run.

The evidence holds what the scorer said of each image, so everything after that can be made again: whether a label is
the concept, the counts, the number with its interval, the verdict. That is done with the publisher's own metrics.
Metrics of other plugins are not run; what can be compared without them is compared, and the answer names them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import ValidationError

from publisher.api import (
    CalibrationSheet,
    CheckRecord,
    Concept,
    CurveMetric,
    Interval,
    Measurement,
    Params,
    ReleaseReport,
    Scope,
    ScorerErrors,
    SearchMetric,
    SetMetric,
    Trial,
)
from publisher.api.base_errors import errors_of
from publisher.api.evidence import EvidenceRow, SearchRow, TrialRow, hits, observations, with_unsure
from publisher.api.records import Control
from publisher.api.weight_controls import control_file, losses_by_controls, share_of_kept
from publisher.codes import Code, Finding
from publisher.package.content import json_lines
from publisher.package.layout import MAX_TEXT_BYTES, REPORT, REPORTS, RESOLVED
from publisher.package.summary import checks
from publisher.package.tree import Tree
from publisher.registry.own import own_attacks, own_metrics
from publisher.strict_json import JsonError, strict_object

TOLERANCE = 1e-6
"""Relative difference that another version of a library may make."""
ADDED = frozenset({"refused_prompts", "name"})
"""Details that the evaluation adds to a metric's own."""
LIMITS = "its n was compared with its evidence, its verdict with its interval and gate"

Row = EvidenceRow | TrialRow | SearchRow
Rows = Sequence[Row]
Sheets = Mapping[str, CalibrationSheet]


@dataclass(frozen=True)
class _Known:
    """What a check is measured with besides its own evidence."""

    scope: Scope
    rows: Rows
    """Lines of the evidence of all checks that the same scorers judged."""
    sheets: Sheets
    """Calibration sheets of its scorers, of each scorer in turn, by file."""

    def counts(self, concept: Concept) -> ScorerErrors | None:
        """Return the counts of the first sheet about a concept; None: there is none."""
        for file, sheet in self.sheets.items():
            if (sheet.kind, sheet.label) == (concept.kind, concept.label):
                return sheet.errors(file)
        return None

    @property
    def alike(self) -> list[EvidenceRow]:
        """The lines about single images."""
        return [row for row in self.rows if isinstance(row, EvidenceRow)]


@dataclass
class Recomputed:
    """Numbers that were made again."""

    checks: list[str] = field(default_factory=list)
    """Ids of the checks whose number, interval and verdict follow from their evidence."""
    others: dict[str, str] = field(default_factory=dict)
    """Check, or part of the report -> why not, in one sentence."""


def check_measurements(tree: Tree, report: ReleaseReport) -> tuple[list[Finding], Recomputed]:
    """Compare the numbers of a report with its evidence.

    Args:
        tree: the folder; only files with a digest are opened.
        report: of the release.
    """
    findings: list[Finding] = []
    done = Recomputed()
    scope, problems = _scope(tree)
    findings += problems
    if scope is None:
        return findings, done
    findings += _first_table(report, scope)
    evidence: dict[str, Rows] = {}
    sheets, problems = _sheets(tree, report)
    findings += problems
    for check in checks(report):
        path = REPORTS + check.evidence
        if not check.evidence or tree.digests.get(path) != check.evidence_sha256:
            continue  # a finding of its own
        rows, problem = _rows(tree, path, check)
        problems = [problem] if problem else [*_row_problems(path, check, rows, scope)]
        findings += problems
        if not problems:
            evidence[check.id] = rows
    for check in checks(report):
        if check.measurement is None or check.id not in evidence:
            continue
        rows = evidence[check.id]
        if reason := _foreign(check, report):
            done.others[f"check {check.id}"] = f"{reason}; {LIMITS}"
            problems = _counts(check, check.measurement, rows)
        else:
            alike = [row for one in checks(report) if one.scorer == check.scorer for row in evidence.get(one.id, ())]
            known = _Known(scope, alike, _sheets_of(check, report, sheets))
            problems = _again(check, check.measurement, rows, known)
            problems += [one for name in check.controls for one in _control_problems(tree, check, name, rows, known)]
            done.checks += [] if problems else [check.id]
        findings += problems
        if check.verdict in ("passed", "reported") and (lost := next(losses_by_controls(check, check.controls), "")):
            findings.append(_contradiction(check, f"is {check.verdict}, and by its controls it says nothing: {lost}"))
    if any(cell.after != report.steps[-1].id for cell in report.matrix if report.steps):
        done.others["matrix of claims and steps"] = "no evidence of the models between the steps is in the package"
    return findings, done


def _first_table(report: ReleaseReport, scope: Scope) -> Iterator[Finding]:
    """Find what would put a check into another cell of the report's first table than it belongs to.

    Reports that are older than the table have no concepts, and say nothing about it.
    """
    if not report.concepts:
        return
    gone = tuple((one.id, one.name, one.kind, one.synonyms) for one in report.concepts)
    if gone != tuple((one.id, one.name, one.kind, one.synonyms) for one in scope.concepts):
        yield Finding(Code.REPORT_OTHER, REPORT, "names other concepts to go than the manifest")
    for check in checks(report):
        attack, metric = own_attacks().get(check.attack), own_metrics().get(check.metric)
        if attack and not _stranger(report, "attack", attack) and check.access is not attack.access:
            says = check.access or "nothing"
            yield _contradiction(check, f"says that its attack needs {says}; {check.attack} needs {attack.access}")
        if metric and not _stranger(report, "metric", metric) and check.resistance != metric.resistance:
            yield _contradiction(check, f"says otherwise than {check.metric} whether that is about getting it back")


def _scope(tree: Tree) -> tuple[Scope | None, list[Finding]]:
    """Return the release's concepts, whose labels say what is counted."""
    data = tree.read(RESOLVED, MAX_TEXT_BYTES) if RESOLVED in tree.digests else None
    if data is None:
        return None, []
    try:
        return Scope.parse(strict_object(data)["scope"]), []
    except (JsonError, KeyError, TypeError, ValidationError):
        return None, [Finding(Code.REPORT_ABSENT, RESOLVED, "does not say what the concepts are")]


def _sheets(tree: Tree, report: ReleaseReport) -> tuple[dict[str, Sheets], list[Finding]]:
    """Return the calibration sheets of each scorer, and what they say otherwise than the scorer's card."""
    found: dict[str, Sheets] = {}
    findings = []
    for name, card in report.scorers.items():
        mine: dict[str, CalibrationSheet] = {}
        for file, digest in card.sheets.items():
            path = REPORTS + file
            data = tree.read(path, MAX_TEXT_BYTES) if tree.digests.get(path) == digest else None
            if data is None:
                continue  # a finding of its own
            try:
                sheet = CalibrationSheet.parse(strict_object(data))
            except (JsonError, ValidationError):
                findings.append(Finding(Code.REPORT_OTHER, path, "cannot be read as a calibration sheet"))
                continue
            here = {"scorer": card.use, "version": card.version, "weights": card.weights, "params": card.params}
            if different := sheet.difference(**here, inputs=card.inputs):
                findings.append(Finding(Code.REPORT_CONTRADICTS, path, f"is about another scorer: {different}"))
            mine[file] = sheet
        found[name] = mine
    return found, findings


def _sheets_of(check: CheckRecord, report: ReleaseReport, sheets: Mapping[str, Sheets]) -> Sheets:
    """Return the sheets of the scorers of a check, about kinds that they judge in this release."""
    ids = [name for judge in check.scorer.split(", ") for name in judge.split("+")]
    return {
        file: sheet
        for name in ids
        for file, sheet in sheets.get(name, {}).items()
        if sheet.kind in report.scorers[name].kinds
    }


def _rows(tree: Tree, path: str, check: CheckRecord) -> tuple[Rows, Finding | None]:
    """Return the lines of a check's evidence."""
    data = tree.read(path, MAX_TEXT_BYTES)
    kind = SearchRow if check.searches else TrialRow if check.trials else EvidenceRow
    found: list[Any] = []
    for number, line in enumerate(json_lines(data or b""), 1):
        try:
            found.append(kind.parse(strict_object(line)))
        except (JsonError, ValidationError) as error:
            reason = "it is not as evidence is written" if isinstance(error, ValidationError) else str(error)
            return (), Finding(Code.REPORT_OTHER, path, f"cannot be read in line {number}: {reason}")
    if check.trials and check.trials != tuple(row.trial for row in found):
        return (), Finding(Code.REPORT_OTHER, path, f"has other trials than check {check.id}")
    if check.searches and check.searches != tuple(row.search for row in found):
        return (), Finding(Code.REPORT_OTHER, path, f"has other searches than check {check.id}")
    return found, None


def _control_problems(tree: Tree, check: CheckRecord, name: Control, own: Rows, known: _Known) -> Iterator[Finding]:
    """Find what the evidence of a control says otherwise than the check.

    Args:
        tree: the folder.
        check: that has the control.
        name: of the control.
        own: lines of the check itself, which say how its scorer errs.
        known: what it is measured with.
    """
    path = REPORTS + control_file(check.id, name)
    if path not in tree.digests:
        yield Finding(Code.REPORT_ABSENT, path, f"is not there, and check {check.id} has a number of it")
        return
    rows, problem = _rows(tree, path, check)
    kept = name in ("kept", "kept before")
    concepts = [one.id for one in known.scope.keep] if kept else check.concepts
    problems = [problem] if problem else [*_row_problems(path, check, rows, known.scope, concepts)]
    if problems:
        yield from problems
        return
    try:
        alike = [row for row in rows if isinstance(row, EvidenceRow)]
        found = share_of_kept(alike, known.scope) if kept else _measure(check, own, known, rows).hardened
    except Exception as error:  # noqa: BLE001 - the evidence may be anything
        yield _contradiction(check, f"has a control {name!r} that cannot be counted: {type(error).__name__}")
        return
    number = check.controls[name]
    if not _same(number.as_json(), found.as_json()):
        yield _contradiction(check, f"says {_words(number)} of its control {name!r}, its evidence {_words(found)}")


def _row_problems(
    path: str, check: CheckRecord, rows: Rows, scope: Scope, concepts: Collection[str] = ()
) -> Iterator[Finding]:
    """Find the first line that is about something else, was counted twice, or counts otherwise than its labels.

    Args:
        path: of the lines.
        check: that they belong to.
        rows: the lines.
        scope: the release's concepts.
        concepts: that they may be about; none: the check's own.
    """
    seen = set()
    for number, row in enumerate(rows, 1):
        if row.check != check.id or _concept(row) not in (concepts or check.concepts):
            yield Finding(Code.REPORT_OTHER, path, f"is about another check or concept in line {number}")
            return
        if (key := _key(row)) in seen:
            yield Finding(Code.REPORT_CONTRADICTS, path, f"counts something twice, in line {number}")
            return
        seen.add(key)
        if not _hits_are_labels(row, scope, check.better):
            yield Finding(Code.REPORT_CONTRADICTS, path, f"counts otherwise than its labels say, in line {number}")
            return


def _concept(row: Row) -> str:
    if isinstance(row, EvidenceRow):
        return row.concept
    return row.trial.concept if isinstance(row, TrialRow) else row.search.concept


def _key(row: Row) -> tuple[object, ...]:
    """Return what may be there once in the evidence of a check."""
    if isinstance(row, SearchRow):
        return (row.search.concept, row.search.model)
    if isinstance(row, TrialRow):
        return (row.trial.concept, row.trial.model, row.trial.seed)
    return (row.concept, row.prompt, row.negative_prompt, row.seed, row.steps, row.guidance)


def _hits_are_labels(row: Row, scope: Scope, better: Literal["lower", "higher"]) -> bool:
    try:
        if isinstance(row, EvidenceRow):
            seen = hits(row.base, row.hardened, scope.concept(row.concept), better)
            return seen == (row.base_hit, row.hardened_hit) and (seen[0] is None) == (seen[1] is None)
        label = scope.concept(_concept(row)).label
    except KeyError:
        return False
    if isinstance(row, SearchRow):
        return row.search.finds == tuple(find.judged(label, row.search.model) for find in row.finds)
    trial, counted = row.trial, tuple(labels.count(label) for labels in row.labels)
    return counted == trial.hits and all(len(labels) == trial.images_per_evaluation for labels in row.labels)


def _foreign(check: CheckRecord, report: ReleaseReport) -> str:
    """Return why a check's metric cannot be run here, or an empty text."""
    known = own_metrics().get(check.metric)
    stranger = _stranger(report, "metric", known) if known else "is not one of the publisher's own"
    return f"its metric {check.metric!r} {stranger}" if stranger else ""


def _stranger(report: ReleaseReport, kind: str, known: type[Any]) -> str:
    """Return why the plugin of a release is not the one of this name that is known here, or an empty text."""
    used = next((one for one in report.plugins if (one.kind, one.name) == (kind, known.name)), None)
    if used is not None and _root(used.origin.module) != _root(known.__module__):
        return "is not one of the publisher's own"
    if issubclass(known, SetMetric):
        return "compares features, which no package holds"
    if used is not None and used.version != known.version:
        return f"is version {used.version}, here is version {known.version}"
    return ""


def _root(module: str) -> str:
    return module.partition(".")[0]


def _counts(check: CheckRecord, measurement: Measurement, rows: Rows) -> list[Finding]:
    """Compare how much a foreign metric says it has counted with what there is."""
    most = {name: _most(rows, name) for name in check.concepts}
    numbers = [(measurement.hardened, sum(most.values())), (measurement.base, sum(most.values()))]
    numbers += [(number, most.get(name, 0)) for name, number in measurement.by_concept.items()]
    return [
        _contradiction(check, f"counts {number.n} observations, its evidence has {there}")
        for number, there in numbers
        if number is not None and number.n > there
    ]


def _most(rows: Rows, concept: str) -> int:
    """Return the images of one model, of a concept."""
    trials = [row.trial for row in rows if isinstance(row, TrialRow)]
    images = [
        len(one.evaluation_steps) * one.images_per_evaluation
        for one in trials
        if (one.concept, one.model) == (concept, "hardened")
    ]
    searches = [row.search for row in rows if isinstance(row, SearchRow)]
    mine = [one for one in searches if (one.concept, one.model) == (concept, "hardened")]
    images += [one.tried + sum(find.n for find in one.finds) for one in mine]
    return sum(images) + sum(isinstance(row, EvidenceRow) and row.concept == concept for row in rows)


def _again(check: CheckRecord, measurement: Measurement, rows: Rows, known: _Known) -> list[Finding]:
    """Run a metric of the publisher's own on the evidence."""
    try:
        found = _measure(check, rows, known)
    except (ValueError, ValidationError) as error:
        return [
            _contradiction(check, f"has a number; by its evidence there is none: {' '.join(str(error).split())[:300]}")
        ]
    except Exception as error:  # noqa: BLE001 - the evidence may be anything
        return [_contradiction(check, f"has evidence that the metric cannot read: {type(error).__name__}")]
    part = _difference(_comparable(measurement), _comparable(found))
    if not part:
        return []
    if part == "hardened":
        says = f"says {_words(measurement.hardened)}, its evidence {_words(found.hardened)}"
        return [_contradiction(check, says)]
    return [_contradiction(check, f"has another {part!r} than its evidence gives")]


def _measure(check: CheckRecord, rows: Rows, known: _Known, told_of: Rows | None = None) -> Measurement:
    """Measure lines of evidence.

    Args:
        check: says by which metric.
        rows: lines of the check, which also say how its scorer errs.
        known: what it is measured with besides.
        told_of: lines that are counted in place of the check's own.
    """
    metric = own_metrics()[check.metric]()
    params = metric.Params.parse(check.metric_params)
    if isinstance(metric, CurveMetric):
        trials: list[Trial] = [row.trial for row in rows if isinstance(row, TrialRow)]
        return metric.read(params, trials)
    if isinstance(metric, SearchMetric):
        return metric.read(params, [row.search for row in rows if isinstance(row, SearchRow)])
    pairs = [row for row in rows if isinstance(row, EvidenceRow)]
    counted = pairs if told_of is None else [row for row in told_of if isinstance(row, EvidenceRow)]
    told = observations(counted, judged=metric.judged)
    if not metric.judged:
        return metric.measure(params, told)
    concepts = [known.scope.concept(name) for name in check.concepts]
    sheets = {one.id: counts for one in concepts if (counts := known.counts(one))}
    metric.errors = errors_of(concepts, pairs, known.alike, known.scope, sheets)
    return with_unsure(metric.measure(params, told), counted, known.scope)


def _comparable(measurement: Measurement) -> dict[str, Any]:
    data = Params.as_json(measurement)
    return {**data, "details": {name: value for name, value in data["details"].items() if name not in ADDED}}


def _difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """Return the first field that differs, or an empty text."""
    return next((name for name in ours if not _same(ours[name], theirs[name])), "")


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE / 1000)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _words(number: Interval) -> str:
    return f"{number.value:.6g} ({number.low:.6g} to {number.high:.6g}), n {number.n}"


def _contradiction(check: CheckRecord, problem: str) -> Finding:
    return Finding(Code.REPORT_CONTRADICTS, REPORT, f"check {check.id} {problem}")
