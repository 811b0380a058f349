"""A package is pushed to the hub, received in each way that the real client has, and then used, guarded and audited."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from huggingface_hub import snapshot_download

import publisher
from publisher.api.freeze_mask import FILE
from publisher.api.membranes import INDEX, MembraneIndex, Transport, membrane_bytes
from publisher.auditing import audit
from publisher.cli import main
from publisher.engine.plan import locate_model
from publisher.package import build, keys, sign
from publisher.registry import load_registry
from publisher.runtime.pipelines import twin
from publisher_emoji import model_folder
from support.attaching import entry, images, members_for
from support.fake_hub import FakeHub
from support.guarding import mask_of
from support.packages import CREATED, finish, report_data

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])
NAME = "acme/emoji"


@pytest.fixture(scope="module")
def released(
    pipeline: Any, embedded: Any, key_pair: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The embedded model with one membrane and a mask, signed."""
    folder = tmp_path_factory.mktemp("package") / "emoji-1.2.0"
    ((_, membrane),) = members_for(pipeline.unet, ("pizza",))
    data = membrane_bytes(membrane)
    about = entry("pizza", sha256=hashlib.sha256(data).hexdigest())
    index = MembraneIndex(mode="bundle", transport=Transport(score="overlap"), entries=(about,))
    model = {
        path.relative_to(model_folder()).as_posix(): path
        for path in model_folder().rglob("*")
        if path.is_file() and (path.name == "model_index.json" or path.parent != model_folder())
    }
    mask = mask_of(pipeline.unet, {"conv_in.weight": ()}).model_copy(update={"model": embedded.digest})
    artifacts = {INDEX: index.as_file(), f"membranes/{about.file}": data, FILE: mask.as_file()}
    build.lay_out(folder, model, artifacts)
    finish(folder, report_data())
    sign.sign(folder, keys.load_private(key_pair[0]), created=CREATED)
    return folder


@pytest.mark.slow
def test_a_pushed_package_verifies_loads_and_generates_however_it_was_received(
    hub: FakeHub, released: Path, public: Path, pipeline: Any, tmp_path: Path
) -> None:
    pushed = CliRunner().invoke(main, ["push", str(released), NAME, "--key", str(public)])
    assert pushed.exit_code == 0, pushed.output
    in_folder = snapshot_download(NAME, revision="v1.2.0", local_dir=tmp_path / "downloaded")
    in_cache = snapshot_download(NAME, revision="v1.2.0")
    assert (Path(in_folder) / ".cache/huggingface").is_dir()
    assert (Path(in_cache) / "unet/config.json").is_symlink()
    expected = images(publisher.load(released, verify_key=public, device="cpu"), ["a pizza"])
    for received in (in_folder, in_cache, f"hf:{NAME}@v1.2.0"):
        verified = CliRunner().invoke(main, ["verify", received, "--key", str(public)])
        assert verified.exit_code == 0, verified.output
        loaded = publisher.load(received, verify_key=public, device="cpu")
        assert loaded.membranes.concepts == ("pizza",)
        torch.testing.assert_close(images(loaded, ["a pizza"]), expected, atol=0, rtol=0)
    with publisher.guard(twin(pipeline).unet, in_folder, verify_key=public) as guard:
        assert len(list(guard.parameters())) > 0
    assert {audit(upload, f"hf:{NAME}@v1.2.0", public).verdict for upload in (in_folder, in_cache)} == {"complies"}
    places = [str(released), in_cache, in_folder]
    models = [locate_model(place, load_registry(), Path(), fetch=False) for place in places]
    assert len({(one.folder.digest, *sorted(one.folder.digests), *one.folder.ignored) for one in models if one}) == 1
    assert None not in models
