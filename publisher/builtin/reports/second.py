"""Second opinions in the reports: how often another scorer says the same as the one that decides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from publisher.api import Opinion, ReleaseReport
from publisher.api.intervals import share
from publisher.report.wording import count, figure

MODELS = {"base": "base model", "hardened": "hardened model"}
KEPT = "what is kept"


@dataclass(frozen=True)
class OpinionRow:
    """One line of the table of a second scorer."""

    concept: str
    model: str
    seen: str
    """Images in which the scorer that decides sees the concept."""
    also: str
    """Images in which the second one does."""
    agreed: str
    """Share of images about which both say the same, with its interval."""


def deciding(report: ReleaseReport) -> list[str]:
    """Return the ids of the scorers that decide."""
    return [name for name, card in report.scorers.items() if card.decides]


def tables(report: ReleaseReport) -> dict[str, list[OpinionRow]]:
    """Return the table of each second scorer that judged something, by its id."""
    names = {concept.id: concept.name for concept in report.concepts}
    return {
        name: [_row(one, names) for one in card.opinions]
        for name, card in report.scorers.items()
        if not card.decides and card.opinions
    }


def sentences(report: ReleaseReport) -> Iterator[str]:
    """Yield what each second scorer says, in a sentence."""
    for name, card in report.scorers.items():
        if card.decides:
            continue
        n = sum(one.n for one in card.opinions)
        if not n:
            yield f"The second opinion {name} judged no image."
            continue
        said = _agreed(sum(one.agreed for one in card.opinions), n)
        yield f"The second opinion {name} agrees about {said} of {count(n, 'image')}; no verdict depends on it."


def _row(one: Opinion, names: dict[str, str]) -> OpinionRow:
    where = names.get(one.concept, one.concept) if one.concept else KEPT
    seen, also = one.both + one.first, one.both + one.second
    unsure = f", {one.unsure} unsure" if one.unsure else ""
    return OpinionRow(
        where, MODELS[one.model], f"{seen} of {one.n}", f"{also} of {one.n}{unsure}", _agreed(one.agreed, one.n)
    )


def _agreed(agreed: int, n: int) -> str:
    found = share(agreed, n)
    value, low, high = (figure(round(one, 4), "share") for one in (found.value, found.low, found.high))
    return f"{value} ({low} to {high})"
