"""Rules of forms of the report, executors and sources of models."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from publisher.api import ModelDefaults
from publisher.errors import PublisherError
from publisher.testing.plugin import PluginUnderTest, Rule, demand, new_folder
from publisher.testing.sample import HITS, sample_report

DECISIONS = tuple(HITS)
FILENAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def file_has_a_plain_name(one: PluginUnderTest) -> None:
    """Demand a plain file name, for the report's folder."""
    name = one.plugin.filename
    demand(FILENAME.fullmatch(name), f"its filename is {name!r}: lower case, digits and ._- only, no folder")


def renders_bytes(one: PluginUnderTest) -> None:
    """Demand a file with something in it, of reports that passed, failed and could not be decided."""
    for decision in DECISIONS:
        found = one.plugin().render(sample_report(decision))
        demand(isinstance(found, bytes) and found, f"render returns {type(found).__name__}, not bytes with something")


def tells_verdicts_apart(one: PluginUnderTest) -> None:
    """Demand that a failed report looks unlike one that passed."""
    texts = {one.plugin().render(sample_report(decision)) for decision in DECISIONS}
    demand(len(texts) == 3, "two of passed, failed and unknown look the same")


def renders_the_same_again(one: PluginUnderTest) -> None:
    """Demand the same bytes for the same report, and the report left as it was."""
    report = sample_report("failed")
    first, again = (one.plugin().render(report) for _ in range(2))
    demand(first == again, "it gives other bytes when it is asked again: no dates, no random numbers, sorted keys")
    demand(report == sample_report("failed"), "it changed the report that it was given")


@dataclass(frozen=True)
class NumberTask:
    """A task that needs no model."""

    number: int
    device: str = "cpu"
    threads: int = 1
    folder: Path = Path()


def doubled(task: NumberTask) -> int:
    """Return twice the number.

    Raises:
        ValueError: the number is negative.
    """
    if task.number < 0:
        raise ValueError("is negative")
    return 2 * task.number


def keeps_the_order(one: PluginUnderTest) -> None:
    """Demand one result a task, in the order of the tasks; none of none; twice with one executor."""
    executor = one.make()
    try:
        found = [list(executor.map(doubled, [NumberTask(n) for n in range(count)])) for count in (5, 0, 3)]
    finally:
        executor.close()
    demand(found == [[0, 2, 4, 6, 8], [], [0, 2, 4]], f"of 5, 0 and 3 tasks it returns {found}")


def failures_come_out(one: PluginUnderTest) -> None:
    """Demand that what a task raises is raised, if some results were there before."""
    executor = one.make()
    results: list[int] = []
    failed = False
    try:
        results += executor.map(doubled, [NumberTask(1), NumberTask(-1), NumberTask(2)])
    except Exception:  # noqa: BLE001 - an executor wraps what a task raises
        failed = True
    finally:
        executor.close()
    demand(failed, f"a task raised, and nobody hears of it: results were {results}")


def closes_unused(one: PluginUnderTest) -> None:
    """Demand that one that was never used can be closed: a release may end before its checks."""
    one.make().close()


def says_what_is_wrong(one: PluginUnderTest) -> None:
    """Demand that a reference that makes no sense is no crash: a sentence, or None where only fetching will tell."""
    said = one.plugin().check(f"{one.plugin.name.partition(':')[0]}:")
    demand(said is None or (isinstance(said, str) and said), f"check() returns {said!r}: a sentence, or None")


def has_defaults(one: PluginUnderTest) -> None:
    """Demand defaults for manifests, if empty ones."""
    found = one.plugin().defaults(one.plugin.name)
    demand(isinstance(found, ModelDefaults), f"defaults() returns {found!r}, which is no api.ModelDefaults")


def locates_without_crash(one: PluginUnderTest) -> None:
    """Demand of a model that is not on this machine None, or one of our errors: plans ask without a network."""
    folder = new_folder()
    reference = one.plugin.name if ":" in one.plugin.name else f"{one.plugin.name}:no-such-model"
    try:
        found: Any = one.plugin().locate(reference, folder)
    except PublisherError:
        return  # nothing could fetch it, and the error says so
    demand(found is None or Path(found).is_dir(), f"locate() returns {found!r}, which is no folder")


REPORT_FORMAT: dict[str, Rule] = {
    "file-has-a-plain-name": file_has_a_plain_name,
    "renders-bytes": renders_bytes,
    "tells-verdicts-apart": tells_verdicts_apart,
    "renders-the-same-again": renders_the_same_again,
}
EXECUTOR: dict[str, Rule] = {
    "keeps-the-order": keeps_the_order,
    "failures-come-out": failures_come_out,
    "closes-unused": closes_unused,
}
SOURCE: dict[str, Rule] = {
    "says-what-is-wrong": says_what_is_wrong,
    "has-defaults": has_defaults,
    "locates-without-crash": locates_without_crash,
}
