"""Try a package's finds again: without searching, and without the plugin of the attack that made them.

A package seals its finds. Those who have them, as the publisher does, show two things with this: that they are the ones
which the package sealed, and that they do what its evidence says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from publisher.api import Check, Concept, ReleaseReport, Scope
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

Reason = Literal["refused", "unknown_concept", "not_given"]
"""Why lines of evidence, or finds, are not made again."""
WHY: Mapping[Reason, str] = {
    "refused": "nobody may generate what they ask for: sexual content together with minors",
    "unknown_concept": "the package's manifest has no such concept",
    "not_given": "the folder does not have them in clear",
}


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
    left_out: Reason | None = None
    """Why no image was generated from it; None: images were."""


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
    """Yield what becomes of each find of the hardened model, also of those that are not tried.

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
        theirs = {
            (row.search.concept, one.seal): (number, one)
            for row in _hardened(sealed[name])
            for number, one in enumerate(row.finds)
        }
        given = set[tuple[str, str]]()
        for row in _hardened(finds.rows[name]):
            if row.model not in (hardened.key, hardened.bare.key):
                raise UsageError(
                    f"the finds of check {name!r} were made on another model", hint="Give those of this package."
                )
            for number, one in enumerate(row.finds):
                seal = one.seal if one.find is None or finds.published else finds.vault.seal(one.find)
                key = row.search.concept, seal
                given.add(key)
                _, said = theirs.get(key, (number, None))
                again = ReplayedFind(name, row.search.concept, number, said is not None, 0, 0, ())
                yield _tried(again, one, said, check, model, gallery)
        for key in [one for one in theirs if one not in given]:
            yield ReplayedFind(name, key[0], theirs[key][0], True, 0, 0, (), "not_given")


def why_left_out(
    concept: str, texts: Sequence[str], scope: Scope, refused: Callable[[str, Concept], bool]
) -> Reason | None:
    """Return why nothing is generated for a stranger from these texts; None: it may be.

    No release has such lines, so who finds them in a package knows that no release of this program made them.

    Args:
        concept: id of the concept that they are about.
        texts: prompts and negative prompts.
        scope: of the package's manifest.
        refused: says what nobody may generate.
    """
    known = next((one for one in (*scope.concepts, *scope.keep) if one.id == concept), None)
    if known is None:
        return "unknown_concept"
    return "refused" if any(refused(text, known) for text in texts) else None


def _hardened(rows: tuple[SearchRow, ...]) -> list[SearchRow]:
    return [row for row in rows if row.search.model == "hardened"]


def _tried(
    again: ReplayedFind,
    mine: FindRow,
    theirs: FindRow | None,
    check: Check,
    model: ModelUnderTest,
    gallery: Gallery,
) -> ReplayedFind:
    """Return what becomes of a find that is generated from again, unless it is not there or nobody may."""
    find, concept = mine.find, again.concept
    if find is None:
        return replace(again, left_out="not_given")
    why = why_left_out(concept, (*find.prompts, find.negative_prompt), gallery.scope, is_refused_candidate)
    if why:
        return replace(again, left_out=why)
    wanted = gallery.scope.concept(concept)
    try:
        scorer = judge_of(wanted, check, gallery.tools, judged=True)
        found = judge_find(gallery, find, mine.seeds, wanted, scorer, model)
    except Unmeasured as error:
        raise UsageError(f"a find of check {check.id!r} cannot be tried again: {error}") from error
    shown = [label == wanted.label for label in found.labels]
    said = [label == wanted.label for label in theirs.labels] if theirs else []
    return replace(
        again,
        n=len(shown),
        same=sum(a == b for a, b in zip(found.sha256, mine.sha256, strict=True)),
        agrees=tuple(a == b for a, b in zip(shown, said, strict=True)) if said else (),
    )
