"""A fine-tuned model says which mask it was trained under, after saving and loading; the mask itself goes along."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from publisher.api.freeze_mask import FILE
from publisher.errors import ModelError
from publisher.safeguards.freeze_mask.guard.errors import MaskBrokenError, NotTheModelError
from publisher.safeguards.freeze_mask.guard.guard import Guard
from publisher.safeguards.freeze_mask.guard.reading import read_mask
from publisher.safeguards.freeze_mask.guard.record import KEY, recorded
from support.guarding import QUERY, VALUE, adamw, mask_of, tiny_unet, train


def reloaded(folder: Path) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel.from_pretrained(folder)


def test_the_flags_are_lost_on_reload_and_the_record_is_not(tmp_path: Path) -> None:
    unet = tiny_unet()
    mask = mask_of(unet)
    with Guard(unet, mask, every=1) as guard:
        train(unet, adamw(guard.parameters()))
        unet.save_pretrained(tmp_path / "one")
    again = reloaded(tmp_path / "one")
    assert all(tensor.requires_grad for tensor in again.parameters())
    again.save_pretrained(tmp_path / "two")
    digest = hashlib.sha256(mask.as_file()).hexdigest()
    assert json.loads((tmp_path / "two/config.json").read_text())[KEY] == digest
    assert recorded(reloaded(tmp_path / "two")) == digest
    with Guard(reloaded(tmp_path / "two"), mask, every=1) as guard:
        assert QUERY not in dict(guard.named_parameters())


def test_the_mask_of_another_release_is_refused_even_where_its_tensors_fit(tmp_path: Path) -> None:
    unet = tiny_unet()
    Guard(unet, mask_of(unet), every=50).release()
    with pytest.raises(NotTheModelError, match="fine-tuned under another mask"):
        Guard(unet, mask_of(unet, {VALUE: ()}), every=50)
    Guard(unet, mask_of(unet), every=50).save(tmp_path)  # the refused one has left nothing behind


def test_saving_writes_the_mask_beside_the_weights(tmp_path: Path) -> None:
    unet = tiny_unet()
    mask = mask_of(unet)
    guard = Guard(torch.compile(unet, backend="eager"), mask, every=50)
    train(unet, adamw(guard.parameters()))
    guard.save(tmp_path)
    assert read_mask(tmp_path / FILE) == mask
    assert recorded(reloaded(tmp_path)) is not None


def test_a_pipeline_is_saved_as_a_whole(pipeline: Any, tmp_path: Path) -> None:
    unet = tiny_unet()
    mask = mask_of(unet)
    Guard(type(pipeline)(**{**pipeline.components, "unet": unet}), mask, every=50).save(tmp_path)
    assert (tmp_path / "model_index.json").is_file()
    assert read_mask(tmp_path / "unet" / FILE) == mask
    assert recorded(reloaded(tmp_path / "unet")) is not None


@pytest.mark.parametrize("how", ["save_pretrained", "save", "state_dict"])
def test_nothing_is_saved_once_the_mask_is_broken(how: str, tmp_path: Path) -> None:
    unet = tiny_unet()
    guard = Guard(unet, mask_of(unet), every=50)
    with torch.no_grad():
        unet.get_parameter(QUERY)[0] = 0
    ways = {"save_pretrained": unet.save_pretrained, "save": guard.save, "state_dict": lambda _: unet.state_dict()}
    with pytest.raises(MaskBrokenError, match="has changed"):
        ways[how](tmp_path / "out")
    assert not list(tmp_path.rglob("*.safetensors"))
    guard.release()
    unet.save_pretrained(tmp_path / "out")
    assert QUERY in load_file(tmp_path / "out/diffusion_pytorch_model.safetensors")


def test_masks_that_cannot_be_read_say_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        read_mask(tmp_path / "no.json")
    path = tmp_path / FILE
    path.write_text('{"freeze_mask": 1, "freeze_mask": 1}')
    with pytest.raises(ModelError, match="has a key twice"):
        read_mask(path)
    path.write_text('{"freeze_mask": 2}')
    with pytest.raises(ModelError, match="malformed: freeze_mask"):
        read_mask(path)
    monkeypatch.setattr("publisher.safeguards.freeze_mask.guard.reading.MAX_BYTES", 3)
    with pytest.raises(ModelError, match="larger than 3 bytes"):
        read_mask(path)


def test_what_has_no_such_denoiser_is_refused(pipeline: Any) -> None:
    mask = mask_of(tiny_unet()).model_copy(update={"component": "transformer"})
    with pytest.raises(ModelError, match="'transformer', and a StableDiffusionPipeline has none"):
        Guard(pipeline, mask, every=50)
