"""What the base model's images say of a scorer's errors, without any labels."""

from __future__ import annotations

from typing import Any

from publisher.api import Concept, Judgement, Scope, ScorerErrors, Tally
from publisher.api.base_errors import errors_of
from publisher.api.evidence import EvidenceRow


def concept(name: str, kind: Any = "object") -> Concept:
    return Concept(id=name, kind=kind, name=name, label=name, prompts=(f"a {name}", f"one {name}"))


CAT, DOG, NOTO = concept("cat"), concept("dog"), concept("noto", "style")
SCOPE = Scope(concepts=(CAT, NOTO), keep=(DOG,))


def row(asked: str, seen: str | None, seed: int, prompt: str = "", **changes: Any) -> EvidenceRow:
    """Return a line about an image of the base model in which the scorer sees this; None: it is unsure."""
    labels = {"object": seen, "style": seen} if seen else {}
    base = Judgement(labels=labels, scores=dict.fromkeys(labels, 1.0), unsure=() if seen else ("object", "style"))
    fields: dict[str, Any] = {"check": "x", "concept": asked, "prompt": prompt or f"a {asked}", "negative_prompt": ""}
    fields |= {"seed": seed, "sampler": "s", "steps": 2, "guidance": 1.0, "base": base, "hardened": base}
    fields |= {"base_sha256": "", "hardened_sha256": "", "distance": 0.0}
    return EvidenceRow(**fields | changes)


def test_images_of_the_plain_prompts_of_all_checks_count_once_each() -> None:
    rows = [row("cat", "cat", 0), row("cat", "dog", 1), row("cat", "cat", 0, check="y"), row("cat", "dog", 2, "kitty")]
    rows += [row("dog", "dog", 0), row("dog", "cat", 1), row("noto", "cat", 5)]
    found = errors_of([CAT], rows[3:4], rows, SCOPE, {})["cat"]
    assert found == ScorerErrors(
        source="",
        seen=Tally(hits=1, n=2),
        false_alarms=Tally(hits=1, n=2),
    )


def test_where_no_check_asks_plainly_the_check_itself_counts() -> None:
    rows = [row("cat", "cat", 0, "kitty"), row("cat", "cat", 1, "puss")]
    found = errors_of([CAT], rows, rows, SCOPE, {})["cat"]
    assert found == ScorerErrors(source="", seen=Tally(hits=2, n=2))


def test_a_concept_alone_of_its_kind_is_held_against_all_others() -> None:
    rows = [row("noto", "noto", 0), row("cat", "cat", 1), row("dog", "noto", 2)]
    found = errors_of([NOTO], rows[:1], rows, SCOPE, {})["noto"]
    assert found.false_alarms == Tally(hits=1, n=2)


def test_what_the_scorer_is_unsure_of_is_neither_seen_nor_passed_over() -> None:
    rows = [row("cat", None, 0), row("cat", "cat", 0, "one cat"), row("dog", None, 0), row("dog", "dog", 0, "one dog")]
    found = errors_of([CAT], rows[:2], rows, SCOPE, {})["cat"]
    assert (found.seen, found.false_alarms) == (Tally(hits=1, n=2), Tally(hits=1, n=2))


def test_a_sheet_takes_the_place_of_the_base_model() -> None:
    sheet = ScorerErrors(source="calibration/cat.json", seen=Tally(hits=47, n=50), false_alarms=Tally(hits=0, n=50))
    rows = [row("cat", "cat", 0), row("dog", "dog", 0)]
    found = errors_of([CAT, DOG], rows, rows, SCOPE, {"cat": sheet})
    assert found["cat"] == sheet
    assert found["dog"].source == ""
