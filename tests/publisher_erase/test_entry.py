"""The edit of a text entry: which tensors, which rows, and that the edited network reads c as the old one T c."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from erase_fakes import Context, concept
from torch import Tensor

from publisher.api import Model, ModelError, Scope, TensorInfo, UsageError
from publisher.api.loading import load_component
from publisher.registry import load_registry
from publisher.testing.tiny import open_model
from publisher_erase.data import Embedding, stack_retained
from publisher_erase.entry import PipelineReader, align, entry_rows, pair_block
from publisher_erase.params import EraseParams
from publisher_erase.plan import select, tokenise
from publisher_erase.step import Erase, solve
from publisher_erase.tensors import find_entry
from publisher_erase.uce import Rows, edit_map, normal_matrix
from support.tiny_families import TINY
from support.tiny_sd3 import save_tiny_sd3

ROWS, POOLED = "context_embedder.weight", "time_text_embed.text_embedder.linear_1.weight"
KINDS: dict[str, dict[str, Any]] = {"full": {}, "without T5": {"t5": False}, "two attentions": {"dual": (0,)}}
OTHERS = [
    family.name
    for family in load_registry().all("family")
    if family.name in TINY and family.name != "stable-diffusion-3" and "text-entry" not in family.cls.lacks
]
"""Other families whose text enters at once."""
SCOPE = Scope(concepts=(concept("cigarette"),), keep=(concept("dog"), concept("pencil")))
TO_PIZZA = {"cigarette": "pizza"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, tiny_family: Callable[[str], Path]) -> dict[str, Model]:
    """Return each kind of SD3, and each other family with a text entry -> a very small model of it."""
    place = tmp_path_factory.mktemp("entry")
    found = {name: save_tiny_sd3(place / name.replace(" ", "-"), **kind) for name, kind in KINDS.items()}
    found |= {name: tiny_family(name) for name in OTHERS}
    return {name: open_model(folder) for name, folder in found.items()}


def run(model: Model, **params: Any) -> Context:
    ctx = Context(SCOPE, model)
    Erase().run(EraseParams(targets=TO_PIZZA, **params), ctx)
    return ctx


def denoiser(model: Model, written: dict[str, Tensor]) -> Any:
    """Return the denoiser with some weights replaced, and biases at its doors that count."""
    network = load_component(model, model.anatomy.denoiser, "cpu", torch.float32)
    network.load_state_dict(written, strict=False)
    for name, parameter in network.named_parameters():
        if f"{name.removesuffix('bias')}weight" in (*model.anatomy.text_entry, *model.anatomy.pooled_entry):
            parameter.data += 0.5
    return network


@pytest.mark.parametrize("kind", KINDS)
def test_the_two_doors_and_nothing_else_are_written(kind: str, models: dict[str, Model]) -> None:
    """SD3.5's ``attn2``, which looks like a U-Net's cross-attention, stays as it is; so do all biases."""
    model = models[kind]
    plan = Erase().plan(EraseParams(targets=TO_PIZZA), SCOPE, model)
    assert dict(plan.changes) == {"transformer": (ROWS, POOLED)}
    assert set(run(model).written) == {ROWS, POOLED}
    assert any(".attn2.to_k.weight" in name for name in model.tensors("transformer")) == (kind == "two attentions")


@pytest.mark.parametrize("kind", [*KINDS, *OTHERS])
@pytest.mark.parametrize("method", ["uce", "rece"])
def test_the_edited_network_reads_a_text_as_the_old_one_reads_its_image(
    kind: str, method: str, models: dict[str, Model]
) -> None:
    """On c it says what the old one says whose doors get ``T c``, whatever the noise level."""
    model, ctx = models[kind], run(models[kind], method=method)
    anatomy, params = model.anatomy, Erase().decide(EraseParams(targets=TO_PIZZA, method=method), SCOPE, model)
    reader = PipelineReader(model, ctx.device, ctx.dtype)
    rows, pooled = entry_rows(tokenise(select(params, SCOPE).keeping(anatomy.negative or ""), reader.tokens), reader)
    assert (pooled is not None) == bool(anatomy.pooled_entry)
    maps = dict.fromkeys(anatomy.text_entry, solve(params, rows, ctx, anatomy.text_entry))
    if pooled is not None:
        maps |= dict.fromkeys(anatomy.pooled_entry, solve(params, pooled, ctx, anatomy.pooled_entry))
    assert set(ctx.written) == {*(anatomy.text_fold or anatomy.text_entry), *anatomy.pooled_entry}
    old, moved, new = denoiser(model, {}), denoiser(model, {}), denoiser(model, ctx.written)
    for name, edit in maps.items():
        moved.get_submodule(name.removesuffix(".weight")).register_forward_pre_hook(
            lambda _, args, edit=edit: (edit.rows(args[0].double()).float(), *args[1:])
        )
    shape = (1, anatomy.latents.channels, *anatomy.latents.size)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    for prompt in ("a cigarette emoji", "a red robot"):
        with torch.no_grad():
            text = anatomy.read_text(reader.pipeline, [prompt])
        for t in (1.0, 250.0, 500.0, 999.0):
            edited, wanted, before = (anatomy.predict(net, x, torch.tensor([t]), text) for net in (new, moved, old))
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


def test_a_prompt_that_only_the_pooled_vectors_encoder_would_cut_is_refused(models: dict[str, Model]) -> None:
    reader = PipelineReader(models["flux-1"], torch.device("cpu"), torch.float32)
    assert reader.tokens("a cat").length == len("_a_cat") + 1
    with pytest.raises(UsageError, match="longer than the 32 tokens of text_encoder"):
        reader.tokens("a 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0")


def test_a_bias_in_the_target_would_move_everything_by_it(models: dict[str, Model]) -> None:
    """The published script for FLUX fits ``W' c = W g + b``; the layer adds b once more. Here b takes no part."""
    model = models["flux-1"]
    reader = PipelineReader(model, torch.device("cpu"), torch.float32)
    c, g, r = (next(reader.read([reader.tokens(text)])).blocks[0].hidden[-1:] for text in ("a gun", "a cup", "a dog"))
    one = torch.ones(1, dtype=torch.float64)
    rows, lam = Rows(c, g, one, r, one), 1e-9
    entry = denoiser(model, {}).get_submodule("context_embedder")
    w, b = entry.weight.double(), entry.bias.double()
    assert float(b.norm()) > 0.1 * float((g @ w.T).norm())
    fitted = lam * w + (g @ w.T + b).T @ c + (r @ w.T + b).T @ r
    biased = torch.linalg.solve(normal_matrix(rows, lam, 1.0, 1.0), fitted.T).T
    ours = w @ edit_map(rows, lam, 1.0, 1.0).dense()
    for read, wanted in ((c, g), (r, r)):
        away = [float(((read @ new.T + b) - (wanted @ w.T + b)).norm() / b.norm()) for new in (ours, biased)]
        assert away == pytest.approx([0.0, 1.0], abs=1e-3)


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


def test_padding_that_was_condensed_counts_as_all_of_it() -> None:
    """The rows of an edit are the same to the last bit, so that the mean may be made when a text is read."""
    generator = torch.Generator().manual_seed(0)
    one, other = (Embedding(torch.randn(40, 3, dtype=torch.float64, generator=generator), 4) for _ in range(2))
    assert one.condensed().hidden.shape == (5, 3)
    ids = (0, 1, 2, 9), (0, 1, 3, 9)
    found = pair_block(one.condensed(), other.condensed(), ids, causal=False)
    wanted = pair_block(one, other, ids, causal=False)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    kept, all_of_it = stack_retained([one.condensed()], "content"), stack_retained([one], "content")
    assert all(torch.equal(a, b) for a, b in zip(kept, all_of_it, strict=True))
    assert one.condensed().condensed().copies == 36


def test_padding_counts_as_its_mean_and_a_causal_start_not_at_all() -> None:
    concept_rows, target_rows = (Embedding(torch.arange(6.0)[:, None] + start, 4) for start in (0, 10))
    old, new, weights = pair_block(concept_rows, target_rows, ((0, 1, 2, 9), (0, 1, 3, 9)), causal=True)
    assert (old[:, 0].tolist(), new[:, 0].tolist(), weights.tolist()) == ([2, 3, 4.5], [12, 13, 14.5], [1, 1, 2])
    assert len(pair_block(concept_rows, target_rows, ((0, 1, 2, 9), (0, 1, 3, 9)), causal=False)[0]) == 5


def test_rows_are_derived_from_keys_and_values_only_where_these_read_the_encoders_own(models: dict[str, Model]) -> None:
    """PixArt's and Sana's read a projection. A training of cross-attention moves the folded layer too."""
    robust = EraseParams.parse({"method": "robust", "robust": {"parts": "cross-attention"}})
    for kind in ("pixart", "sana"):
        decided = Erase().decide(robust.model_copy(update={"targets": TO_PIZZA}), SCOPE, models[kind])
        assert decided.robust is not None
        assert decided.robust.attack.kinds == ("states",)
        (names,) = Erase().plan(decided, SCOPE, models[kind]).changes.values()
        assert set(models[kind].anatomy.text_fold) < set(names)
