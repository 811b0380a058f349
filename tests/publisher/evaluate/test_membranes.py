"""Checks with and without the package's membranes, in the grey world."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from publisher.api import Gate, ImageRequest, Scope
from publisher.evaluate.context import ModelUnderTest
from publisher.evaluate.images import Generated, GenerateTask, perform
from publisher.evaluate.permeabilities import Permeabilities, ScoreTask, _permeabilities, rate
from publisher.evaluate.store import ImageStore
from publisher_emoji import model_folder
from support.anatomies import EMBEDDED
from support.grey import SCOPE, WITH, World, check, concept, guarded, kept, write_model, write_safeguards


@pytest.fixture
def membranes(tmp_path: Path) -> Path:
    return write_safeguards(tmp_path / "release")


@pytest.fixture
def bundle(world: World, tmp_path: Path, membranes: Path) -> World:
    """A hardened model whose membranes, and nothing else, keep two concepts back."""
    world.models = replace(world.models, hardened=ModelUnderTest.of(tmp_path / "hardened", EMBEDDED, membranes))
    return world.paint(guarded)


def test_membranes_keep_the_claim_and_the_honest_row_says_what_is_there_without(bundle: World) -> None:
    (claim,) = bundle.evaluate(check(), check(id="without", membranes="off", gate=None)).claims
    with_membranes, without = claim.checks
    assert (with_membranes.verdict, with_membranes.membranes) == ("passed", "on")
    assert (without.verdict, without.membranes) == ("reported", "off")
    assert with_membranes.measurement is not None
    assert without.measurement is not None
    assert (with_membranes.measurement.hardened.value, without.measurement.hardened.value) == (0.0, 1.0)


def test_a_promise_without_membranes_fails_where_they_alone_hold_it(bundle: World) -> None:
    assert bundle.evaluate(check(membranes="off")).verdict == "failed"


def test_each_way_is_generated_only_where_a_check_asks_and_the_base_model_once(bundle: World) -> None:
    bundle.evaluate(check(), kept(), check(id="without", membranes="off", gate=None))
    generated = [model for model, _ in bundle.painters.generated]
    assert {model: generated.count(model) for model in generated} == {"base": 180, WITH: 180, "hardened": 60}


def test_without_membranes_in_the_package_both_ways_are_one_and_generated_once(world: World) -> None:
    result = world.evaluate(check(), check(id="without", membranes="off"))
    assert len(world.painters.generated) == 2 * 60
    first, second = result.claims[0].checks
    assert first.measurement == second.measurement
    assert (result.permeabilities, world.painters.scored) == (None, [])


def test_merged_membranes_are_not_attached_again(world: World, tmp_path: Path) -> None:
    membranes = write_safeguards(tmp_path / "merged", mode="merge")
    world.models = replace(world.models, hardened=ModelUnderTest.of(tmp_path / "hardened", EMBEDDED, membranes))
    world.evaluate(check(), check(id="without", membranes="off"))
    assert {model for model, _ in world.painters.generated} == {"base", "hardened"}


def test_untouched_weights_without_membranes_are_the_base_model_and_cost_nothing(world: World, membranes: Path) -> None:
    base = world.models.base
    world.models = replace(world.models, hardened=ModelUnderTest.of(base.folder, EMBEDDED, membranes))
    result = world.paint(guarded).evaluate(check(membranes="off", gate=None))
    assert [model for model, _ in world.painters.generated] == ["base"] * 60
    rows = [json.loads(line) for line in result.evidence["evidence/plain.jsonl"].splitlines()]
    assert {row["distance"] for row in rows} == {0.0}


def test_images_with_membranes_have_a_name_of_their_own_in_the_store(world: World, membranes: Path) -> None:
    folder = world.models.hardened.folder
    plain, on = ModelUnderTest.of(folder, EMBEDDED), ModelUnderTest.of(folder, EMBEDDED, membranes)
    assert plain.digest == on.digest
    assert on.bare.key == plain.key
    assert len({plain.key, on.key}) == 2
    write_safeguards(membranes, transport={"power": 2})
    assert ModelUnderTest.of(folder, EMBEDDED, membranes).key not in (plain.key, on.key)
    (membranes / "membranes" / "cigarette.safetensors").write_bytes(b"other factors")
    assert len({ModelUnderTest.of(folder, EMBEDDED, membranes).key, plain.key, on.key}) == 3


def test_other_membranes_are_generated_anew_and_the_rest_is_not(bundle: World, membranes: Path) -> None:
    checks = (check(), check(id="without", membranes="off", gate=None))
    bundle.evaluate(*checks)
    bundle.painters.generated.clear()
    write_safeguards(membranes, transport={"power": 2})
    bundle.models = replace(
        bundle.models, hardened=ModelUnderTest.of(bundle.models.hardened.folder, EMBEDDED, membranes)
    )
    bundle.evaluate(*checks)
    assert {model for model, _ in bundle.painters.generated} == {WITH}


def test_a_second_run_generates_and_scores_nothing_and_finds_the_same(bundle: World) -> None:
    checks = (check(), kept(), check(id="without", membranes="off", gate=None))
    first = bundle.evaluate(*checks)
    assert len(bundle.painters.scored) == len(set(bundle.painters.scored)) == 60 + 2 * 60
    bundle.painters.generated.clear()
    bundle.painters.scored.clear()
    assert bundle.evaluate(*checks) == first
    assert (bundle.painters.generated, bundle.painters.scored) == ([], [])


def test_damaged_numbers_are_made_anew_with_a_warning(bundle: World, tmp_path: Path) -> None:
    first = bundle.evaluate(check())
    (file,) = (tmp_path / "images").glob("*.json")
    file.write_bytes(file.read_bytes().replace(b"1.0", b"0.0", 1))
    said: list[str] = []
    bundle.setting = replace(bundle.setting, store=ImageStore(tmp_path / "images", said.append))
    assert bundle.evaluate(check()) == first
    assert len(said) == 1


def test_evidence_says_membranes_and_permeabilities(bundle: World) -> None:
    result = bundle.evaluate(check(), check(id="without", membranes="off", gate=None))
    on, off = (json.loads(result.evidence[f"evidence/{name}.jsonl"].splitlines()[0]) for name in ("plain", "without"))
    assert (on["membranes"], on["permeabilities"]) == ("on", {"cigarette": 1.0, "pistol": 0.0})
    assert (off["membranes"], off["permeabilities"]) == ("off", None)
    assert on["hardened_sha256"] != off["hardened_sha256"] == off["base_sha256"]


def test_the_metric_gets_the_sum_of_a_prompts_permeabilities(bundle: World) -> None:
    (claim,) = bundle.evaluate(kept(metric="kept-distance", gate=Gate(upper_at_most=0.1))).claims
    assert claim.checks[0].measurement is not None
    assert [(row["permeability"], row["n"]) for row in claim.checks[0].measurement.details["by_permeability"]] == [
        ("0", 60),
        ("> 0.25 to 0.5", 60),
    ]


# What cannot be attached must never look like a pass


def break_membranes(world: World) -> None:
    """Make membranes that cannot be attached: they give neither images nor numbers."""
    do = world.painters._do

    def crash(task: GenerateTask | ScoreTask) -> list[Generated] | Permeabilities:
        if isinstance(task, ScoreTask):
            return Permeabilities(problem="ModelError: no such layer")
        return [Generated(None, "ModelError: no such layer")] * len(task.batches) if task.safeguards else do(task)

    world.painters._do = crash  # type: ignore[method-assign]


def test_membranes_that_cannot_be_attached_make_their_checks_unknown_and_no_others(bundle: World) -> None:
    break_membranes(bundle)
    (claim,) = bundle.evaluate(check(), check(id="without", membranes="off", gate=None)).claims
    assert [record.verdict for record in claim.checks] == ["unknown", "reported"]
    assert claim.checks[0].reason == "the hardened model generated no image: ModelError: no such layer"
    assert claim.verdict == "unknown"


def test_images_without_known_permeabilities_are_unknown(bundle: World) -> None:
    bundle.painters._rate = lambda _: Permeabilities(problem="no tokenizer")  # type: ignore[method-assign]
    result = bundle.evaluate(check())
    record = result.claims[0].checks[0]
    assert (record.verdict, result.permeabilities) == ("unknown", None)
    assert record.reason == "nobody knows how far the prompts let the safeguards act: no tokenizer"


def test_an_index_that_cannot_be_read_is_an_answer_and_not_a_model_without_membranes(tmp_path: Path) -> None:
    write_safeguards(tmp_path, mode="sleep")
    model = ModelUnderTest.of(write_model(tmp_path / "model").folder, EMBEDDED, tmp_path)
    assert model.attached
    request = ImageRequest(concept="", prompt="a cat", seed=0, steps=1, guidance=1.0)
    (generated,) = perform(GenerateTask(model_folder(), EMBEDDED, "cpu", "float32", 1, ((request,),), model.safeguards))
    assert (generated.images, "the index of membranes is malformed" in generated.problem) == (None, True)
    found = rate(ScoreTask(model_folder(), EMBEDDED, tmp_path, "cpu", "float32", ("a cat",)))
    assert "the index of membranes is malformed" in found.problem


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.5])
def test_a_permeability_that_is_no_number_is_none(value: float) -> None:
    found = _permeabilities(("cigarette",), ["a cat"], [[value]])
    assert (found.rows, found.problem) == ({}, "a permeability is no number >= 0")
    assert _permeabilities(("cigarette", "pistol"), ["a cat"], [[1.0]]).problem


# The table


def test_the_table_has_what_is_to_go_then_what_stays_and_opens_most(bundle: World) -> None:
    bundle.sampling = bundle.sampling.model_copy(update={"images": 100, "kept_images": 100})
    found = bundle.evaluate(check(concepts=("cigarette", "pistol")), kept()).permeabilities
    assert found is not None
    assert (found.membranes, found.prompts) == (("cigarette", "pistol"), 4 * 100)
    going = [row for row in found.rows if not row.kept]
    staying = [row for row in found.rows if row.kept]
    assert [row.prompt for row in going] == [
        f"a {name} number {i}" for name in ("cigarette", "pistol") for i in range(6)
    ]
    assert going[0].permeability == (1.0, 0.0)
    assert len(staying) == 24
    assert staying[0] == staying[0].model_copy(
        update={"concept": "cat", "prompt": "a cat number 0", "permeability": (0.3, 0.0)}
    )
    assert [row.permeability for row in staying] == sorted((row.permeability for row in staying), reverse=True)
    assert found.rows == (*going, *staying)


def test_paraphrases_and_the_empty_prompt_are_in_the_table_where_they_were_asked_for(bundle: World) -> None:
    paraphrases = tuple(f"a smoke number {i}" for i in range(9))
    bundle.scope = Scope(concepts=(concept("cigarette", paraphrases=paraphrases),), keep=SCOPE.keep)
    checks = [check(), check(id="other", attack="paraphrase"), check(id="empty", attack="empty-prompt")]
    found = bundle.evaluate(*checks).permeabilities
    assert found is not None
    assert [row.prompt for row in found.rows[6:]] == [*paraphrases[:4], ""]
    assert (found.rows[-1].kept, found.rows[-1].concept) == (True, "")
    without = bundle.evaluate(checks[0]).permeabilities
    assert without is not None
    assert len(without.rows) == 6


def test_a_concept_to_go_without_a_membrane_has_no_rows(bundle: World) -> None:
    bundle.painters._rate = lambda prompts: Permeabilities(("cigarette",), dict.fromkeys(prompts, (0.1234567,)))  # type: ignore[method-assign]
    found = bundle.evaluate(check(concepts=("cigarette", "pistol"))).permeabilities
    assert found is not None
    assert {row.concept for row in found.rows} == {"cigarette"}


def test_texts_of_private_concepts_are_in_the_table_and_their_images_nowhere(bundle: World, tmp_path: Path) -> None:
    bundle.scope = SCOPE.model_copy(update={"concepts": (concept("cigarette", kind="unsafe"),)})
    result = bundle.evaluate(check(), check(id="without", membranes="off", gate=None))
    assert result.permeabilities is not None
    assert len(result.permeabilities.rows) == 6
    assert result.pairs == ()
    assert not list((tmp_path / "images").glob("*.safetensors"))


# The pictures


def test_a_request_that_was_generated_both_ways_is_one_triple(bundle: World) -> None:
    pairs = bundle.evaluate(check(), check(id="without", membranes="off", gate=None)).pairs
    assert {(pair.check, pair.membranes) for pair in pairs} == {("plain", "on")}
    assert len(pairs) == 6
    assert (pairs[0].base_label, pairs[0].hardened_label, pairs[0].without_label) == ("cigarette", "pizza", "cigarette")
    assert pairs[0].without_png == pairs[0].base_png != pairs[0].hardened_png


def test_what_was_generated_without_membranes_alone_is_a_pair_that_says_so(bundle: World) -> None:
    pairs = bundle.evaluate(check(), check(id="without", concepts=("pistol",), membranes="off", gate=None)).pairs
    assert [(pair.check, pair.membranes, pair.without_png) for pair in pairs[5:7]] == [
        ("plain", "on", ""),
        ("without", "off", ""),
    ]
    assert pairs[6].hardened_label == "pistol"


def test_images_that_one_check_shows_are_not_shown_again_by_another(bundle: World) -> None:
    pairs = bundle.evaluate(check(), check(id="again"), kept(), kept(id="far", metric="kept-distance")).pairs
    assert [pair.check for pair in pairs] == ["plain"] * 6 + ["kept"] * 6


def test_a_package_without_membranes_has_no_triples(world: World) -> None:
    pairs = world.evaluate(check(), check(id="without", membranes="off")).pairs
    assert {pair.without_png for pair in pairs} == {""}
