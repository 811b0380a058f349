"""What the other steps and the attacks say to a model of Stable Diffusion 3: they work, or they are refused at plan."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from publisher.builtin.attacks.weights import CopyAttention, CopyAttentionParams
from support.anatomies import anatomy_of
from support.releasing import publisher
from support.tiny_sd3 import save_tiny_sd3

Manifest = Callable[..., Path]
ATTACKS = {
    "lora": "",
    "dreambooth": "",
    "dreambooth-lora": "",
    "full-finetune": "",
    "cross-attention": "needs cross-attention whose keys and values read the text alone",
    "custom-diffusion": "needs cross-attention whose keys and values read the text alone and text encoders",
    "textual-inversion": "needs text encoders that are CLIP alone",
}
"""Attack by training -> what its plan says of this family; empty: it runs."""


@pytest.fixture(autouse=True)
def model(tmp_path: Path) -> Path:
    return save_tiny_sd3(tmp_path / "sd3")


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        ({"use": "immunize", "with": {"method": "mima"}}, "Set method to imma"),
        ({"use": "freeze-mask", "with": {"adapt": {"kind": "cross-attention"}}}, "a mask learned from cross-attention"),
    ],
)
def test_a_step_that_cannot_work_on_it_is_refused(
    step: dict[str, Any], reason: str, manifest: Manifest, tmp_path: Path
) -> None:
    path = manifest(model="./sd3", steps=[step], evaluate={"scorer": "emoji"})
    found = publisher("plan", path, "--work", tmp_path / "work")
    said = " ".join(found.output.split())
    assert found.exit_code == 2, said
    assert reason in said


def test_attacks_by_training_run_or_are_refused_with_the_reason(manifest: Manifest, tmp_path: Path) -> None:
    checks = [
        {
            "id": f"again.{attack}",
            "attack": attack,
            "attack_params": {"evaluation_steps": [0, 2], "seeds": 3, "images": 2, "batch": 2, "controls": ["base"]},
            "metric": "loss-gap",
            "metric_params": {"against": "base"},
            "concepts": ["cigarette"],
        }
        for attack in ATTACKS
    ]
    steps = [{"use": "freeze-mask", "with": {"images": 2, "keep_images": 2}}]
    path = manifest(model="./sd3", steps=steps, evaluate={"scorer": "emoji", "checks": checks})
    found = publisher("plan", path, "--work", tmp_path / "work")
    said = " ".join(found.output.split())
    assert said.count("cannot be decided") == sum(1 for reason in ATTACKS.values() if reason), found.output
    for attack, reason in ATTACKS.items():
        assert (f"the attack '{attack}' {reason}" in said) == bool(reason), found.output


def test_copy_attention_puts_the_entry_of_the_text_back(model: Path) -> None:
    anatomy, attack = anatomy_of(model), CopyAttention()
    hardened, base = torch.zeros(2), torch.ones(2)
    doors = ("context_embedder.weight", "time_text_embed.text_embedder.linear_1.weight")
    names = (*doors, "transformer_blocks.0.attn.to_k.weight", "transformer_blocks.0.ff.net.2.weight")
    for which, copied in (("cross", names[:2]), ("self", names[2:3]), ("both", names[:3])):
        params = CopyAttentionParams(which=which)
        found = {name: attack.alter(params, anatomy, "transformer", name, hardened, base) for name in names}
        assert {name for name, tensor in found.items() if tensor is base} == set(copied)


@pytest.mark.slow
def test_a_random_model_is_hardened_by_each_step_attacked_and_not_released(manifest: Manifest, tmp_path: Path) -> None:
    """What the steps decide by themselves is used; what is tested is small, and one gate is missed on purpose."""
    again = {"evaluation_steps": [0, 2], "images_per_evaluation": 1, "images": 2, "batch": 2}
    mask = {"granularity": "head", "promise": "stated"}
    steps = [
        {"use": "erase", "with": {"targets": {"cigarette": "pizza"}}},
        {"use": "immunize", "with": {"steps": 4, "images": 2, "check": again}},
        {"use": "freeze-mask", "with": mask | {"images": 2, "keep_images": 2, "check": again}},
    ]
    check = {"id": "copied", "attack": "copy-attention", "metric": "concept-rate", "concepts": ["cigarette"]}
    evaluate = {
        "scorer": "emoji",
        "sampling": {"steps": 2, "guidance": 3.0, "images": 9, "kept_images": 3},
        "gates": {
            **{f"erase.cigarette.{name}": {"upper_at_most": 0.5} for name in ("plain", "paraphrase")},
            **{f"{step}.kept": {"lower_at_least": -0.5} for step in ("erase", "immunize")},
            "immunize.cigarette.lora": {"upper_at_most": 1000},
        },
        "checks": [check | {"gate": {"upper_at_most": 1.0}}],
    }
    images = [f"{number}.png" for number in range(12)]  # the random model's own show nothing
    for name in images:
        Image.new("RGB", (32, 32), "brown").save(tmp_path / name)
    concepts = [{"id": "cigarette", "synonyms": ["smoke", "cig"], "images": images}]
    path = manifest(model="./sd3", concepts=concepts, steps=steps, evaluate=evaluate)
    done = publisher("release", path, "--out", tmp_path / "out", "--throwaway-key")
    assert done.exit_code in (1, 4), done.output
    report = json.loads((tmp_path / "out" / "small-1.0.0.report" / "report.json").read_text())
    assert report["model"]["family"] == "stable-diffusion-3"
    erased, immunized, masked = report["steps"]
    assert erased["changed"] == {"transformer": 2}
    assert any("Keys and values inside the blocks are not" in said for said in erased["warnings"])
    assert immunized["changed"]["transformer"] > 2
    assert masked["changed"] == {}
    assert report["freeze_mask"]["component"] == "transformer"
    trials = [trial for claim in report["claims"] for one in claim["checks"] for trial in one.get("trials", ())]
    assert {trial["model"] for trial in trials} >= {"hardened", "before", "unmasked", "random-mask"}
    assert not any(trial["problem"] for trial in trials)
    deltas = (tmp_path / "out" / ".work" / "steps").glob("*/delta/transformer.safetensors")
    before = load_file(tmp_path / "sd3" / "transformer" / "diffusion_pytorch_model.safetensors")
    changed = [load_file(delta) for delta in deltas]
    assert len(changed) == 2
    assert all(not torch.equal(before[name], tensor) for one in changed for name, tensor in one.items())
