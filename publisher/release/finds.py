"""Try a package's finds again: without searching, and without the plugin of the attack that made them.

A package seals its finds. Whoever has them, as the publisher does, shows two things with this: that they are the ones
which the package sealed, and that they do what its evidence says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from publisher.api import Check, Concept, ReleaseReport
from publisher.api.evidence import FindRow, SearchRow
from publisher.comparison.subjects import parse_rows, read_searches
from publisher.errors import UsageError
from publisher.evaluate.context import ModelUnderTest, Unmeasured
from publisher.evaluate.scorers import judge_of
from publisher.evaluate.searching.images import Gallery
from publisher.evaluate.searching.judging import judge_find
from publisher.evaluate.vault import SALT, Vault
from publisher.report.reader import find as find_report
from publisher.runtime.refusals import is_refused_candidate


@dataclass(frozen=True)
class ReplayedFind:
    """A find of the hardened model, tried again on its recorded seeds."""

    check: str
    concept: str
    number: int
    """Place among the finds of the search, from 0."""
    sealed: bool
    """The package has its seal, or the find itself."""
    n: int
    """Images."""
    same: int
    """Those with the recorded digest."""
    agrees: tuple[bool, ...]
    """Of each image: the scorer sees the concept as the package's evidence says. Empty where that says nothing."""


@dataclass(frozen=True)
class FindsFolder:
    """Finds in clear: those of a work folder, beside their salt, or those that a package publishes."""

    vault: Vault
    rows: Mapping[str, tuple[SearchRow, ...]]
    """Check's id -> its searches."""
    published: bool
    """They are the package's own."""


def read_finds(folder: Path, package: Path, report: ReleaseReport) -> FindsFolder:
    """Read finds.

    Args:
        folder: ``finds`` of a work folder, or the package, if it publishes them.
        package: that they belong to.
        report: of the package.

    Raises:
        UsageError: there are none.
    """
    if folder.resolve() == package.resolve():
        rows = read_searches(package, report)
        if not any(one.find for some in rows.values() for row in some for one in row.finds):
            hint = "Give the folder 'finds' of the work folder in which the release was made."
            raise UsageError("the package publishes no finds: they are sealed", where=str(folder), hint=hint)
        return FindsFolder(Vault(find_report(package).parent / "evidence" / "finds"), rows, published=True)
    if not (folder / SALT).is_file():
        hint = "Give the folder 'finds' of a work folder, such as .work/finds beside the package."
        raise UsageError("holds no salt, so no find can be compared with its seal", where=str(folder), hint=hint)
    paths = sorted(folder.glob("*.jsonl"))
    return FindsFolder(
        Vault(folder), {path.stem: parse_rows(path.read_bytes(), SearchRow, path) for path in paths}, published=False
    )


def try_again(
    finds: FindsFolder,
    checks: Mapping[str, Check],
    sealed: Mapping[str, tuple[SearchRow, ...]],
    hardened: ModelUnderTest,
    gallery: Gallery,
) -> Iterator[ReplayedFind]:
    """Yield what becomes of each find of the hardened model.

    Args:
        finds: in clear.
        checks: of the package, by id.
        sealed: searches of the package's evidence, by check.
        hardened: the package's model.
        gallery: generates and looks; its vault has the finds' tensors.

    Raises:
        UsageError: a find cannot be tried, or another model was searched.
    """
    for name in [one for one in sealed if one in finds.rows and one in checks]:
        check = checks[name]
        model = hardened if check.attached else hardened.bare
        theirs = {one.seal: one for row in _hardened(sealed[name]) for one in row.finds}
        for row in _hardened(finds.rows[name]):
            if row.model not in (hardened.key, hardened.bare.key):
                raise UsageError(
                    f"the finds of check {name!r} were made on another model", hint="Give those of this package."
                )
            for number, one in enumerate(row.finds):
                if one.find is not None:
                    seal = one.seal if finds.published else finds.vault.seal(one.find)
                    wanted = gallery.scope.concept(row.search.concept)
                    found = _tried(one, check, wanted, model, gallery)
                    yield _compared(found, one, theirs.get(seal), check, wanted, number)


def _hardened(rows: tuple[SearchRow, ...]) -> list[SearchRow]:
    return [row for row in rows if row.search.model == "hardened"]


def _tried(row: FindRow, check: Check, concept: Concept, model: ModelUnderTest, gallery: Gallery) -> FindRow:
    if row.find is None:
        raise ValueError("a find that is not there")
    if any(is_refused_candidate(text, concept) for text in (*row.find.prompts, row.find.negative_prompt)):
        raise UsageError(f"the words of a find of check {check.id!r} are such that nobody may generate them")
    try:
        scorer = judge_of(concept, check, gallery.tools, judged=True)
        return judge_find(gallery, row.find, row.seeds, concept, scorer, model)
    except Unmeasured as error:
        raise UsageError(f"a find of check {check.id!r} cannot be tried again: {error}") from error


def _compared(
    found: FindRow, mine: FindRow, theirs: FindRow | None, check: Check, concept: Concept, number: int
) -> ReplayedFind:
    shown = [label == concept.label for label in found.labels]
    said = [label == concept.label for label in theirs.labels] if theirs else []
    return ReplayedFind(
        check=check.id,
        concept=concept.id,
        number=number,
        sealed=theirs is not None,
        n=len(shown),
        same=sum(a == b for a, b in zip(found.sha256, mine.sha256, strict=True)),
        agrees=tuple(a == b for a, b in zip(shown, said, strict=True)) if said else (),
    )
