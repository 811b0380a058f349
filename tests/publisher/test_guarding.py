"""``publisher.guard``: a package's mask for fine-tuning, verified first."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import publisher
from publisher.api.freeze_mask import FILE, FreezeMask
from publisher.errors import ModelError, UsageError
from publisher.loading import NotVerifiedError
from publisher.package import build, keys, sign
from publisher.safeguards.freeze_mask.guard.errors import NotTheModelError
from publisher_emoji import model_folder
from support.guarding import adamw, mask_of, tiny_unet, train
from support.packages import CREATED, finish, report_data

NAMES = ("conv_in.weight", "conv_out.weight")


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    keys.generate(folder / "a.key", folder / "a.pub", None)
    return folder / "a.pub"


@pytest.fixture(scope="module")
def mask(pipeline: Any) -> FreezeMask:
    from publisher.builtin.families import StableDiffusion1
    from publisher.model.folder import ModelFolder, read_configs
    from publisher.model.state import State

    configs = read_configs(model_folder())
    anatomy = StableDiffusion1().recognise(configs)
    assert anatomy is not None
    model = State(ModelFolder(model_folder(), anatomy, configs), (), Path())
    return mask_of(pipeline.unet, dict.fromkeys(NAMES, ())).model_copy(update={"model": model.digest})


@pytest.fixture(scope="module")
def package(mask: FreezeMask, key: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model with a mask, signed."""
    folder = tmp_path_factory.mktemp("package") / "tiny-1.2.0"
    model = {
        path.relative_to(model_folder()).as_posix(): path
        for path in model_folder().rglob("*")
        if path.is_file() and (path.name == "model_index.json" or path.parent != model_folder())
    }
    build.lay_out(folder, model, {FILE: mask.as_file()})
    finish(folder, report_data())
    sign.sign(folder, keys.load_private(key.with_suffix(".key")), created=CREATED)
    return folder


def test_a_released_model_is_trained_under_its_own_mask(package: Path, key: Path) -> None:
    pipeline = publisher.load(package, verify_key=key, device="cpu")
    with publisher.guard(pipeline, package, verify_key=key, every=1) as guard:
        assert {name for name, one in pipeline.unet.named_parameters() if not one.requires_grad} == set(NAMES)
        train(pipeline.unet, adamw(guard.parameters()), 1)
    assert pipeline.unet.conv_in.weight.requires_grad


def test_a_package_that_was_changed_freezes_nothing(package: Path, key: Path, pipeline: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(package, tmp_path / "copy"))
    path = folder / "release" / FILE
    path.write_bytes(path.read_bytes().replace(b'"recipe": {}', b'"recipe": {"a": 1}'))
    with pytest.raises(NotVerifiedError, match=r"V010.*freeze-mask\.json"):
        publisher.guard(pipeline, folder, verify_key=key)
    assert pipeline.unet.conv_in.weight.requires_grad
    assert not any(module._forward_pre_hooks for module in pipeline.unet.modules())


def test_a_key_has_to_be_given_and_none_is_for_ones_own_files(package: Path, key: Path, mask: FreezeMask) -> None:
    unet = publisher.load(package, verify_key=None, device="cpu", dtype="bfloat16").unet
    with pytest.raises(TypeError, match="verify_key"):
        publisher.guard(unet, package)  # type: ignore[call-arg]
    for own in (package, package / "release" / FILE, str(package / "release" / FILE), mask):
        publisher.guard(unet, own, verify_key=None).release()
    for own in (package / "release" / FILE, mask):
        with pytest.raises(UsageError, match="no signature"):
            publisher.guard(unet, own, verify_key=key)
    with pytest.raises(UsageError, match="every is 0"):
        publisher.guard(unet, mask, verify_key=None, every=0)


def test_another_model_is_refused(package: Path) -> None:
    with pytest.raises(NotTheModelError, match="has the shape"):
        publisher.guard(tiny_unet(), package, verify_key=None)


def test_a_package_without_a_mask_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="the freeze mask cannot be read"):
        publisher.guard(tiny_unet(), tmp_path, verify_key=None)
