"""What a tiny package is made of: a model of a few hundred bytes and a report that passes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from publisher.api import ReleaseReport, TensorInfo
from publisher.model.files import write_safetensors
from publisher.package import build

CREATED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
EVIDENCE = b'{"prompt": "a cigarette", "seed": 0, "hardened": false}\n'
ORIGIN = {"distribution": "dist", "version": "1.0", "module": "dist.step:Erase", "digest": "ab" * 32}


def interval(value: float, low: float, high: float, n: int = 60) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": n, "method": "Clopper-Pearson 95%"}


def check_data() -> dict[str, Any]:
    return {
        "id": "cigarette.plain", "attack": "plain", "attack_params": {}, "scorer": "emoji", "metric": "rate",
        "metric_params": {}, "unit": "share", "better": "lower", "concepts": ["cigarette"],
        "gate": {"upper_at_most": 0.1}, "verdict": "passed", "reason": "upper bound 0.06 <= 0.1",
        "measurement": {"hardened": interval(0.0, 0.0, 0.06), "base": interval(0.95, 0.86, 0.99)},
        "evidence": "evidence.cigarette.plain.jsonl", "evidence_sha256": hashlib.sha256(EVIDENCE).hexdigest(),
    }  # fmt: skip


def report_data() -> dict[str, Any]:
    return {
        "name": "tiny", "version": "1.2.0", "license": "Apache-2.0", "decision": "passed",
        "model": {
            "source": "hf:org/base@" + "0" * 40, "family": "stable-diffusion-1", "digest": "cd" * 32,
            "parameters": 8, "bytes": 32, "license": "Apache-2.0",
        },
        "steps": [{
            "id": "erase", "name": "erase", "version": "1", "origin": ORIGIN, "params": {}, "input": "cd" * 32,
            "output": "ef" * 32, "changed": {"unet": 1}, "changed_parameters": 8,
        }],
        "claims": [{
            "id": "erase.cigarette", "step": "erase", "sentence": "cigarette is not generated", "binds": "in-weights",
            "limits": ["fine-tuning may bring it back"], "verdict": "passed", "checks": [check_data()],
        }],
        "plugins": [{"kind": "step", "name": "erase", "version": "1", "origin": ORIGIN}],
        "seed": 0, "device": "cpu float32", "versions": {"python": "3.11.9", "torch": "2.10", "publisher": "0.1"},
        "manifest_sha256": "12" * 32, "limits": ["Only the attacks above were tried."],
    }  # fmt: skip


def write_model(folder: Path) -> dict[str, Path]:
    """A model of one component; path inside the package -> file."""
    (folder / "unet").mkdir(parents=True)
    index = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "unet/config.json").write_text('{"_class_name": "UNet2DConditionModel"}')
    tensor = TensorInfo("attn2.to_k.weight", (2, 4), "F32", "")
    write_safetensors(folder / "unet/model.safetensors", [tensor], lambda _name: bytes(range(32)))
    (folder / "LICENSE").write_text("Do as you like.\n")
    (folder / "README.md").write_text("# The base\n")
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


def build_unsigned(
    folder: Path, model: Mapping[str, Path], change: Callable[[dict[str, Any]], object] = lambda _data: None
) -> None:
    data = report_data()
    change(data)
    build.lay_out(folder, model, {"made.json": b"{}\n"})
    build.finish(
        folder, report=ReleaseReport.parse(data), views={"index.html": b"<!doctype html>\n"},
        evidence={"evidence.cigarette.plain.jsonl": EVIDENCE}, resolved=b"{}\n",
    )  # fmt: skip
