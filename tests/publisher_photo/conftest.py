from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel, ViTConfig, ViTForImageClassification

from publisher.api import Concept, Scope
from publisher_emoji import model_folder

PROCESSOR = {
    "size": {"height": 32, "width": 32},
    "resample": 3,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
TEXT = {
    "vocab_size": 1389,
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 16,
    "bos_token_id": 1387,
    "eos_token_id": 1388,
    "pad_token_id": 1388,
}
VISION = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 16,
}
CLASSES = {0: "espresso", 1: "cup", 2: "tabby cat", 3: "Egyptian cat"}


def written(model: torch.nn.Module, folder: Path, processor: dict[str, object]) -> Path:
    """Give a random model larger weights, so that its answers differ, and write it as transformers does."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
    model.save_pretrained(folder)  # type: ignore[operator]
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    for file in (model_folder() / "tokenizer").iterdir():
        shutil.copy(file, folder / file.name)
    return folder


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=16))
    return written(model, tmp_path_factory.mktemp("clip"), PROCESSOR)


@pytest.fixture(scope="session")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    text = TEXT | {"max_position_embeddings": 12, "projection_size": 24}
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=VISION))
    with torch.no_grad():
        model.logit_scale.fill_(1.0)
        model.logit_bias.fill_(-1.0)
    return written(model, tmp_path_factory.mktemp("siglip"), PROCESSOR)


@pytest.fixture(scope="session")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(2)
    config = ViTConfig(**VISION, id2label=CLASSES, label2id={name: number for number, name in CLASSES.items()})
    return written(ViTForImageClassification(config), tmp_path_factory.mktemp("vit"), PROCESSOR)


@pytest.fixture(scope="session")
def images() -> torch.Tensor:
    """Six images of noise in different colours, of another size and shape than the networks take."""
    generator = torch.Generator().manual_seed(3)
    return torch.rand(6, 3, 40, 56, generator=generator) * torch.rand(6, 3, 1, 1, generator=generator)


def concept(label: str, kind: str = "object") -> Concept:
    return Concept.parse(
        {"id": label.lower().replace(" ", "-"), "kind": kind, "name": label, "label": label, "prompts": [label]}
    )


def scope(*labels: str) -> Scope:
    return Scope(concepts=tuple(map(concept, labels)))
