"""Concepts written out: names, labels and prompts, from the short forms of the manifest."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath

from publisher.api import Concept, Kind, Scope
from publisher.manifest.images import image_files
from publisher.manifest.nearest import suggestion
from publisher.manifest.places import Path, Problems
from publisher.manifest.schema import ConceptEntry, Manifest
from publisher.manifest.scorers import Labels
from publisher.manifest.templates import expand, placeholders

MAX_PROMPTS = 1000
"""Most prompts of one concept: no affordable number of images could tell more of them apart."""


@dataclass(frozen=True)
class Draft:
    """A concept with its name and label, whose prompts are not made yet."""

    entry: ConceptEntry
    name: str
    label: str
    path: Path
    """Place in the manifest."""

    @property
    def id(self) -> str:
        """Id of the concept."""
        return self.entry.id

    @property
    def kind(self) -> Kind:
        """Kind of the concept."""
        return self.entry.kind


def resolve_scope(
    manifest: Manifest, labels: Labels | None, rest: Labels, folder: FilePath, problems: Problems
) -> Scope | None:
    """Write out all concepts of a manifest.

    Args:
        manifest: well-formed.
        labels: of all scorers under ``evaluate``; None without a scorer, when labels are not checked.
        rest: labels of the scorer that ``keep.rest_of`` names; empty without one.
        folder: of the manifest, where reference images are looked for.
        problems: gets what is wrong; the result is then None.
    """
    before = len(problems)
    go = [_draft(entry, labels, ("concepts", i)) for i, entry in enumerate(manifest.concepts)]
    keep = [_draft(entry, labels, ("keep", "concepts", i)) for i, entry in enumerate(manifest.keep.concepts)]
    _unique(go, keep, problems)
    for draft in (*go, *keep):
        _check_label(draft, labels, problems)
    keep += _rest(rest, [*go, *keep], problems)
    _apart(go, keep, problems)
    kept: dict[str, list[Draft]] = {kind: [] for kind in ("object", "style", "person", "unsafe")}
    for draft in keep:
        kept[draft.kind].append(draft)
    concepts = [_concept(draft, manifest, kept, folder, problems) for draft in go]
    others = [_concept(draft, manifest, kept, folder, problems) for draft in keep]
    _prompts_apart(go, concepts, others, problems)
    if len(problems) > before:
        return None
    return Scope(
        concepts=tuple(filter(None, concepts)), keep=tuple(filter(None, others)), keep_prompts=manifest.keep.prompts
    )


def slug(label: str) -> str:
    """Return a label as an id, such as ``"police-officer"``; empty if nothing of it can stand in an id."""
    return re.sub(r"[^a-z0-9._]+", "-", label.lower()).strip("-._")[:64]


def _draft(entry: ConceptEntry, labels: Labels | None, path: Path) -> Draft:
    known = (labels or {}).get(entry.kind) or ()
    match = next((label for label in known if slug(label) == entry.id), None)
    name = entry.name or match or re.sub(r"[-_]+", " ", entry.id).strip()
    label = entry.label or (name if name in known or match is None else match)
    return Draft(entry, name, label, path)


def _unique(go: Iterable[Draft], keep: Iterable[Draft], problems: Problems) -> None:
    first: dict[str, Draft] = {}
    for draft in (*go, *keep):
        other = first.setdefault(draft.id, draft)
        if other is draft:
            continue
        line = problems.places.value(other.path).line
        if other.path[0] == draft.path[0]:
            problems.at_value(draft.path, f"the concept '{draft.id}' is here twice, first in line {line}.")
        else:
            problems.at_value(draft.path, f"the concept '{draft.id}' is to be kept, and to go by line {line}.")


def _apart(go: Sequence[Draft], keep: Sequence[Draft], problems: Problems) -> None:
    """Complain about words of a concept to go that name a kept concept of its kind: no image could satisfy both."""
    kept = {
        (draft.kind, _plain(word)): draft for draft in reversed(keep) for word in (*draft.entry.synonyms, draft.name)
    }
    for draft in go:
        synonyms = [("synonym", word, (*draft.path, "synonyms", i)) for i, word in enumerate(draft.entry.synonyms)]
        for what, word, path in [("name", draft.name, draft.path), *synonyms]:
            other = kept.get((draft.kind, _plain(word)))
            if other is None or other.id == draft.id:
                continue
            line = problems.places.value(other.path).line
            message = f"the {what} '{word}' of '{draft.id}' names the concept '{other.id}', to be kept by line {line}."
            problems.at_value(path, message, "Take the word out, or let the other concept go as well.")


def _prompts_apart(
    go: Sequence[Draft], concepts: Sequence[Concept | None], kept: Iterable[Concept | None], problems: Problems
) -> None:
    """Complain about prompts that are to show a concept of one kind and not to show another one of this kind."""
    staying = {(other.kind, _plain(prompt)): other for other in kept if other for prompt in other.prompts}
    for draft, concept in zip(go, concepts, strict=True):
        for prompt in (*concept.prompts, *concept.paraphrases) if concept else ():
            other = staying.get((draft.kind, _plain(prompt)))
            if other is not None and not _same_words(draft, other):
                message = f"the prompt '{prompt}' of '{draft.id}' also asks for '{other.id}', which is to be kept."
                problems.at_value(draft.path, message, "Word one of them differently.")
                break


def _same_words(draft: Draft, other: Concept) -> bool:
    """Return whether the words themselves are the same, of which :func:`_apart` has complained."""
    mine = {_plain(word) for word in (draft.name, *draft.entry.synonyms)}
    return bool(mine & {_plain(word) for word in (other.name, *other.synonyms)})


def _plain(text: str) -> str:
    """Return the text as it reads: without case, width and the difference of blanks, hyphens and underscores."""
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFKC", text).casefold()).strip()


def _check_label(draft: Draft, labels: Labels | None, problems: Problems) -> None:
    if labels is None:
        return
    if draft.kind not in labels:
        hint = f"Judged are: {', '.join(labels)}.  Name a scorer for it under evaluate.scorers."
        problems.at_value((*draft.path, "kind"), f"no scorer judges the kind '{draft.kind}'.", hint)
        return
    known = labels[draft.kind]
    if known is None or draft.label in known:
        return
    hint = suggestion(draft.label, known, f"Labels of the kind {draft.kind}")
    message = f"the scorer has no label '{draft.label}' for the concept '{draft.id}'."
    problems.at_value((*draft.path, "label"), message, f"{hint}\nGive the scorer's word with: label")


def _rest(rest: Labels, named: Sequence[Draft], problems: Problems) -> list[Draft]:
    """Return a kept concept for every label that no other concept has."""
    path: Path = ("keep", "rest_of")
    labels = {(draft.kind, draft.label) for draft in named}
    ids = {draft.id for draft in named}
    found = []
    for kind in (kind for kind, every in rest.items() if every is None):
        hint = "Name what stays under keep.concepts."
        problems.at_value(path, f"the scorer takes any {kind} label, so there is no list of the rest.", hint)
    for kind, label in ((kind, label) for kind, every in rest.items() for label in every or ()):
        if (kind, label) in labels:
            continue
        free = [name for name in (slug(label), slug(f"{kind}-{label}")) if name and name not in ids]
        if not slug(label) or not free:
            hint = "Name it under keep.concepts, with an id of its own."
            problems.at_value(path, f"the scorer's {kind} label '{label}' gives no id that is free.", hint)
            continue
        ids.add(free[0])
        found.append(Draft(ConceptEntry.parse({"id": free[0], "kind": kind}), label, label, path))
    return found


def _concept(
    draft: Draft, manifest: Manifest, kept: Mapping[str, Sequence[Draft]], folder: FilePath, problems: Problems
) -> Concept | None:
    entry = draft.entry
    images = image_files(entry.images, folder, draft.path, problems)
    templates = entry.prompts or getattr(manifest.prompts, entry.kind)
    others = {kind: [other.name for other in drafts if other.id != draft.id] for kind, drafts in kept.items()}
    if not _check_templates(draft, templates, others, problems):
        return None
    prompts = dict.fromkeys(prompt for template in templates for prompt in expand(template, draft.name, others))
    named = [template for template in templates if "name" in placeholders(template)]
    paraphrases = entry.paraphrases or dict.fromkeys(
        prompt for synonym in entry.synonyms for template in named for prompt in expand(template, synonym, others)
    )
    if max(len(prompts), len(paraphrases)) > MAX_PROMPTS:
        message = f"the concept '{entry.id}' gets more than {MAX_PROMPTS} prompts."
        problems.at_value(draft.path, message, "Use fewer templates, or templates with fewer placeholders.")
        return None
    return Concept(
        id=entry.id,
        kind=entry.kind,
        name=draft.name,
        synonyms=entry.synonyms,
        prompts=tuple(prompts),
        paraphrases=tuple(paraphrases),
        description=entry.description or "",
        images=images,
        label=draft.label,
    )


def _check_templates(
    draft: Draft, templates: Sequence[str], others: Mapping[str, Sequence[str]], problems: Problems
) -> bool:
    """Return whether every template gives a prompt."""
    if not templates:
        hint = f"Give templates under prompts.{draft.kind}, or prompts of its own."
        which = f"'{draft.id}'" if draft.path[-1] != "rest_of" else f"of the kind '{draft.kind}'"
        problems.at_value(draft.path, f"the concept {which} has no prompts.", hint)
        return False
    path: Path = (*draft.path, "prompts") if draft.entry.prompts else ("prompts", draft.kind)
    good = True
    for position, template in enumerate(templates):
        for kind in placeholders(template):
            if kind in others and not others[kind]:
                other = f" but '{draft.id}'" if kind == draft.kind and draft.path[0] == "keep" else ""
                message = f"{{{kind}}} stands for kept concepts of the kind '{kind}', and there is none{other}."
                problems.at_value((*path, position), message, "Name some under keep.concepts, or drop the template.")
                good = False
    return good
