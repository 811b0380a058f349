"""The model card of a package with a freeze mask: whom it binds, how to honour it, what an audit sees."""

from __future__ import annotations

from typing import Any

from publisher.api import ReleaseReport
from publisher.package import card
from support.packages import report_data

MASK: dict[str, Any] = {
    "component": "unet",
    "granularity": "head",
    "tensors": {"frozen": 62, "total": 326},
    "parameters": {"frozen": 2637, "total": 8790},
    "others": {"seed-1": 0.914},
    "largest": [{"name": "conv_in.weight", "frozen": 2000, "total": 2000}],
}


def trial(model: str, gain: float) -> dict[str, Any]:
    return {
        "concept": "cigarette",
        "model": model,
        "seed": 0,
        "evaluation_steps": [0, 10],
        "hits": [0, 5],
        "images_per_evaluation": 10,
        "losses": [0.6, round(0.6 - gain, 4)],
        "similarity": [],
        "full": 1.0,
    }


def text_of(**changes: Any) -> str:
    data = report_data() | {"freeze_mask": MASK} | changes
    return card.render(ReleaseReport.parse(data), base_card=False).decode()


def section(text: str) -> str:
    return text[text.index("## Fine-tuning: the freeze mask") : text.index("## What this release does not prove")]


def test_the_card_says_plainly_that_nobody_is_stopped() -> None:
    found = section(text_of())
    assert "**A user who ignores the mask is not stopped.**" in found
    assert "It is an agreement, not a lock" in found


def test_the_card_shows_the_guard_and_the_audit_as_they_are_called() -> None:
    found = section(text_of())
    assert 'guard = publisher.guard(pipeline, "tiny-1.2.0", verify_key="publisher.pub")' in found
    assert "publisher audit MY-MODEL --against tiny-1.2.0 --key publisher.pub" in found
    assert "It does not see what the model can do" in found


def test_the_card_names_both_ratios_and_the_largest_tensors() -> None:
    found = section(text_of())
    assert "2,637 of 8,790 parameters (30%), in 62 of 326 tensors (19%); frozen as one: the rows of attention" in found
    assert "Most of it is in `conv_in.weight` (2,000)." in found
    assert "91.4% in common with another seed's mask" in found


def test_the_card_has_the_shares_that_masks_leave() -> None:
    data = report_data()
    data["claims"][0]["checks"][0] |= {
        "attack": "full-finetune",
        "attack_params": {"mask": True},
        "metric": "gain-left",
        "trials": [trial("hardened", 0.1), trial("unmasked", 0.4), trial("random-mask", 0.3)],
    }
    found = section(text_of(claims=data["claims"]))
    assert "| concept | attack | gain | of | under the mask | a random mask |\n" in found
    assert "| cigarette | full-finetune | loss after 10 steps | no mask | 25% | 75% |" in found


def test_a_card_without_a_mask_says_nothing_of_one() -> None:
    assert "freeze mask" not in text_of(freeze_mask=None)


def test_foreign_names_cannot_format_the_card() -> None:
    strange = MASK | {"component": "`x`\n# y", "others": {"seed-<b>": 0.5}, "granularity": "<i>"}
    found = section(text_of(freeze_mask=strange))
    assert "of `'x'\\n# y` is to leave" in found
    assert "<b>" not in found
    assert "<i>" not in found
