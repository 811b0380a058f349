"""What nobody's pipeline could generate with is refused from configurations alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from publisher.builtin.families import StableDiffusion1
from publisher.errors import ModelError
from publisher.model.folder import ModelFolder, read_configs
from publisher.runtime.usable import require_usable
from publisher_emoji import model_folder


def changed(folder: Path, file: str, key: str, value: Any) -> ModelFolder:
    """Return the embedded model with one key of one configuration set, or left out."""
    shutil.copytree(model_folder(), folder, copy_function=lambda a, b: Path(b).symlink_to(a))
    config = json.loads((folder / file).read_text())
    config = {name: old for name, old in config.items() if name != key} | ({} if value is ... else {key: value})
    (folder / file).unlink()
    (folder / file).write_text(json.dumps(config))
    configs = read_configs(folder)
    anatomy = StableDiffusion1().recognise(configs)
    assert anatomy is not None
    return ModelFolder(folder, anatomy, configs)


@pytest.mark.parametrize("value", [..., None, 10**30, 77, 0])
def test_a_tokenizer_must_say_a_length_that_the_encoder_reads(tmp_path: Path, value: Any) -> None:
    model = changed(tmp_path / "model", "tokenizer/tokenizer_config.json", "model_max_length", value)
    with pytest.raises(ModelError, match="the text_encoder reads 32 tokens") as caught:
        require_usable(model)
    assert caught.value.where.endswith("tokenizer/tokenizer_config.json")
    assert caught.value.hint == 'Write "model_max_length": 32 into it.'


def test_without_its_configuration_a_tokenizer_has_no_length_either(tmp_path: Path) -> None:
    model = changed(tmp_path / "model", "tokenizer/tokenizer_config.json", "model_max_length", 16)
    require_usable(model)
    (tmp_path / "model/tokenizer/tokenizer_config.json").unlink()
    with pytest.raises(ModelError, match="there is no model_max_length"):
        require_usable(model)


@pytest.mark.parametrize(("value", "usable"), [([8, 12], True), (8, True), (None, False), (..., False)])
def test_a_model_must_say_how_large_its_images_are(tmp_path: Path, value: Any, usable: bool) -> None:  # noqa: FBT001
    if usable:
        require_usable(changed(tmp_path / "model", "unet/config.json", "sample_size", value))
    else:
        with pytest.raises(ModelError, match="sample_size is None"):
            changed(tmp_path / "model", "unet/config.json", "sample_size", value)
