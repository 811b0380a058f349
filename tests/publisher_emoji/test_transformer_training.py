"""How the embedded transformer is trained: its objective, its captions, and the script, on a very small recipe."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from click.testing import CliRunner
from safetensors.torch import load_file
from torch import Tensor

from publisher.builtin.stable_diffusion_3 import StableDiffusion3
from publisher.model.folder import read_configs
from publisher_emoji import vocabulary
from publisher_emoji.captions import all_captions
from publisher_emoji.generate import load_pipeline
from publisher_emoji.training import evaluate
from publisher_emoji.training.artwork import Artwork, load_artwork
from publisher_emoji.training.diffusion import Captions
from publisher_emoji.training.loop import step_generator
from publisher_emoji.training.transformer import __main__ as script
from publisher_emoji.training.transformer.networks import build_pipeline, build_t5_tokenizer
from publisher_emoji.training.transformer.recipe import RECIPE_FILE, load_recipe
from publisher_emoji.training.transformer.train import loss_of

WORDS = vocabulary()


def test_every_caption_fits_and_each_of_its_words_is_one_piece() -> None:
    rows = load_recipe().rows
    pipeline = build_pipeline(load_recipe(), WORDS)
    captions = all_captions(WORDS)
    for tokenizer in (pipeline.tokenizer, pipeline.tokenizer_3):
        assert max(map(len, tokenizer(captions).input_ids)) <= rows
    pieces = pipeline.tokenizer_3(captions).input_ids
    assert all(len(ids) == len(text.split()) + 1 for text, ids in zip(captions, pieces, strict=True))


def test_a_word_of_no_caption_falls_into_letters() -> None:
    assert build_t5_tokenizer(WORDS, 12).tokenize("a zebu emoji") == [
        "\u2581a",
        "\u2581",
        "z",
        "e",
        "b",
        "u",
        "\u2581emoji",
    ]


def test_a_denoiser_that_says_noise_minus_image_has_no_loss() -> None:
    """The clean image is read back from what the network is given, so sign, level and timestep all have to fit."""
    clean = torch.randn(5, 1, 4, 8, 8, generator=torch.Generator().manual_seed(1))

    def knows(noisy: Tensor, states: Tensor, _pooled: Tensor, t: Tensor, *, return_dict: bool) -> tuple[Tensor]:
        assert not return_dict
        image = clean[states[:, 0, 0].long(), 0]
        return ((noisy - image) / (t / 1000)[:, None, None, None],)  # x_s = (1-s) x + s e, so (x_s - x) / s = e - x

    def encode(texts: list[str], *_others: list[str], **_options: object) -> tuple[Tensor, None, Tensor, None]:
        return torch.tensor([float(text) for text in texts])[:, None, None], None, torch.zeros(len(texts), 1), None

    pipeline = SimpleNamespace(
        encode_prompt=encode, transformer=knows, tokenizer_3=SimpleNamespace(model_max_length=12)
    )
    captions = SimpleNamespace(texts=lambda picked, _generator: [str(int(one)) for one in picked])
    loss = loss_of(pipeline, clean, captions, 16, step_generator(1, 1))  # type: ignore[arg-type]
    assert loss < 1e-6


@pytest.mark.parametrize("bits", [8, 11])
def test_a_rounded_weight_has_so_many_bits_and_float16_holds_it(bits: int) -> None:
    module = torch.nn.Linear(64, 64)
    before = module.weight.detach().clone()
    script.round_weights(module, bits)
    after = module.weight.detach()
    assert torch.equal(after.half().float(), after)
    mantissa = torch.frexp(after).mantissa * 2**bits
    assert torch.equal(mantissa, mantissa.round())
    assert ((after - before).abs() <= before.abs() * 2.0**-bits + 1e-7).all()


def _tiny_recipe(folder: Path) -> Path:
    recipe = yaml.safe_load(RECIPE_FILE.read_text(encoding="utf-8"))
    recipe |= {"views": 1, "t5": {"d_model": 256, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}}
    recipe["transformer"] |= {"layers": 1, "heads": 1, "head_width": 16}
    for phase in recipe["phases"]:
        phase["train"] |= {"steps": 2, "batch": 4, "warmup": 1}
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


def test_the_script_trains_a_model_that_plain_diffusers_loads_twice_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = load_artwork(WORDS)
    few = whole.objects < 3
    some = Artwork(whole.images[few], whole.objects[few], whole.styles[few])
    monkeypatch.setattr(script, "load_artwork", lambda _words: some)
    monkeypatch.setattr(evaluate, "quality", lambda *_told: {})
    monkeypatch.setattr(script, "contact_sheet", lambda *_told, **_named: SimpleNamespace(save=lambda _path: None))
    recipe = str(_tiny_recipe(tmp_path))
    for build in ("one", "two"):
        result = CliRunner().invoke(script.main, ["--recipe", recipe, "--build", str(tmp_path / build)])
        assert result.exit_code == 0, result.output
    one, two = (tmp_path / build / "model" for build in ("one", "two"))
    weights = [load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors") for folder in (one, two)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert weights[0]["proj_out.weight"].any()
    assert load_pipeline(one).transformer.config.sample_size == 8
    assert not [note for note in one.rglob("*.json") if str(tmp_path) in note.read_text(encoding="utf-8")]
    found = StableDiffusion3().recognise(read_configs(one))
    assert found is not None
    assert [block.rows for block in found.text_blocks] == [12, 12]
    assert found.call(3.0)["max_sequence_length"] == 12


def test_captions_of_the_transformer_are_drawn_as_the_models(tmp_path: Path) -> None:
    artwork = load_artwork(WORDS)
    texts = Captions(WORDS, artwork, load_recipe()).texts(torch.arange(400), step_generator(0, 0))
    assert 0.05 < sum(not text for text in texts) / len(texts) < 0.16
