"""The edit of a text entry: which tensors, which rows, and that the edited network reads c as the old one T c."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import SD3Transformer2DModel
from erase_fakes import Context, concept
from torch import Tensor

from publisher.api import Model, ModelError, Scope, TensorInfo, UsageError
from publisher.testing.tiny import open_model
from publisher_erase.data import Embedding
from publisher_erase.entry import PipelineReader, align, entry_rows, pair_block
from publisher_erase.params import EraseParams
from publisher_erase.plan import find_entry, select, tokenise
from publisher_erase.step import Erase, solve
from support.tiny_sd3 import save_tiny_sd3

ROWS, POOLED = "context_embedder.weight", "time_text_embed.text_embedder.linear_1.weight"
KINDS: dict[str, dict[str, Any]] = {"full": {}, "without T5": {"t5": False}, "two attentions": {"dual": (0,)}}
SCOPE = Scope(concepts=(concept("cigarette"),), keep=(concept("dog"), concept("pencil")))
TO_PIZZA = {"cigarette": "pizza"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    """Return each kind -> a very small SD3 of it, ready for a step."""
    place = tmp_path_factory.mktemp("entry")
    return {name: open_model(save_tiny_sd3(place / name.replace(" ", "-"), **kind)) for name, kind in KINDS.items()}


def run(model: Model, **params: Any) -> Context:
    ctx = Context(SCOPE, model)
    Erase().run(EraseParams(targets=TO_PIZZA, **params), ctx)
    return ctx


def transformer(folder: Path, written: dict[str, Tensor]) -> SD3Transformer2DModel:
    """Return the denoiser with some weights replaced, and biases at the entry that count."""
    network = SD3Transformer2DModel.from_pretrained(folder / "transformer")
    network.load_state_dict(written, strict=False)
    for name in (ROWS, POOLED):
        network.get_parameter(name.replace("weight", "bias")).data += 0.5
    return network.eval().requires_grad_(requires_grad=False)


@pytest.mark.parametrize("kind", KINDS)
def test_the_two_doors_and_nothing_else_are_written(kind: str, models: dict[str, Model]) -> None:
    """SD3.5's ``attn2``, which looks like a U-Net's cross-attention, stays as it is; so do all biases."""
    model = models[kind]
    plan = Erase().plan(EraseParams(targets=TO_PIZZA), SCOPE, model)
    assert dict(plan.changes) == {"transformer": (ROWS, POOLED)}
    assert set(run(model).written) == {ROWS, POOLED}
    assert any(".attn2.to_k.weight" in name for name in model.tensors("transformer")) == (kind == "two attentions")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["uce", "rece"])
def test_the_edited_network_reads_a_text_as_the_old_one_reads_its_image(
    kind: str, method: str, models: dict[str, Model]
) -> None:
    model, ctx = models[kind], run(models[kind], method=method)
    params = Erase().decide(EraseParams(targets=TO_PIZZA, method=method), SCOPE, model)
    reader = PipelineReader(model, ctx.device, ctx.dtype)
    rows, pooled = entry_rows(tokenise(select(params, SCOPE), reader.tokens), reader)
    assert pooled is not None
    maps = solve(params, rows, ctx, [ROWS]), solve(params, pooled, ctx, [POOLED])
    old, new = transformer(model.folder, {}), transformer(model.folder, ctx.written)
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for prompt in ("a cigarette emoji", "a red robot"):
        (text,) = reader.read([reader.tokens(prompt)])
        states = torch.cat([block.hidden for block in text.blocks])
        assert text.pooled is not None
        moved, vector = maps[0].rows(states), maps[1].rows(text.pooled[None])
        for t in (1.0, 250.0, 500.0, 999.0):
            at = torch.tensor([t])
            edited = new(x, states[None].float(), text.pooled[None].float(), at).sample
            wanted = old(x, moved[None].float(), vector.float(), at).sample
            before = old(x, states[None].float(), text.pooled[None].float(), at).sample
            assert float((edited - wanted).abs().max()) <= 1e-6 * float(wanted.abs().max())
            assert float((edited - before).abs().max()) > 1e-4 * float(before.abs().max())


def test_a_concept_reads_more_like_its_target_and_what_is_kept_as_before(models: dict[str, Model]) -> None:
    ctx = run(models["full"])
    for door in ("", " of the pooled vector"):
        assert ctx.numbers[f"residual{door}"] < 0.5
        assert ctx.numbers[f"unconditional drift{door}"] < 0.2
        assert ctx.numbers[f"rank of the edit{door}"] >= 1


def test_the_same_run_gives_the_same_bytes(models: dict[str, Model]) -> None:
    first, second = (run(models["full"]).written for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_plan_says_what_no_closed_form_edits(models: dict[str, Model]) -> None:
    notes = " ".join(Erase().plan(EraseParams(targets=TO_PIZZA), SCOPE, models["full"]).notes)
    assert "Keys and values inside the blocks are not" in notes
    assert "not edited and still carries" not in notes


@pytest.mark.parametrize("rows", ["last", "last-eos", "tail", "all"])
def test_rules_of_cross_attention_are_refused(rows: str, models: dict[str, Model]) -> None:
    with pytest.raises(UsageError, match=f"rows: {rows} is a rule of cross-attention"):
        Erase().plan(EraseParams(rows=rows), SCOPE, models["full"])  # type: ignore[arg-type]


def test_the_default_rule_becomes_every_word_once(models: dict[str, Model]) -> None:
    decided = Erase().decide(EraseParams(targets=TO_PIZZA), SCOPE, models["full"])
    assert decided.rows == "content"
    assert Erase().decide(decided, SCOPE, models["full"]) == decided


class Changed:
    """A model whose denoiser has other headers."""

    def __init__(self, model: Model, tensors: dict[str, TensorInfo]) -> None:
        self._model, self._tensors = model, tensors

    def tensors(self, component: str) -> dict[str, TensorInfo]:
        return self._tensors if component == "transformer" else dict(self._model.tensors(component))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"dtype": "F8_E4M3"}, "quantised"),
        ({"shape": (16, 31)}, "does not read 32 numbers a token"),
        ({"name": f"{ROWS}.lora_A"}, "not merged"),
        (None, "by which text enters, is not there"),
    ],
)
def test_an_entry_that_the_edit_would_not_reach_is_refused(
    change: dict[str, Any] | None, reason: str, models: dict[str, Model]
) -> None:
    tensors = dict(models["full"].tensors("transformer"))
    info = tensors.pop(ROWS)
    if change is not None:
        changed = replace(info, **change)
        tensors[changed.name] = changed
    with pytest.raises(ModelError, match=reason):
        find_entry(Changed(models["full"], tensors))  # type: ignore[arg-type]


def test_a_prompt_that_the_pipeline_would_cut_is_refused(models: dict[str, Model]) -> None:
    reader = PipelineReader(models["full"], torch.device("cpu"), torch.float32)
    with pytest.raises(UsageError, match="text_encoder reads 32"):
        reader.tokens("cat " * 40)


@pytest.mark.parametrize(
    ("old", "new", "places", "first"),
    [
        ("a pistol emoji .", "a ghost emoji .", [0, 1, 2, 3], 1),
        ("a water pistol emoji .", "a ghost emoji .", [0, 1, 1, 2, 3], 1),
        ("a pistol emoji .", "a rubber duck emoji .", [0, 2, 3, 4], 1),
        ("a big old gun .", "a red pen .", [0, 1, 2, 2, 3], 1),
        ("a pistol .", ".", [0, 0, 0], 0),
        ("B pistol .", "B .", [0, 0, 1], 1),
    ],
)
def test_words_are_paired_from_both_ends(old: str, new: str, places: list[int], first: int) -> None:
    numbers = {word: number for number, word in enumerate(sorted({*old.split(), *new.split()}))}
    assert align(*([numbers[word] for word in text.split()] for text in (old, new))) == (places, first)


def test_padding_counts_as_its_mean_and_a_causal_start_not_at_all() -> None:
    concept_rows, target_rows = (Embedding(torch.arange(6.0)[:, None] + start, 4) for start in (0, 10))
    old, new, weights = pair_block(concept_rows, target_rows, ((0, 1, 2, 9), (0, 1, 3, 9)), causal=True)
    assert (old[:, 0].tolist(), new[:, 0].tolist(), weights.tolist()) == ([2, 3, 4.5], [12, 13, 14.5], [1, 1, 2])
    assert len(pair_block(concept_rows, target_rows, ((0, 1, 2, 9), (0, 1, 3, 9)), causal=False)[0]) == 5
