from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from training_data import ATTACKS, CAT, begin, changed, data, fresh, loss_on, seeded, tensors

from publisher.api import ImageRequest, PrerequisiteError, Sampling, TrainingData, UsageError
from publisher.builtin import publisher_register_attacks
from publisher.runtime.generate import generate
from publisher_emoji import model_folder

UNET, EMBEDDINGS = r"unet\.", r"text_encoder(_2)?\..*token_embedding\.weight"
LORA = r"unet\..*attn\d\.to_(q|k|v|out\.0)\.lora_[AB]\.default\.weight"
TRAINED: dict[str, tuple[dict[str, Any], str]] = {
    "full-finetune": ({}, UNET),
    "cross-attention": ({}, r"unet\..*\.attn2\.to_(q|k|v|out\.0)\."),
    "cross-attention keys": ({"parts": ("k",)}, r"unet\..*\.attn2\.to_k\."),
    "lora": ({}, LORA),
    "lora conv": ({"conv": True}, rf"{LORA}|unet\..*(conv1|conv2|conv_shortcut|samplers\.0\.conv)\.lora_[AB]\."),
    "adapter-transplant": ({}, LORA),
    "dreambooth": ({}, UNET),
    "dreambooth text": ({"text_encoder": True}, rf"{UNET}|text_encoder(_2)?\."),
    "dreambooth-lora": ({}, LORA),
    "textual-inversion": ({}, EMBEDDINGS),
    "custom-diffusion": ({}, rf"unet\..*\.attn2\.to_(k|v)\.|{EMBEDDINGS}"),
    "custom-diffusion name": ({"captions": "name"}, r"unet\..*\.attn2\.to_(k|v)\."),
}
SDXL = ("cross-attention", "lora conv", "dreambooth text", "textual-inversion", "custom-diffusion")
FAST = {
    "full-finetune": {"lr": 3e-3},
    "cross-attention": {"lr": 1e-2},
    "lora": {"lr": 1e-2},
    "adapter-transplant": {"lr": 1e-2},
    "dreambooth": {"lr": 3e-3},
    "dreambooth-lora": {"lr": 1e-2},
    "textual-inversion": {"lr": 5e-2},
    "custom-diffusion": {"lr": 5e-3},
}
FAMILIES = pytest.mark.parametrize("family", ["sd", "sdxl"])
QUICK = ("cross-attention", "lora", "textual-inversion")
ALL = pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in sorted(ATTACKS)]
)


def two_requests(prompt: str) -> list[ImageRequest]:
    return [ImageRequest(concept="cat", prompt=prompt, seed=seed, steps=2, guidance=3.0) for seed in (1, 2)]


@pytest.mark.parametrize(("family", "case"), [*(("sd", case) for case in TRAINED), *(("sdxl", case) for case in SDXL)])
def test_every_declared_tensor_changes_and_no_other(folders: dict[str, Path], family: str, case: str) -> None:
    options, declared = TRAINED[case]
    pipeline = fresh(folders[family])
    before = tensors(pipeline)
    learner = begin(case.partition(" ")[0], pipeline, lr=1e-3, **options)
    learner.step()
    learner.step()
    names = before.keys() | tensors(pipeline).keys()
    unused = (
        r"text_encoder\..*(layers\.1\.|final_layer_norm)" if family == "sdxl" else "$^"
    )  # SDXL reads the layer before
    wanted = {name for name in names if re.match(declared, name) and not re.match(unused, name)}
    assert wanted
    assert {name for name in changed(before, pipeline) if not re.match(unused, name)} == wanted


@ALL
def test_equal_generators_give_equal_bytes_and_others_give_others(folders: dict[str, Path], name: str) -> None:
    results = []
    for seed in (0, 0, 1):
        pipeline = fresh(folders["sd"])
        learner = begin(name, pipeline, seed, lr=1e-3, batch=1)
        losses = [learner.step() for _ in range(2)]
        results.append((losses, tensors(pipeline)))
    first, again, other = results
    assert first[0] == again[0] != other[0]
    assert all(torch.equal(tensor, again[1][key]) for key, tensor in first[1].items())


@pytest.mark.parametrize(
    ("name", "family"), [*((name, "sd") for name in sorted(ATTACKS)), ("lora", "sdxl"), ("custom-diffusion", "sdxl")]
)
def test_after_training_the_pipeline_generates_other_images_of_its_captions(
    folders: dict[str, Path], name: str, family: str
) -> None:
    pipeline, attack = fresh(folders[family]), ATTACKS[name]()
    learner = begin(name, pipeline, **FAST[name])
    asked = two_requests(attack.captions(attack.Params(), CAT)[0])
    before = generate(pipeline, asked)
    for _ in range(2):
        learner.step()
    assert not generate(pipeline, asked).equal(before)


@ALL
def test_the_loss_on_two_memorised_images_falls(folders: dict[str, Path], name: str) -> None:
    pipeline, attack = fresh(folders["sd"]), ATTACKS[name]()
    said = data(attack, attack.Params())
    learner = begin(name, pipeline, **FAST[name])
    before = loss_on(pipeline, learner, said.latents, said.captions)
    for _ in range(8):
        learner.step()
    assert loss_on(pipeline, learner, said.latents, said.captions) < before - 0.01


@FAMILIES
@pytest.mark.parametrize("options", [{}, {"conv": True}])
def test_an_adapter_changes_nothing_before_it_is_trained(
    folders: dict[str, Path], family: str, options: dict[str, Any]
) -> None:
    pipeline = fresh(folders[family])
    before = generate(pipeline, two_requests("a cat emoji"))
    begin("lora", pipeline, **options)
    assert generate(pipeline, two_requests("a cat emoji")).equal(before)


def test_the_adapter_starts_from_the_trials_generator_alone(folders: dict[str, Path]) -> None:
    first, second = fresh(folders["sd"]), fresh(folders["sd"])
    torch.manual_seed(1)
    begin("lora", first)
    torch.manual_seed(2)
    begin("lora", second)
    assert changed(tensors(first), second) == set()


@FAMILIES
@pytest.mark.parametrize("vectors", [1, 3])
def test_textual_inversion_learns_as_many_rows_as_it_has_vectors(
    folders: dict[str, Path], family: str, vectors: int
) -> None:
    pipeline = fresh(folders[family])
    encoder, tokenizer = pipeline.text_encoder, pipeline.tokenizer
    old = encoder.get_input_embeddings().weight.detach().clone()
    learner = begin("textual-inversion", pipeline, vectors=vectors, lr=1e-2)
    start = encoder.get_input_embeddings().weight.detach().clone()
    learner.step()
    now = encoder.get_input_embeddings().weight
    assert now[: len(old)].equal(old)
    assert len(now) == len(old) + vectors
    assert (now[len(old) :] != start[len(old) :]).any(1).all()
    read = tokenizer(pipeline.maybe_convert_prompt("a <new1> emoji", tokenizer)).input_ids
    assert [token for token in read if token >= len(old)] == list(range(len(old), len(now)))


def test_the_new_token_starts_from_the_name_or_from_the_words_that_are_given(folders: dict[str, Path]) -> None:
    for words, options in (("cat", {}), ("dog emoji", {"initial": "dog emoji"})):
        pipeline = fresh(folders["sd"])
        ids = pipeline.tokenizer(words, add_special_tokens=False).input_ids
        begin("textual-inversion", pipeline, **options)
        weight = pipeline.text_encoder.get_input_embeddings().weight
        torch.testing.assert_close(weight[-1], weight[ids].mean(0), rtol=0, atol=0)


def test_a_token_that_the_tokenizer_knows_is_refused(folders: dict[str, Path]) -> None:
    pipeline = fresh(folders["sd"])
    with pytest.raises(UsageError, match="cannot become a new token"):
        begin("textual-inversion", pipeline, rare=next(iter(pipeline.tokenizer.get_vocab())))


def test_what_was_learned_reaches_its_own_prompts_alone(folders: dict[str, Path]) -> None:
    pipeline = fresh(folders["sd"])
    learner = begin("textual-inversion", pipeline, lr=1e-2)
    before = learner.encode(["a <new1> emoji", "a dog emoji"]).states
    learner.step()
    after = learner.encode(["a <new1> emoji", "a dog emoji"]).states
    assert not after[0].equal(before[0])
    assert after[1].equal(before[1])


@pytest.mark.parametrize("name", ["dreambooth", "dreambooth-lora", "custom-diffusion"])
def test_images_of_the_class_enter_unless_their_weight_is_0(folders: dict[str, Path], name: str) -> None:
    attack = ATTACKS[name]()
    bad = data(attack, attack.Params(), prior_latents=torch.full((3, 4, 8, 8), torch.nan))
    with pytest.raises(ArithmeticError, match="diverged"):
        begin(name, fresh(folders["sd"]), said=bad).step()
    assert attack.prior_images(attack.Params(prior_images=9)) == 9
    begin(name, fresh(folders["sd"]), said=bad, prior_weight=0.0).step()
    assert attack.prior_images(attack.Params(prior_weight=0.0)) == 0


@pytest.mark.parametrize("name", ["full-finetune", "cross-attention", "lora", "textual-inversion"])
def test_attacks_without_a_class_have_no_images_of_it(folders: dict[str, Path], name: str) -> None:
    attack = ATTACKS[name]()
    assert attack.prior_images(attack.Params()) == 0
    begin(
        name,
        fresh(folders["sd"]),
        said=data(attack, attack.Params(), prior_latents=torch.full((3, 4, 8, 8), torch.nan)),
    ).step()


@pytest.mark.parametrize("captions", ["name", "rare", "description", "synonym", "empty"])
@pytest.mark.parametrize("name", ["cross-attention", "custom-diffusion"])
def test_every_kind_of_caption_can_be_trained_on(folders: dict[str, Path], name: str, captions: str) -> None:
    attack = ATTACKS[name]()
    assert attack.captions(attack.Params.parse({"captions": captions}), CAT)
    assert begin(name, fresh(folders["sd"]), captions=captions).step() > 0


@pytest.mark.parametrize("captions", ["name", "description", "synonym", "empty"])
def test_textual_inversion_needs_its_token_in_the_captions(captions: str) -> None:
    with pytest.raises(ValidationError, match="captions"):
        ATTACKS["textual-inversion"].Params.parse({"captions": captions})


def test_the_new_token_is_both_in_the_captions_and_in_what_is_asked() -> None:
    attack = ATTACKS["textual-inversion"]()
    params = attack.Params(rare="<it>", images_per_evaluation=2)
    asked = attack.requests(params, CAT, Sampling())
    assert [request.prompt for request in asked] == list(attack.captions(params, CAT))
    assert asked[0].prompt == "a <it> emoji"


def test_every_trial_asks_from_the_first_prompt_on_with_a_seed_for_each_image() -> None:
    params = ATTACKS["lora"].Params(images_per_evaluation=3)
    asked = ATTACKS["lora"]().requests(params, CAT.model_copy(update={"prompts": ("a", "b")}), Sampling(seed=5))
    assert [(request.prompt, request.seed) for request in asked] == [("a", 5), ("b", 6), ("a", 7)]
    assert not ATTACKS["lora"]().requests(
        ATTACKS["lora"].Params(captions="synonym"), CAT.model_copy(update={"paraphrases": ()}), Sampling()
    )


def test_without_peft_the_message_says_what_to_install(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = fresh(folders["sd"])
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(PrerequisiteError, match="pip install 'peft"):
        begin("lora", pipeline)


def test_defaults_are_those_of_the_papers() -> None:
    said = {name: attack.Params() for name, attack in ATTACKS.items()}
    rates = {name: getattr(params, "lr", None) for name, params in said.items()}
    assert rates == {
        "full-finetune": 1e-5,
        "cross-attention": 1e-5,
        "lora": 1e-4,
        "dreambooth": 5e-6,
        "dreambooth-lora": 5e-4,
        "textual-inversion": 5e-4,
        "custom-diffusion": 1e-5,
        "adapter-transplant": 1e-4,
    }
    assert {getattr(params, "weight_decay", None) for params in said.values()} == {1e-2}
    assert [getattr(said[name], "rank", None) for name in ("lora", "dreambooth-lora")] == [4, 4]
    assert [getattr(said[name], "prior_images", None) for name in ("dreambooth", "custom-diffusion")] == [100, 200]
    assert [said[name].batch for name in ("full-finetune", "dreambooth", "custom-diffusion")] == [4, 1, 2]
    assert {name for name, params in said.items() if params.captions == "name"} == {
        "full-finetune",
        "cross-attention",
        "lora",
    }


def test_scaled_learning_rates_are_those_of_one_image(folders: dict[str, Path]) -> None:
    moved = []
    for lr, scale in ((4e-3, False), (2e-3, True)):
        pipeline = fresh(folders["sd"])
        begin("textual-inversion", pipeline, lr=lr, scale_lr=scale).step()
        moved.append(pipeline.text_encoder.get_input_embeddings().weight[-1])
    torch.testing.assert_close(*moved, rtol=0, atol=0)


@pytest.mark.parametrize("attack", publisher_register_attacks(), ids=lambda attack: attack.name)
def test_registered_parameters_survive_json_and_are_described(attack: Any) -> None:
    params = attack.Params()
    assert attack.Params.parse(params.as_json()) == params
    fields = attack.Params.model_json_schema().get("properties", {})
    assert fields.keys() == attack.Params.model_fields.keys()
    assert all(field["description"] for field in fields.values())
    assert attack.summary
    assert attack.version


@pytest.mark.parametrize("field", ["parts", "captions", "lr", "vectors", "rare"])
def test_nonsense_is_refused(field: str) -> None:
    nonsense = {"parts": ("k", "k"), "captions": "poem", "lr": 0.0, "vectors": 0, "rare": "two words"}
    with pytest.raises(ValidationError, match=field):
        ATTACKS["custom-diffusion"].Params(**{field: nonsense[field]})


@pytest.mark.slow
def test_lora_teaches_the_embedded_model_a_rare_token(pipeline: Any) -> None:
    from publisher.api.diffusion.latents import encode_images
    from publisher_emoji.generate import generate

    attack = ATTACKS["lora"]()
    params = attack.Params(captions="rare", lr=3e-3)
    images = generate(pipeline, CAT.prompts * 6, 1, steps=8).add(1).div(2)
    latents = encode_images(pipeline.vae, images)
    captions = attack.captions(params, CAT)
    model, held = fresh(model_folder()), (latents[8:], (captions * 2)[:4])
    said = TrainingData(latents[:8], (captions * 4)[:8], latents[:0], (), CAT)
    learner = attack.learner(params, model, said, seeded(0))
    before = loss_on(model, learner, *held)
    for _ in range(30):
        learner.step()
    assert loss_on(model, learner, *held) < 0.9 * before
