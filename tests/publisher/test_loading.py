"""``publisher.load``: a package for use, verified first."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import publisher
from publisher.api.membranes import INDEX, MembraneIndex, Transport, membrane_bytes
from publisher.errors import ExitCode, ModelError, PrerequisiteError, UsageError
from publisher.loading import NotVerifiedError
from publisher.package import build, keys, sign
from publisher.safeguards.membranes.attached import Attached
from publisher.testing.tiny import open_model
from publisher_emoji import model_folder
from support.attaching import entry, images, members_for
from support.packages import CREATED, finish, report_data
from support.released_membranes import artifacts
from support.tiny_sd3 import save_tiny_sd3

OVERLAP = Transport(score="overlap")


@pytest.fixture(scope="module")
def key_pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("keys")
    keys.generate(folder / "a.key", folder / "a.pub", None)
    return folder / "a.key", folder / "a.pub"


@pytest.fixture(scope="module")
def package(pipeline: Any, key_pair: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model with one membrane, signed."""
    ((_, membrane),) = members_for(pipeline.unet, ("pizza",))
    data = membrane_bytes(membrane)
    about = entry("pizza", sha256=hashlib.sha256(data).hexdigest())
    index = MembraneIndex(mode="bundle", transport=OVERLAP, entries=(about,))
    return signed(
        tmp_path_factory.mktemp("package") / "tiny-1.2.0",
        key_pair[0],
        {INDEX: index.as_file(), f"membranes/{about.file}": data},
    )


def signed(folder: Path, key: Path, artifacts: dict[str, bytes], base: Path | None = None) -> Path:
    base = base or model_folder()
    model = {
        path.relative_to(base).as_posix(): path
        for path in base.rglob("*")
        if path.is_file() and (path.name == "model_index.json" or path.parent != base)
    }
    build.lay_out(folder, model, artifacts)
    finish(folder, report_data())
    sign.sign(folder, keys.load_private(key), created=CREATED)
    return folder


def test_a_package_is_loaded_with_its_membranes_and_its_own_rule(
    package: Path, key_pair: tuple[Path, Path], pipeline: Any
) -> None:
    loaded = publisher.load(package, verify_key=key_pair[1], device="cpu")
    assert isinstance(loaded.membranes, Attached)
    assert (loaded.membranes.concepts, loaded.membranes.transport) == (("pizza",), OVERLAP)
    assert (loaded.unet.dtype, loaded.device.type) == (torch.float32, "cpu")
    base = images(pipeline, ["a dog", "a pizza"])
    generated = images(loaded, ["a dog", "a pizza"])
    torch.testing.assert_close(generated[0], base[0], atol=1e-4, rtol=0)
    assert (generated[1] - base[1]).abs().max() > 0.05
    loaded.membranes.detach()
    torch.testing.assert_close(images(loaded, ["a dog", "a pizza"]), base, atol=1e-4, rtol=0)


def test_a_transformer_is_loaded_with_its_membranes(key_pair: tuple[Path, Path], tmp_path: Path) -> None:
    base = save_tiny_sd3(tmp_path / "sd3")
    files = artifacts(open_model(base), ("pizza",))
    package = signed(tmp_path / "tiny-1.2.0", key_pair[0], files, base)
    loaded = publisher.load(package, verify_key=key_pair[1], device="cpu")
    loaded.set_progress_bar_config(disable=True)
    generated = images(loaded, ["a dog", "a pizza"], max_sequence_length=16)
    assert loaded.membranes.last.matrix.tolist() == [[0.0], [1.0]]
    loaded.membranes.detach()
    plain = images(loaded, ["a dog", "a pizza"], max_sequence_length=16)
    assert torch.equal(generated[0], plain[0])
    assert not torch.equal(generated[1], plain[1])


def test_the_rule_can_be_another(package: Path) -> None:
    loaded = publisher.load(str(package), verify_key=None, device="cpu", transport=Transport(strength=2.0))
    assert loaded.membranes.permeabilities(["pizza"]).item() == pytest.approx(2.0)


def test_a_package_that_does_not_verify_is_refused_with_everything_that_is_wrong(
    package: Path, key_pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("publisher.loading.load_pipeline", lambda *_, **__: pytest.fail("it was loaded"))
    folder = Path(shutil.copytree(package, tmp_path / "copy"))
    (folder / "release/extra.json").write_text("{}")
    (folder / "release" / INDEX).write_text("{}")
    with pytest.raises(NotVerifiedError, match=r"(?s)did not verify.*V010.*index.json.*V012.*extra.json") as caught:
        publisher.load(folder, verify_key=key_pair[1])
    assert caught.value.exit_code == ExitCode.REFUSED


def test_a_package_of_somebody_else_is_refused(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("publisher.loading.load_pipeline", lambda *_, **__: pytest.fail("it was loaded"))
    keys.generate(tmp_path / "b.key", tmp_path / "b.pub", None)
    with pytest.raises(NotVerifiedError, match="another key"):
        publisher.load(package, verify_key=tmp_path / "b.pub")


def test_a_key_has_to_be_given_and_be_there(package: Path, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="verify_key"):
        publisher.load(package)  # type: ignore[call-arg]
    with pytest.raises(UsageError):
        publisher.load(package, verify_key=tmp_path / "no.pub")


def test_without_a_key_ones_own_folder_is_loaded_as_it_is(tmp_path: Path) -> None:
    loaded = publisher.load(model_folder(), verify_key=None, device=torch.device("cpu"), dtype="bfloat16")
    assert loaded.membranes is None
    assert loaded.unet.dtype == torch.bfloat16
    with pytest.raises(ModelError):
        publisher.load(tmp_path, verify_key=None)


def test_merged_membranes_are_not_attached_again(package: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(package, tmp_path / "copy"))
    index = json.loads((folder / "release" / INDEX).read_text())
    (folder / "release" / INDEX).write_text(json.dumps(index | {"mode": "merge"}))
    assert publisher.load(folder, verify_key=None, device="cpu").membranes is None


def test_unknown_devices_and_dtypes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="is no device"):
        publisher.load(model_folder(), verify_key=None, device="gpu")
    for wrong in ("int8", "float64", torch.int8):
        with pytest.raises(UsageError, match="is no dtype"):
            publisher.load(model_folder(), verify_key=None, device="cpu", dtype=wrong)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(PrerequisiteError, match="no GPU"):
        publisher.load(model_folder(), verify_key=None, device="cuda")


def test_another_name_is_none_of_publisher() -> None:
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        publisher.lode  # noqa: B018
