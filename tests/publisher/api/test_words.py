"""Nearness of words by a text encoder's token embeddings, without torch, as the libraries tokenise them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch
from transformers import CLIPTokenizer

from publisher.api import Concept, Scope
from publisher.api.words import WordSpace, kept_by_nearness, shares_a_word
from publisher.builtin.families import StableDiffusion1
from publisher.errors import ModelError
from publisher.evaluate.context import ModelUnderTest
from publisher.model.folder import ModelFolder, read_configs
from publisher_emoji import model_folder, vocabulary

ODD = ("Van Gogh's  café 42!", "naïve — test", "t-shirt")


def model_of(folder: Path) -> ModelFolder:
    configs = read_configs(folder)
    anatomy = StableDiffusion1().recognise(configs)
    assert anatomy is not None
    return ModelFolder(folder, anatomy, configs)


@pytest.fixture(scope="module")
def space() -> WordSpace:
    return WordSpace(model_of(model_folder()))


def test_words_of_a_sort_are_near(space: WordSpace) -> None:
    others = [name for name in vocabulary().object_names if name != "skull"]
    (first, cosine), *rest = space.nearest("skull", others)
    assert first == "ghost"
    assert 0.4 < cosine < 0.7
    assert [value for _, value in rest] == sorted((value for _, value in rest), reverse=True)


@pytest.mark.parametrize("fast", [True, False], ids=["tokenizer.json", "vocabulary and merges"])
def test_tokens_are_those_of_the_library(fast: bool, tmp_path: Path, space: WordSpace) -> None:  # noqa: FBT001
    source = model_folder() / "tokenizer"
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    for name in ("tokenizer.json",) if fast else ("vocab.json", "merges.txt"):
        (folder / name).write_bytes((source / name).read_bytes())
    theirs = CLIPTokenizer.from_pretrained(source)
    ours = WordSpace(model_of(model_folder()))
    ours._tokenizer = folder
    for text in (*ODD, *vocabulary().object_names):
        assert ours._tokens(text) == theirs(text, add_special_tokens=False).input_ids, text


def test_a_word_is_the_mean_of_its_tokens(space: WordSpace, tmp_path: Path) -> None:
    space_here = WordSpace(model_of(model_folder()))
    ids = space._tokens("police officer")
    table = np.zeros((1389, 3), dtype=np.float16)
    table[ids] = [[2, 0, 0], [0, 4, 0]]
    save_file({"embeddings.token_embedding.weight": table}, tmp_path / "model.safetensors")
    space_here._encoder = tmp_path
    assert space_here.vector("police officer").tolist() == [1.0, 2.0, 0.0]


def test_an_encoder_without_known_embeddings_says_so(tmp_path: Path) -> None:
    here = WordSpace(model_of(model_folder()))
    here._encoder = tmp_path
    with pytest.raises(ModelError, match="no token embeddings that are known"):
        here.vector("skull")


def test_names_with_a_word_in_common_are_told() -> None:
    assert shares_a_word(("knife",), ("fork and Knife",))
    assert not shares_a_word(("heart",), ("hearts",))


@pytest.mark.parametrize(
    ("name", "kind", "nearest"),
    [("skull", "object", "ghost"), ("pistol", "object", "knife"), ("noto", "style", "fluen")],
)
def test_each_concept_has_its_own_neighbour_in_whatever_order_they_are_kept(name: str, kind: str, nearest: str) -> None:
    names = {"object": ("bomb", "ghost", "knife", "water pistol"), "style": ("twemoji", "fluent", "blob")}
    keep = tuple(
        Concept(id=one[:5], name=one, label=one, kind=of, prompts=(one,)) for of, each in names.items() for one in each
    )
    gone = Concept(id=name, name=name, label=name, kind=kind, prompts=(name,))
    for kept in (keep, keep[::-1]):
        found = [one.id for one in kept_by_nearness(gone, Scope(concepts=(gone,), keep=kept), model_of(model_folder()))]
        assert (found[0], sorted(found)) == (nearest, sorted(one[:5] for one in names[kind]))
        assert name != "pistol" or found[-1] == "water"


def test_one_that_is_kept_alone_is_the_neighbour_without_reading_anything(tmp_path: Path) -> None:
    gone, kept = (Concept(id=one, name=one, label=one, prompts=(one,)) for one in ("cat", "dog"))
    nowhere = ModelUnderTest(tmp_path, model_of(model_folder()).anatomy, "")
    assert kept_by_nearness(gone, Scope(concepts=(gone,), keep=(gone, kept)), nowhere) == (kept,)
    assert kept_by_nearness(gone, Scope(concepts=(gone,), keep=(gone,)), nowhere) == ()


def test_no_torch_is_loaded() -> None:
    code = (
        "import sys; from publisher.api.words import WordSpace; from publisher.registry import load_registry;"
        "from publisher.engine.plan import locate_model; from pathlib import Path;"
        "found = locate_model('embedded:emoji', load_registry(), Path(), fetch=False);"
        "print(WordSpace(found.folder).nearest('dog', ['horse', 'key'])[0][0], 'torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["horse", "False"], json.dumps(found.stderr)


def test_bfloat16_is_read_without_torch_wherever_it_stands_in_the_file(tmp_path: Path, space: WordSpace) -> None:
    here = WordSpace(model_of(model_folder()))
    table = torch.randn(1389, 3, generator=torch.Generator().manual_seed(0)).bfloat16()
    before = {"a.weight": torch.ones(5), "token_embedding.weight": table, "z.weight": torch.ones(7)}
    save_torch(before, tmp_path / "model.safetensors")
    here._encoder = tmp_path
    for word in ("skull", "fork and knife"):
        wanted = table[space._tokens(word)].double().mean(0)
        assert np.array_equal(here.vector(word), wanted.numpy())


def test_eight_bits_say_what_to_do(tmp_path: Path) -> None:
    here = WordSpace(model_of(model_folder()))
    table = torch.zeros(1389, 3).to(torch.float8_e4m3fn)
    save_torch({"token_embedding.weight": table}, tmp_path / "model.safetensors")
    here._encoder = tmp_path
    with pytest.raises(ModelError, match="cannot be read without torch") as caught:
        here.vector("skull")
    assert caught.value.hint.startswith("Name the words yourself")
