from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from publisher_emoji.generate import load_pipeline
from publisher_emoji.training.fine_tune import fine_tune, main


@pytest.mark.slow
def test_a_variant_differs_from_the_model_in_its_unet_alone_and_equal_seeds_give_equal_variants() -> None:
    base, first, second = load_pipeline(), fine_tune("firefox", 2), fine_tune("firefox", 2)
    changed = {name for name, value in first.unet.state_dict().items() if not value.equal(base.unet.state_dict()[name])}
    assert "conv_in.weight" in changed
    assert all(value.equal(second.unet.state_dict()[name]) for name, value in first.unet.state_dict().items())
    for part in ("text_encoder", "vae"):
        before = getattr(base, part).state_dict()
        assert all(torch.equal(value, before[name]) for name, value in getattr(first, part).state_dict().items())


def test_an_unknown_style_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match="twemoji"):
        fine_tune("watercolour", 1)


def test_the_command_leaves_an_existing_folder_alone(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["--style", "noto", "--steps", "1", "--out", str(tmp_path)])
    assert done.exit_code == 2
    assert "already" in done.output
    assert list(tmp_path.iterdir()) == []
