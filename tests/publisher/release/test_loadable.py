"""A finished package is loaded as its users do before it is signed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from publisher.errors import PublisherError
from publisher.release.loadable import require_loadable
from publisher_emoji import model_folder


def without_weights(folder: Path) -> None:
    """Return a safety checker whose weights were left out, as they are where they are a pickle."""
    index = json.loads((folder / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "safety_checker").mkdir()
    (folder / "safety_checker" / "config.json").write_text('{"model_type": "clip"}')


def with_names_that_nobody_knows(folder: Path) -> None:
    """Return weights that transformers replaces by random ones, with a warning at most."""
    path = folder / "text_encoder" / "model.safetensors"
    save_file({f"other.{name}": tensor for name, tensor in load_file(path).items()}, path, {"format": "pt"})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_weights, r"cannot be loaded by DiffusionPipeline\.from_pretrained"),
        (with_names_that_nobody_knows, r"\d+ weights of the finished package are others at each loading.*text_encoder"),
    ],
)
def test_what_a_user_could_not_load_is_not_signed(tmp_path: Path, spoil: Callable[[Path], None], message: str) -> None:
    folder = tmp_path / "package"
    shutil.copytree(model_folder(), folder)
    spoil(folder)
    with pytest.raises(PublisherError, match=message):
        require_loadable(folder)
