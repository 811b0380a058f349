"""Packages whose report has trials of attacks by training: the card, and what the verifier compares."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from publisher.api import ReleaseReport, Trial
from publisher.builtin.metrics.curve_statistics import AgainstParams
from publisher.builtin.metrics.curves import HalfTimeRatio
from publisher.package import build, card, keys, sign
from publisher.package.verify import verify
from support.evaluating import REPORT, codes, places
from support.packages import CREATED, finish, json_lines, report_data

NAME = "evidence/cigarette.lora.jsonl"
Change = Callable[[dict[str, Any]], object]


def trial(model: str, seed: int, hits: list[int]) -> dict[str, Any]:
    return {
        "concept": "cigarette",
        "model": model,
        "seed": seed,
        "evaluation_steps": [0, 10, 20],
        "hits": hits,
        "images_per_evaluation": 10,
        "losses": [0.5, 0.3, 0.2],
        "similarity": [],
        "full": 1.0,
    }


TRIALS = [
    trial(model, seed, hits) for model, hits in (("hardened", [0, 0, 4]), ("before", [0, 10, 10])) for seed in (0, 1)
]


def evidence(trials: list[dict[str, Any]]) -> bytes:
    return json_lines(trial_row(one) for one in trials)


def trial_row(one: dict[str, Any]) -> dict[str, Any]:
    """Return a trial with what the scorer saw: the concept in the first images of each evaluation, as often as said."""
    images_per_evaluation = one["images_per_evaluation"]
    labels = [["cigarette"] * hits + ["pencil"] * (images_per_evaluation - hits) for hits in one["hits"]]
    return {
        "check": "cigarette.lora",
        "model": "aa" * 32,
        "captions": ["a cigarette"],
        "prompts": ["a cigarette"] * images_per_evaluation,
        "seeds": list(range(images_per_evaluation)),
        "trial": one,
        "labels": labels,
        "sha256": [["bb" * 32] * images_per_evaluation] * len(labels),
    }


def measured(trials: list[dict[str, Any]]) -> dict[str, Any]:
    found = HalfTimeRatio().read(AgainstParams(against="before"), [Trial.parse(one) for one in trials])
    return found.as_json()


def data_of(trials: list[dict[str, Any]], rows: bytes) -> dict[str, Any]:
    data = report_data()
    number = {"value": 2.5, "low": 2.1, "high": 1e6, "n": 2, "method": "bootstrap 95%"}
    data["claims"][0]["checks"][0] |= {
        "id": "cigarette.lora",
        "attack": "lora",
        "attack_params": {"captions": "name", "images": 20},
        "metric": "t50-ratio",
        "unit": "times",
        "better": "higher",
        "gate": {"lower_at_least": 2.0},
        "trials": trials,
        "measurement": {"hardened": number, "details": {"against": "before", "censored": True}},
        "evidence": NAME,
        "evidence_sha256": hashlib.sha256(rows).hexdigest(),
    }
    return data


@pytest.fixture
def make(tmp_path: Path, model: dict[str, Path], key_pair: tuple[Path, Path]) -> Callable[..., Path]:
    """Build and sign a package with these trials in the report and in the evidence."""

    def build_and_sign(trials: list[dict[str, Any]], rows: bytes) -> Path:
        folder = tmp_path / "made"
        build.lay_out(folder, model, {})
        data = data_of(trials, rows)
        data["claims"][0]["checks"][0] |= {"metric_params": {"against": "before"}, "measurement": measured(trials)}
        finish(folder, data, evidence={NAME: rows})
        sign.sign(folder, keys.load_private(key_pair[0]), created=CREATED)
        return folder

    return build_and_sign


def test_a_package_with_trials_passes(make: Callable[..., Path], public: Path) -> None:
    assert verify(make(TRIALS, evidence(TRIALS)), public).findings == ()


def test_a_changed_trial_is_found(make: Callable[..., Path], public: Path) -> None:
    folder = make(TRIALS, evidence(TRIALS))
    text = (folder / REPORT).read_text()
    data = json.loads(text)
    data["claims"][0]["checks"][0]["trials"][0]["hits"] = [0, 0, 0]
    (folder / REPORT).write_text(json.dumps(data))
    found = verify(folder, public)
    assert places(found, "V010") == {REPORT}
    assert codes(found) == {"V010"}


@pytest.mark.parametrize(
    "rows",
    [
        evidence([trial("hardened", 0, [0, 0, 0]), *TRIALS[1:]]),
        evidence(TRIALS[1:]),
        evidence(TRIALS[::-1]),
        b"",
    ],
    ids=["other hits", "one less", "another order", "empty"],
)
def test_trials_that_are_not_the_evidences_are_refused_although_signed(
    make: Callable[..., Path], public: Path, rows: bytes
) -> None:
    found = verify(make(TRIALS, rows), public)
    assert [finding.message for finding in found.findings] == ["has other trials than check cigarette.lora"]
    assert places(found, "V031") == {f"release/reports/{NAME}"}


@pytest.mark.parametrize("line", [b'{"prompt": "a cigarette"}', b"[1]", b'{"trial": 1}', b"{"])
def test_evidence_that_is_none_is_refused_although_signed(make: Callable[..., Path], public: Path, line: bytes) -> None:
    found = verify(make(TRIALS, evidence(TRIALS[:1]) + line + b"\n"), public)
    assert codes(found) <= {"V021", "V031"}
    assert places(found, next(iter(codes(found)))) == {f"release/reports/{NAME}"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row["labels"][2].__setitem__(0, "pencil"), "counts otherwise than its labels say, in line 1"),
        (lambda row: row["labels"][2].append("pencil"), "counts otherwise than its labels say, in line 1"),
        (lambda row: row.update(check="other"), "is about another check or concept in line 1"),
    ],
)
def test_trials_must_count_what_the_scorer_saw(
    make: Callable[..., Path], public: Path, change: Change, message: str
) -> None:
    rows = [trial_row(one) for one in TRIALS]
    change(rows[0])
    found = verify(make(TRIALS, json_lines(rows)), public)
    assert [finding.message for finding in found.findings] == [message]


def test_the_number_of_trials_is_made_again(make: Callable[..., Path], public: Path) -> None:
    found = verify(make(TRIALS, evidence(TRIALS)), public)
    assert (found.findings, found.recomputed.checks) == ((), ["cigarette.lora"])


def test_trials_of_a_concept_that_the_check_does_not_name_are_refused(make: Callable[..., Path], public: Path) -> None:
    strange = [one | {"concept": "pizza"} for one in TRIALS]
    found = verify(make(strange, evidence(strange)), public)
    assert [finding.message for finding in found.findings] == ["is about another check or concept in line 1"]


def test_the_card_says_how_many_steps_it_takes_and_who_gets_around_it() -> None:
    text = card.render(ReleaseReport.parse(data_of(TRIALS, b"")), base_card=False).decode()
    section = text[text.index("## Can training bring it back?") :]
    assert "| concept | attack | captions | images | trials | hardened model | before the step |\n" in section
    assert "| cigarette | lora | name | 20 | 2 | >20 | 5 |\n".replace(">", "&gt;") in section
    assert (
        "- cigarette.lora (passed): t50-ratio at least 2.5x (2.1x or more), n 2 trials, against before the step\n"
        in section
    )
    assert "| t50-ratio | at least 2.5x | 2\\.1x or more | 2 trials | bootstrap 95% |" in text
    assert "This delays, it does not prevent" in section


def test_the_card_of_a_release_without_training_says_nothing_of_it() -> None:
    assert "training" not in card.render(ReleaseReport.parse(report_data()), base_card=False).decode()


def test_the_card_names_the_control_of_a_number_of_steps() -> None:
    data = data_of(TRIALS, b"")
    data["claims"][0]["checks"][0]["measurement"]["base"] = {
        "value": 5.0,
        "low": 4.0,
        "high": 6.0,
        "n": 2,
        "method": "bootstrap 95%",
    }
    text = card.render(ReleaseReport.parse(data), base_card=False).decode()
    assert "| bootstrap 95% | before the step 5x |" in text
