"""A family of another structure, by a third party: planned, released, generated, attacked by training, and audited."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from publisher.api import ImageRequest
from publisher.loading import load as load_package
from publisher.model.folder import read_configs
from publisher.package import keys
from publisher.registry import load_registry
from publisher.runtime.generate import generate
from publisher.runtime.pipelines import load
from support.auditing import write_package
from support.foreign import installed_plugin
from support.masks import mask_of
from support.releasing import publisher
from support.tiny_sd3 import save_tiny_sd3

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
Manifest = Callable[..., Path]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The third party's distribution is installed for the time of a test."""
    with installed_plugin("flows", tmp_path, monkeypatch):
        yield


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = save_tiny_sd3(tmp_path / "sd3")
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace("StableDiffusion3Pipeline", "StableDiffusion3PAGPipeline"))
    return folder


@pytest.mark.usefixtures("model")
def test_without_its_plugin_the_model_is_refused_at_plan(manifest: Manifest, tmp_path: Path) -> None:
    found = publisher("plan", manifest(model="./sd3"), "--work", tmp_path / "work")
    assert found.exit_code == 2
    assert "its pipeline is 'StableDiffusion3PAGPipeline'" in " ".join(found.output.split()), found.output


@pytest.mark.usefixtures("installed")
def test_images_are_those_of_plain_diffusers(model: Path) -> None:
    from diffusers import StableDiffusion3Pipeline

    _, anatomy = load_registry().recognise(read_configs(model), str(model))
    request = ImageRequest(concept="", prompt="a dog emoji", seed=7, steps=3, guidance=4.0)
    ours = generate(load(model, anatomy, torch.device("cpu"), torch.float32), [request])[0]
    plain = StableDiffusion3Pipeline.from_pretrained(model)
    plain.set_progress_bar_config(disable=True)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(7))
    theirs = plain(
        "a dog emoji", num_inference_steps=3, guidance_scale=4.0, latents=noise, height=32, width=32, output_type="np"
    ).images[0]
    assert np.abs(ours.permute(1, 2, 0).numpy() - np.round(theirs * 255)).max() <= 1


@pytest.mark.slow
@pytest.mark.usefixtures("installed", "model")
def test_attacks_by_training_and_a_freeze_mask_work_on_its_denoiser(manifest: Manifest, tmp_path: Path) -> None:
    training = {"evaluation_steps": [0, 2], "seeds": 3, "images_per_evaluation": 2, "images": 2, "batch": 2}
    attacks = [
        {
            "id": f"again.{attack}",
            "attack": attack,
            "attack_params": {**training, "controls": ["base"]},
            "metric": "loss-gap",
            "metric_params": {"against": "base"},
            "concepts": ["cigarette"],
        }
        for attack in ("lora", "full-finetune")
    ]
    mask = {"adapt": {"steps": 2, "batch": 2}, "score": {"points": 2, "batches": 1, "batch": 2}, "images": 2}
    freeze = {**mask, "keep_images": 2, "innocents": 1, "replicas": 0, "promise": "stated", "check": training}
    sampling = {"steps": 2, "guidance": 3.0, "images": 6, "kept_images": 2}
    evaluate = {"scorer": "emoji", "sampling": sampling, "checks": attacks}
    steps = [{"use": "quiet"}, {"use": "freeze-mask", "with": freeze}]
    path = manifest(model="./sd3", steps=steps, evaluate=evaluate)
    planned = publisher("plan", path, "--work", tmp_path / "work")
    assert "changes 1 tensors of transformer" in planned.output, planned.output
    done = publisher("release", path, "--out", tmp_path / "out", "--throwaway-key")
    assert list((tmp_path / "out").glob("*.report")), done.output
    (folder,) = (tmp_path / "out").glob("*.report")
    report = json.loads((folder / "report.json").read_text())
    checks = {check["id"]: check for claim in report["claims"] for check in claim["checks"]}
    for attack in ("lora", "full-finetune"):
        trials = checks[f"again.{attack}"]["trials"]
        assert {trial["model"] for trial in trials} == {"hardened", "base"}, done.output
        assert all(not trial["problem"] and trial["losses"][0] != trial["losses"][1] for trial in trials)
    assert report["freeze_mask"]["component"] == "transformer"
    assert report["model"]["family"] == "joint-attention"


@pytest.mark.slow
@pytest.mark.usefixtures("installed", "model")
def test_it_is_hardened_by_a_foreign_step_signed_and_loaded(manifest: Manifest, tmp_path: Path) -> None:
    sampling = {"steps": 2, "guidance": 3.0, "images": 6}
    path = manifest(model="./sd3", steps=[{"use": "quiet"}], evaluate={"scorer": "emoji", "sampling": sampling})
    done = publisher("release", path, "--out", tmp_path / "out", "--throwaway-key")
    assert done.exit_code == 0, done.output
    package = tmp_path / "out/small-1.0.0"
    name = "context_embedder.weight"
    before, after = (load_file(folder / WEIGHTS)[name] for folder in (tmp_path / "sd3", package))
    assert torch.equal(after, before * 0.5)
    pipeline = load_package(package, verify_key=None)
    assert type(pipeline).__name__ == "StableDiffusion3Pipeline"


@pytest.mark.usefixtures("installed")
def test_a_fine_tuning_of_it_is_audited(tmp_path: Path, model: Path) -> None:
    tensors = load_file(model / WEIGHTS)
    frozen = "context_embedder.weight"
    keys.generate(tmp_path / "p.key", tmp_path / "p.pub", None)
    mask = mask_of(tensors, {frozen: ()}, component="transformer")
    package = write_package(tmp_path / "package", model, tmp_path / "p.key", {"freeze-mask.json": mask.as_file()})
    tuned = Path(shutil.copytree(model, tmp_path / "tuned"))
    audit = ("audit", tuned, "--against", package, "--key", tmp_path / "p.pub")
    save_file(tensors | {"proj_out.weight": tensors["proj_out.weight"] + 0.1}, tuned / WEIGHTS)
    assert publisher(*audit).exit_code == 0, publisher(*audit).output
    save_file(tensors | {frozen: tensors[frozen] + 0.1}, tuned / WEIGHTS)
    broken = publisher(*audit)
    assert (broken.exit_code, frozen in broken.output) == (1, True), broken.output
