from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import ViTForImageClassification

from publisher.api import Concept, UsageError
from publisher_photo.classifier import ClassifierParams, LabelledClassifier
from publisher_photo.pixels import prepared
from publisher_photo.towers import image_preparation

CLASSES = {"coffee": ["espresso", "cup"], "cat": ["tabby cat", "Egyptian cat"]}


def scorer(folder: Path, **params: Any) -> LabelledClassifier:
    found = LabelledClassifier(ClassifierParams.parse({"weights": "model", "classes": CLASSES} | params))
    found.files = {"model": folder}
    return found


def concept(label: str) -> Concept:
    return Concept(id=label, name=label, label=label, prompts=(label,))


def chances(folder: Path, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        network = ViTForImageClassification.from_pretrained(folder)
        logits: torch.Tensor = network(pixel_values=prepared(images, image_preparation(folder))).logits
        return logits


def test_a_label_has_the_probabilities_of_its_classes_together(vit: Path, images: torch.Tensor) -> None:
    found = scorer(vit)
    found.load(torch.device("cpu"))
    wanted = chances(vit, images).softmax(1)
    torch.testing.assert_close(torch.tensor(found.strengths(images, concept("coffee"))), wanted[:, :2].sum(1))
    torch.testing.assert_close(torch.tensor(found.strengths(images, concept("cat"))), wanted[:, 2:].sum(1))
    assert found.labels() == {"object": ("coffee", "cat")}


def test_where_classes_do_not_exclude_each_other_the_largest_counts(
    vit: Path, images: torch.Tensor, tmp_path: Path
) -> None:
    shutil.copytree(vit, tmp_path / "model")
    config = json.loads((vit / "config.json").read_text()) | {"problem_type": "multi_label_classification"}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    found = scorer(tmp_path / "model")
    found.load(torch.device("cpu"))
    wanted = chances(vit, images).sigmoid()[:, :2].amax(1)
    torch.testing.assert_close(torch.tensor(found.strengths(images, concept("coffee"))), wanted)
    assert "largest probability" in found.card().decision


def test_a_class_that_the_model_does_not_have_is_an_error_with_near_ones(vit: Path) -> None:
    with pytest.raises(UsageError, match=r"'cat' names the class 'tabby'.*\n.*'tabby cat'.* It has 4 classes"):
        scorer(vit, classes={"cat": ["tabby"]}).card()


@pytest.mark.parametrize("classes", [{}, {"cat": []}, {"cat": ["cup", "cup"]}])
def test_labels_without_classes_are_refused(classes: dict[str, list[str]]) -> None:
    with pytest.raises(ValueError, match=r"at least 1 item|one or more classes"):
        ClassifierParams.parse({"weights": "model", "classes": classes})
