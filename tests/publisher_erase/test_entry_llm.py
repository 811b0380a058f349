"""The edit of a text entry behind a causal language model: a template's end, a norm before the door, no padding."""

from __future__ import annotations

import pytest
import torch
from erase_fakes import concept

from publisher.api import Model, Scope, UsageError
from publisher.api.loading import load_component
from publisher.testing.tiny import open_model
from publisher_erase.entry import PipelineReader
from publisher_erase.params import EraseParams
from publisher_erase.plan import select, tokenise
from support.tiny_qwen_image import save_tiny_qwen_image

SCOPE = Scope(concepts=(concept("cigarette"),), keep=(concept("dog"), concept("pencil")))
PARAMS = EraseParams(targets={"cigarette": "pizza"})
BEHIND = "<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Return a very small Qwen-Image whose norm at the entry counts."""
    from safetensors.torch import load_file, save_file

    folder = save_tiny_qwen_image(tmp_path_factory.mktemp("llm") / "model")
    file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["txt_norm.weight"] = torch.rand(16, generator=torch.Generator().manual_seed(0)) + 0.5
    save_file(weights, file, {"format": "pt"})
    return open_model(folder)


@pytest.fixture(scope="module")
def reader(model: Model) -> PipelineReader:
    return PipelineReader(model, torch.device("cpu"), torch.float32)


def test_rows_are_those_that_the_norm_returns(model: Model, reader: PipelineReader) -> None:
    network = load_component(model, "transformer", "cpu", torch.float32)
    with torch.no_grad():
        text = model.anatomy.read_text(reader.pipeline, ["a dog"])
        wanted = network.txt_norm(text.states)[0]
    (found,) = reader.read([reader.tokens("a dog")])
    assert torch.allclose(found.blocks[0].hidden.float(), wanted, atol=1e-6)


def test_the_templates_end_counts_and_what_fills_up_does_not(reader: PipelineReader) -> None:
    short, long = (reader.tokens(text) for text in ("a dog", "a pencil emoji"))
    behind = len(BEHIND.replace("<|im_end|>", "!").replace("<|im_start|>", "!"))
    assert [prompt.length - reader.tokens("").length for prompt in (short, long)] == [5, 14]
    for found, prompt in zip(reader.read([short, long]), (short, long), strict=True):
        (block,) = found.blocks
        assert len(block.hidden) == block.length == prompt.length
    assert reader.causal == (True,)
    assert reader.pipeline.tokenizer.decode(short.ids[0][-behind:]) == BEHIND


def test_a_prompt_without_words_cannot_be_erased(reader: PipelineReader) -> None:
    assert reader.tokens("").empty
    assert not reader.tokens("a").empty
    nothing = Scope(concepts=(concept("cigarette").model_copy(update={"prompts": ("",)}),), keep=SCOPE.keep)
    with pytest.raises(UsageError, match="an empty prompt"):
        tokenise(select(PARAMS, nothing), reader.tokens)
