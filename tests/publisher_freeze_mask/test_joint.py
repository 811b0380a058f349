"""A mask of a transformer with joint attention: its units, and how its fine-tunings sample noise levels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mask_cases import SCOPE, mask_of, parse, run

from publisher.api import Model, ModelError
from publisher.testing.running import context_of
from publisher.testing.tiny import open_model
from publisher_freeze_mask.data import gather
from publisher_freeze_mask.plan import candidates
from publisher_freeze_mask.step import FreezeMaskStep

PROJECTIONS = ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj")


@pytest.fixture
def model(tiny_family: Callable[[str], Path]) -> Model:
    return open_model(tiny_family("stable-diffusion-3"))


def test_heads_are_rows_of_queries_keys_and_values_of_image_and_text(model: Model, tmp_path: Path) -> None:
    mask = mask_of(run(model, tmp_path, granularity="head", ratio=0.5))
    headed = {name for name, one in mask.candidates.items() if one.rows}
    assert {name.split(".attn.")[1] for name in headed} == {f"{name}.weight" for name in PROJECTIONS}
    config = model.config("transformer")
    assert {mask.candidates[name].rows for name in headed} == {config["attention_head_dim"]}
    assert {len(mask.candidates[name].units()) for name in headed} == {config["num_attention_heads"]}
    assert any(tensor.rows for tensor in mask.frozen)


@pytest.mark.parametrize("family", ["flux-1", "chroma"])
def test_heads_are_counted_in_double_and_single_blocks(family: str, tiny_family: Callable[[str], Path]) -> None:
    other = open_model(tiny_family(family))
    headed = {name: one for name, one in candidates(parse(granularity="head"), other).items() if one.rows}
    assert {name.partition(".")[0] for name in headed} == {"transformer_blocks", "single_transformer_blocks"}
    config = other.config("transformer")
    assert {(one.rows, len(one.units())) for one in headed.values()} == {
        (config["attention_head_dim"], config["num_attention_heads"])
    }


@pytest.mark.parametrize("family", ["pixart", "sana"])
def test_heads_of_both_attentions_are_counted_where_text_is_read_by_a_second_one(
    family: str, tiny_family: Callable[[str], Path]
) -> None:
    other = open_model(tiny_family(family))
    headed = {name: one for name, one in candidates(parse(granularity="head"), other).items() if one.rows}
    config = other.config("transformer")
    heads = {
        "attn1": config["num_attention_heads"],
        "attn2": config.get("num_cross_attention_heads") or config["num_attention_heads"],
    }
    assert {name.split(".")[2]: len(one.units()) for name, one in headed.items()} == heads
    assert {name.split(".")[3] for name in headed} == {"to_q", "to_k", "to_v"}


def test_fixed_positions_and_tensors_of_one_axis_are_no_candidates(model: Model) -> None:
    found, flat = candidates(parse(), model), [i for i in model.tensors("transformer").values() if len(i.shape) == 1]
    assert "pos_embed.pos_embed" not in found
    assert len(found) == len(model.tensors("transformer")) - len(flat) - 1
    (note,) = [note for note in FreezeMaskStep().plan(parse(), SCOPE, model).notes if "have one axis" in note]
    assert note.startswith(f"{len(flat)} of {len(model.tensors('transformer'))} tensors")


def test_a_family_that_names_no_heads_gives_a_mask_of_tensors_alone(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(model.anatomy), "heads", lambda *_: 0)
    with pytest.raises(ModelError, match="names no attention with heads") as caught:
        candidates(parse(granularity="head"), model)
    assert caught.value.hint == "Set granularity to tensor or row."
    assert candidates(parse(), model)


def test_fine_tunings_sample_noise_levels_as_the_scripts_of_the_family_do(model: Model, tmp_path: Path) -> None:
    params = parse()
    data = gather(
        params, SCOPE.concepts[:1], SCOPE.keep[:1], context_of(FreezeMaskStep, params, model, SCOPE, tmp_path)
    )
    (images,) = data.illegal["name"]
    _, _, t = data.sample(images, 4000, torch.Generator().manual_seed(0))
    level = t / 1000
    before = (level / (3 - 2 * level)).logit()  # the scheduler's shift of 3, undone
    assert before.std().item() == pytest.approx(1, abs=0.05)
