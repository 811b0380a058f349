from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from publisher.evaluate.context import ModelsUnderTest, ModelUnderTest, Unmeasured
from publisher.report import load
from publisher_emoji import model_folder
from support.anatomies import EMBEDDED
from support.releasing import MANIFEST, publisher, write

FEW = {"scorer": "emoji", "sampling": {"steps": 4, "guidance": 3.0, "images": 9, "kept_images": 1}}


def without_steps(path: Path, **sections: Any) -> Path:
    """Write a manifest for a test of a model as it is."""
    path.write_text(json.dumps({key: value for key, value in (MANIFEST | sections).items() if key != "steps"}))
    return path


def found(result: Any) -> dict[str, Any]:
    assert result.exit_code in (0, 1, 4), result.output
    data: dict[str, Any] = json.loads(result.stdout)
    return data


def test_a_model_that_shows_the_concept_fails_and_says_what_was_tested(tmp_path: Path) -> None:
    manifest = without_steps(tmp_path / "m.yaml", evaluate=FEW)
    words = ("evaluate", model_folder(), manifest, "--out", tmp_path / "out", "--quiet", "--json")
    result = publisher(*words)
    data = found(result)
    assert (result.exit_code, data["decision"]) == (1, "failed")
    verdicts = {claim["id"]: claim["verdict"] for claim in data["claims"]}
    assert verdicts["cigarette.plain"] == "failed"
    report = load(Path(data["reports"]))
    assert report.tested is not None
    assert report.tested.digest == report.model.digest  # it is its own base model here
    assert (report.steps, report.version) == ((), "as it is")
    assert [one.id for one in report.concepts] == ["cigarette"]
    assert str(model_folder()) not in (Path(data["reports"]) / "report.json").read_text("utf-8")
    for form in ("index.html", "summary.md"):
        text = (Path(data["reports"]) / form).read_text("utf-8")
        assert "Fails" in text
        assert "nothing was signed" not in text
    assert (
        found(publisher(*words))["claims"] == data["claims"]
    )  # images come from the work folder; the report is replaced


def test_searches_are_compared_with_the_retrained_reference_that_the_manifest_names(tmp_path: Path) -> None:
    derived = {"attack": "derived-embedding", "metric": "found-excess", "concepts": ["cigarette"]}
    check = derived | {"id": "derived", "attack_params": {"images": 6, "images_per_find": 6}}
    evaluate = FEW | {"retrained": "embedded:emoji-reference", "checks": [check]}
    manifest = without_steps(tmp_path / "m.yaml", evaluate=evaluate)
    data = found(publisher("evaluate", model_folder(), manifest, "--out", tmp_path / "out", "--quiet", "--json"))
    report = load(Path(data["reports"]))
    searches = [one for claim in report.claims for check in claim.checks for one in check.searches]
    shown = {one.model: sum(find.hits for find in one.finds) for one in searches}
    assert set(shown) == {"hardened", "base", "retrained", "shuffled"}
    assert shown["base"] == 6
    assert shown["retrained"] == 0  # states that undo its training bring nothing back that it never knew


def test_without_a_base_model_nothing_is_decided(tmp_path: Path) -> None:
    result = publisher(
        "evaluate", model_folder(), "--concept", "cigarette", "--concept", "style:noto", "--out", tmp_path, "--json"
    )
    data = found(result)
    assert (result.exit_code, data["decision"]) == (4, "unknown")
    reasons = {check["reason"] for claim in data["claims"] for check in claim["checks"]}
    assert reasons == {"it compares with the base model, and none was given"}


@pytest.mark.slow
def test_a_package_is_tested_for_its_own_claims_and_the_numbers_are_the_releases(
    released: tuple[Path, Result], tmp_path: Path
) -> None:
    package = released[0] / "small-1.0.0"
    data = found(publisher("evaluate", package, "--out", tmp_path / "again", "--quiet", "--json"))
    first = load(package)
    again = load(Path(data["reports"]))
    assert [claim.verdict for claim in again.claims] == [claim.verdict for claim in first.claims]
    measured = [check.measurement for claim in again.claims for check in claim.checks]
    assert measured == [check.measurement for claim in first.claims for check in claim.checks]
    assert again.name == "small"
    text = publisher("compare", f"released={package}", f"again={data['reports']}").stdout
    assert text.count("not told apart") == len(measured)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("evaluate", "MODEL"), "it is not known what to test"),
        (("evaluate", "MODEL", "MANIFEST", "--concept", "cigarette"), "a manifest names its concepts itself"),
        (("evaluate", "MODEL", "--concept", "person:"), "names no concept"),
        (("evaluate", "gone", "--concept", "cigarette"), "there is no such folder"),
        (("evaluate", "hf:acme/model@main", "--concept", "cigarette"), "names of branches can move"),
        (("evaluate", "MODEL", "--concept", "cigarette", "--base", "gone"), "there is no such folder"),
    ],
)
def test_what_cannot_be_tested_is_an_error_with_the_next_step(
    tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    places = {"MODEL": str(model_folder()), "MANIFEST": str(write(tmp_path / "m.yaml"))}
    result = publisher(*(places.get(word, word) for word in words), "--out", tmp_path)
    assert result.exit_code == 2
    assert said in result.output


def test_the_model_before_a_step_is_not_in_a_package() -> None:
    model = ModelUnderTest(Path(), EMBEDDED, "")
    with pytest.raises(Unmeasured, match="the model before the step 'immunize' is not here"):
        ModelsUnderTest(model, model).control("before", "immunize")


def test_a_release_without_steps_is_refused(tmp_path: Path) -> None:
    result = publisher("plan", without_steps(tmp_path / "m.yaml"))
    assert result.exit_code == 2
    assert "has no step" in result.output
    assert "evaluate MODEL" in result.output
