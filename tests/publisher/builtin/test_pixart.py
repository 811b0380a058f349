"""PixArt: recognised by its structure, alpha and Sigma apart, and its text entry folded into one layer."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from publisher.api import Anatomy, Begin, ImageRequest, TextBlock
from publisher.api.diffusion.starting import Start
from publisher.api.families import Configs
from publisher.builtin.attacks.weights import CopyAttention, CopyAttentionParams
from publisher.builtin.pixart import PixArt
from publisher.evaluate.searching.target import text_weights
from publisher.model.folder import read_configs
from publisher.runtime.generate import generate, half_made
from publisher.runtime.meter import Meter
from publisher.runtime.pipelines import load
from publisher.testing.of_families import BY_WEIGHTS
from publisher.testing.plugin import PluginUnderTest
from support.tiny_pixart import save_tiny_pixart

FOLD = ("caption_projection.linear_2.weight", "caption_projection.linear_2.bias")


def sigma() -> dict[str, dict[str, Any]]:
    """Return the configurations of PixArt-Sigma of 1024 pixels, as far as they matter."""
    return {
        "model_index": {
            "_class_name": "PixArtSigmaPipeline",
            "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
            "text_encoder": ["transformers", "T5EncoderModel"],
            "tokenizer": ["transformers", "T5Tokenizer"],
            "transformer": ["diffusers", "PixArtTransformer2DModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
        "text_encoder": {"d_model": 4096},
        "transformer": {"caption_channels": 4096, "sample_size": 128, "use_additional_conditions": False},
        "vae": {"block_out_channels": [128, 256, 512, 512], "latent_channels": 4},
    }


def changed(change: dict[str, Any]) -> Configs:
    configs = copy.deepcopy(sigma())
    for place, value in change.items():
        component, key = place.split(".")
        configs[component][key] = value
    return configs


def anatomy(configs: Configs) -> Anatomy:
    found = PixArt().recognise(configs)
    assert found is not None, PixArt().why_not(configs)
    return found


def test_its_parts_are_named() -> None:
    found = anatomy(sigma())
    assert found.capabilities == {"cross-attention", "text-entry", "training", "membranes"}
    assert (found.pipeline, found.negative, found.text_width, found.entry_width) == (
        *("PixArtSigmaPipeline", ""),
        *(4096, 1152),
    )
    assert (found.latents.image_size, found.text_blocks) == (
        (1024, 1024),
        (TextBlock(("text_encoder",), 300, masked=True),),
    )
    assert (len(found.text_entry), found.text_fold) == (2 * 28, FOLD)


def test_alpha_reads_fewer_rows_and_at_1024_pixels_the_size() -> None:
    alpha = {"model_index._class_name": "PixArtAlphaPipeline"}
    large = anatomy(changed(alpha | {"transformer.use_additional_conditions": None}))
    small = anatomy(changed(alpha | {"transformer.sample_size": 64}))
    assert [(one.pipeline, one.text_blocks[0].rows) for one in (large, small)] == [("PixArtAlphaPipeline", 120)] * 2
    assert [getattr(one, "sized", None) for one in (large, small)] == [True, False]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_index._class_name": "PixArtSigmaPAGPipeline"}, "its pipeline is 'PixArtSigmaPAGPipeline'"),
        ({"model_index.transformer": ["diffusers", "SanaTransformer2DModel"]}, "is 'SanaTransformer2DModel', not"),
        ({"transformer.out_channels": 12}, "reads 4 channels and writes 12, its autoencoder has 4"),
        ({"vae.latent_channels": 16}, "reads 4 channels and writes 8, its autoencoder has 16"),
        ({"transformer.caption_channels": None}, "no caption_projection"),
        ({"transformer.cross_attention_dim": 768}, "reads text 768 wide, and text is projected to 1152"),
        ({"transformer.sample_size": [64, 96]}, "sample_size [64, 96] is no multiple"),
        ({"transformer.use_additional_conditions": True}, "reads the image's size (use_additional_conditions), its"),
        ({"model_index._class_name": "PixArtAlphaPipeline"}, "does not read the image's size"),
        ({"transformer.caption_channels": 2048}, "reads text 2048 wide, its text encoder writes 4096"),
        ({"text_encoder.d_model": "wide"}, "configurations are malformed"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_another_structure_is_refused_with_its_reason(change: dict[str, Any], reason: str) -> None:
    assert PixArt().recognise(changed(change)) is None
    assert reason in PixArt().why_not(changed(change))


@pytest.fixture(scope="module")
def alpha(tmp_path_factory: pytest.TempPathFactory) -> PluginUnderTest:
    """Return a very small PixArt-alpha that reads the size of its image and says no variance."""
    width = {"num_attention_heads": 3, "cross_attention_dim": 24}  # its embedding of the size has three parts
    config = {"sample_size": 128, "patch_size": 16, "out_channels": 4, **width}
    return PluginUnderTest(
        PixArt, folder=save_tiny_pixart(tmp_path_factory.mktemp("pixart") / "alpha", alpha=True, **config)
    )


@pytest.mark.parametrize("rule", ["predicts-what-is-sampled", "names-all-doors"])
def test_alpha_keeps_the_contract(rule: str, alpha: PluginUnderTest) -> None:
    BY_WEIGHTS[rule](alpha)


def test_each_sampling_step_is_told_though_the_pipeline_has_an_older_argument(
    tiny_family: Callable[[str], Path],
) -> None:
    folder = tiny_family("pixart")
    pipeline = load(folder, anatomy(read_configs(folder)), torch.device("cpu"), torch.float32)
    told: list[int] = []
    with Meter(lambda done, _total, _text: told.append(done), 4, "images"):
        asked = [ImageRequest(concept="", prompt="A Dog", seed=n, steps=3, guidance=1.0) for n in range(4)]
        generate(pipeline, asked)
    assert told[:4] == [0, 1, 2, 3]  # a step of four images is as much as an image: there are three, and the decoding


def test_latents_are_read_and_overwritten_at_each_step_by_the_older_argument_too(
    tiny_family: Callable[[str], Path],
) -> None:
    folder = tiny_family("pixart")
    pipeline = load(folder, anatomy(read_configs(folder)), torch.device("cpu"), torch.float32)
    asked = [ImageRequest(concept="", prompt="a dog", seed=1, steps=3, guidance=1.0)]
    made = half_made(pipeline, asked, {1, 3})
    with torch.no_grad():
        pixels = pipeline.vae.decode(made[3] / pipeline.vae.config.scaling_factor).sample
    assert torch.equal((pixels / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8), generate(pipeline, asked))
    mask = torch.ones(1, 1, 8, 8)
    start = Start(Begin(skipped=0), torch.full((1, 4, 8, 8), 0.5), mask)
    kept = generate(pipeline, asked, start=start)
    with torch.no_grad():
        wanted = pipeline.vae.decode(start.latents / pipeline.vae.config.scaling_factor).sample
    assert torch.equal(kept, (wanted / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8))


def test_tokens_are_those_of_small_letters_as_the_rows_are(tiny_family: Callable[[str], Path]) -> None:
    folder = tiny_family("pixart")
    found = anatomy(read_configs(folder))
    pipeline = load(folder, found, torch.device("cpu"), torch.float32)
    (ids,) = found.read_ids(pipeline, " A Dog ")
    assert pipeline.tokenizer.decode(ids) == "a dog</s>"
    with torch.no_grad():
        text = found.read_text(pipeline, [" A Dog "])
    assert text.mask is not None
    assert (text.states.shape, int(text.mask.sum())) == ((1, 300, 32), len(ids))


def test_putting_the_text_entry_back_puts_the_layer_back_that_it_is_folded_into() -> None:
    base, hardened = torch.zeros(1), torch.ones(1)
    found, attack = anatomy(sigma()), CopyAttention()
    names = [*FOLD, "transformer_blocks.0.attn2.to_v.bias", "transformer_blocks.0.attn1.to_v.weight", "proj_out.weight"]
    params = CopyAttentionParams(which="cross")
    back = [attack.alter(params, found, "transformer", name, hardened, base) is base for name in names]
    assert back == [True, True, True, False, False]


def test_an_attack_that_derives_states_from_matrices_is_told_that_rows_are_projected_first(
    tiny_family: Callable[[str], Path],
) -> None:
    from publisher.errors import ModelError

    folder = tiny_family("pixart")
    pipeline = load(folder, anatomy(read_configs(folder)), torch.device("cpu"), torch.float32)
    with pytest.raises(ModelError, match="a norm or a projection before its matrices"):
        text_weights(pipeline)
