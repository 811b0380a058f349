from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file

from publisher.api import Anatomy, Latents, Model, ModelError, TextEncoder, UsageError
from publisher_erase.data import Encoders

if TYPE_CHECKING:
    from pathlib import Path

    from diffusers import StableDiffusionPipeline

CPU = torch.device("cpu")
PROMPTS = ("", "a pizza emoji", "a cigarette emoji in noto style", "unheard of things, 3 of them")


@pytest.fixture(scope="module")
def encoders(embedded: Model) -> Encoders:
    return Encoders(embedded, CPU)


def test_embeddings_are_those_of_the_pipeline(encoders: Encoders, pipeline: StableDiffusionPipeline) -> None:
    found = [one.hidden for one in encoders.embed([encoders.tokens(text) for text in PROMPTS])]
    wanted, _ = pipeline.encode_prompt(list(PROMPTS), CPU, 1, do_classifier_free_guidance=False)
    torch.testing.assert_close(torch.stack(found).float(), wanted, atol=2e-5, rtol=1e-4)


def test_lengths_count_from_bos_to_eos(encoders: Encoders) -> None:
    assert [encoders.tokens(text).length for text in PROMPTS[:3]] == [2, 5, 8]
    assert encoders.tokens("\t ").empty


def test_letter_case_and_spaces_give_the_same_ids(encoders: Encoders) -> None:
    assert encoders.tokens("A  Pizza emoji").ids == encoders.tokens("a pizza emoji").ids


def test_leaving_out_the_padding_is_exact(encoders: Encoders) -> None:
    prompts = [encoders.tokens(text) for text in PROMPTS]
    whole, cut = encoders.embed(prompts), encoders.embed(prompts, padding=False)
    for one, other in zip(whole, cut, strict=True):
        assert len(other.hidden) < len(one.hidden)
        torch.testing.assert_close(other.hidden, one.hidden[: len(other.hidden)], atol=1e-5, rtol=1e-4)


def test_a_prompt_that_the_model_would_cut_is_refused(encoders: Encoders) -> None:
    fits = " ".join(["pizza"] * 30)
    assert encoders.tokens(fits).length == 32
    with pytest.raises(UsageError, match="has 31 tokens, the model reads 30"):
        encoders.tokens(f"{fits} pizza")


def _tiny(folder: Path, kind: str, width: int) -> None:
    import transformers

    config = transformers.CLIPTextConfig(
        vocab_size=1389,
        hidden_size=width,
        intermediate_size=8,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=32,
        projection_dim=6,
        bos_token_id=1387,
        eos_token_id=1388,
        pad_token_id=1388,
    )
    with torch.random.fork_rng():
        torch.manual_seed(width)
        getattr(transformers, kind)(config).save_pretrained(folder)


class Xl(SimpleNamespace):
    """As much of a model as the encoders read, in the likeness of SDXL."""

    def config(self, component: str) -> dict[str, list[str]]:
        assert component == "model_index"
        return {name: ["transformers", kind] for name, kind in self.kinds.items()}


@pytest.fixture
def xl(tmp_path: Path) -> Xl:
    from publisher_emoji import model_folder

    kinds = {"text_encoder": "CLIPTextModel", "text_encoder_2": "CLIPTextModelWithProjection"}
    kinds |= dict.fromkeys(("tokenizer", "tokenizer_2"), "CLIPTokenizer")
    parts = []
    for end, width in (("", 4), ("_2", 6)):
        _tiny(tmp_path / f"text_encoder{end}", kinds[f"text_encoder{end}"], width)
        (tmp_path / f"tokenizer{end}").symlink_to(model_folder() / "tokenizer")
        parts.append(TextEncoder(f"text_encoder{end}", f"tokenizer{end}", width))
    anatomy = Anatomy(
        "stable-diffusion-xl", "unet", tuple(parts), 10, Latents(4, 8, 8), penultimate=True, pooled_text=True
    )
    return Xl(folder=tmp_path, anatomy=anatomy, kinds=kinds)


def test_two_encoders_are_joined_as_sdxl_does(xl: Xl) -> None:
    import transformers
    from diffusers import StableDiffusionXLPipeline

    folder = xl.folder
    pipe = StableDiffusionXLPipeline(
        vae=None,
        unet=None,
        scheduler=None,
        text_encoder=transformers.CLIPTextModel.from_pretrained(folder / "text_encoder"),
        text_encoder_2=transformers.CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder_2"),
        tokenizer=transformers.CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        tokenizer_2=transformers.CLIPTokenizer.from_pretrained(folder / "tokenizer_2"),
    )
    found = Encoders(xl, CPU)  # type: ignore[arg-type]
    hidden = [one.hidden for one in found.embed([found.tokens(text) for text in PROMPTS])]
    wanted = pipe.encode_prompt(list(PROMPTS), device=CPU, do_classifier_free_guidance=False)[0]
    assert wanted.shape[-1] == 10
    torch.testing.assert_close(torch.stack(hidden).float(), wanted, atol=2e-5, rtol=1e-4)


def test_an_encoder_of_another_class_is_refused(xl: Xl) -> None:
    xl.kinds["text_encoder_2"] = "T5EncoderModel"
    with pytest.raises(ModelError, match="text_encoder_2 lacks 28 weights of its class"):
        Encoders(xl, CPU)  # type: ignore[arg-type]


def test_an_encoder_of_another_width_is_refused(xl: Xl) -> None:
    parts = (TextEncoder("text_encoder", "tokenizer", 5),)
    xl.anatomy = Anatomy("stable-diffusion-1", "unet", parts, 5, Latents(4, 8, 8))
    with pytest.raises(ModelError, match="is 4 wide, not 5"):
        Encoders(xl, CPU)  # type: ignore[arg-type]


def test_half_precision_encoders_are_widened(xl: Xl) -> None:
    from safetensors.torch import load_file

    path = xl.folder / "text_encoder" / "model.safetensors"
    save_file({name: tensor.half() for name, tensor in load_file(path).items()}, path, {"format": "pt"})
    xl.anatomy = Anatomy("stable-diffusion-1", "unet", xl.anatomy.text_encoders[:1], 4, Latents(4, 8, 8))
    found = Encoders(xl, CPU)  # type: ignore[arg-type]
    (one,) = found.embed([found.tokens("a pizza")])
    assert one.hidden.dtype == torch.float64
    assert one.hidden.isfinite().all()
