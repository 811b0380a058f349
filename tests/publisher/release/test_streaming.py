"""A step that edits where text enters loads no transformer: its shards are copied, and a few bytes overwritten."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from diffusers import SD3Transformer2DModel
from safetensors.torch import load_file, save_file

from publisher.engine.run import Hardened, harden
from publisher.evaluate import context
from publisher.model import digest
from publisher.model.state import State
from publisher.package.tree import Tree
from publisher.release.make import lay_out_hardened
from publisher.release.prepare import prepare
from publisher.testing.running import Silent
from support.releasing import MANIFEST, write
from support.tiny_sd3 import save_tiny_sd3

ENTRY = {"context_embedder.weight", "time_text_embed.text_embedder.linear_1.weight"}


class Streamed:
    """The hardened model and its package, without signature, and which files were read as a whole meanwhile."""

    def __init__(self, place: Path) -> None:
        self.base = save_tiny_sd3(place / "model")
        (file,) = (self.base / "transformer").glob("*.safetensors")
        file.unlink()
        torch.manual_seed(0)
        network = SD3Transformer2DModel.from_config(SD3Transformer2DModel.load_config(self.base / "transformer"))
        network.save_pretrained(self.base / "transformer", max_shard_size="25KB")
        self.package, self.hashed = place / "package", list[str]()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SD3Transformer2DModel, "__init__", self._fail)
            patch.setattr(digest, "sha256_file", self._hash)
            self.hardened = self._harden(place)
            self.laid: Tree = lay_out_hardened(self.hardened, self.package)

    @staticmethod
    def _fail(*_: object, **__: object) -> None:
        raise AssertionError("the transformer was loaded")

    def _hash(self, path: Path) -> str:
        self.hashed.append(path.resolve().as_posix())
        return hashlib.sha256(path.read_bytes()).hexdigest()

    @staticmethod
    def _harden(place: Path) -> Hardened:
        gates = {"scorer": "emoji", "sampling": MANIFEST["evaluate"]["sampling"]}
        manifest = write(place / "m.yaml", model="./model", steps=[{"use": "erase"}], evaluate=gates)
        prepared = prepare(manifest, place / "work", fetch=False)
        assert prepared.model is not None
        base = State(prepared.model.folder, (), place / "states")
        return harden(base, prepared.steps, place / "work", Silent(), lambda *_: None)


@pytest.fixture(scope="module")
def streamed(tmp_path_factory: pytest.TempPathFactory) -> Streamed:
    """Erase in a model of several shards; whoever builds its transformer fails."""
    return Streamed(tmp_path_factory.mktemp("streamed"))


def test_the_package_has_the_bytes_that_a_loaded_model_would_be_saved_as(streamed: Streamed) -> None:
    (delta,) = streamed.hardened.final.deltas
    edited = load_file(delta.path("transformer"))
    assert set(edited) == ENTRY
    index = json.loads((streamed.base / "transformer/diffusion_pytorch_model.safetensors.index.json").read_text())
    shards = sorted(set(index["weight_map"].values()))
    touched = {index["weight_map"][name] for name in ENTRY}
    assert len(touched) < len(shards)
    for shard in shards:
        whole = load_file(streamed.base / "transformer" / shard)
        save_file(whole | {name: edited[name] for name in whole.keys() & ENTRY}, streamed.base / "x", {"format": "pt"})
        saved, found = (streamed.base / "x").read_bytes(), (streamed.package / "transformer" / shard).read_bytes()
        assert saved == found
        assert (found == (streamed.base / "transformer" / shard).read_bytes()) == (shard not in touched)
    (streamed.base / "x").unlink()


def test_files_without_a_changed_tensor_are_the_bases(streamed: Streamed) -> None:
    changed = set(streamed.hardened.final.changed_files())
    assert {name.partition("/")[0] for name in changed} == {"transformer"}
    for name, path in streamed.hardened.final.base.files.items():
        assert (streamed.laid.digests[name] == hashlib.sha256(path.read_bytes()).hexdigest()) == (name not in changed)


def test_each_file_is_hashed_once_and_again_when_something_touched_it(
    streamed: Streamed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base's when the first step needs its digest, the package's as it is written, and nothing for the checks."""
    base = sorted(path.as_posix() for path in streamed.hardened.final.base.files.values())
    assert sorted(streamed.hashed) == base
    found = {name: hashlib.sha256((streamed.package / name).read_bytes()).hexdigest() for name in streamed.laid.digests}
    assert streamed.laid.digests == found == streamed.hardened.final.folder_digests()
    monkeypatch.setattr(context, "sha256_file", Streamed._fail)
    anatomy, state = streamed.hardened.final.anatomy, streamed.hardened.final
    packaged = context.ModelUnderTest.of(streamed.package, anatomy, None, streamed.laid.untouched())
    assert packaged.digest == context.ModelUnderTest.of(state.folder, anatomy, None, state.folder_digests()).digest

    # And a file that something touched is hashed again.
    name = "scheduler/scheduler_config.json"
    path = streamed.package / name
    before = path.read_bytes()
    path.write_bytes(before + b" ")
    assert name not in streamed.laid.untouched()
    path.write_bytes(before)
    assert name not in streamed.laid.untouched()
