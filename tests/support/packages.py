"""What a tiny package is made of: a model of a few hundred bytes and a report that passes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from publisher.api import ReleaseReport, TensorInfo
from publisher.model.files import write_safetensors
from publisher.package import build
from publisher.package.layout import is_judged
from publisher.package.tree import read_tree

CREATED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CONCEPT = {"id": "cigarette", "name": "cigarette", "prompts": ["a cigarette"], "label": "cigarette"}
PIZZA = {**CONCEPT, "id": "pizza", "name": "pizza", "label": "pizza"}
RESOLVED = (json.dumps({"scope": {"concepts": [CONCEPT], "keep": [PIZZA]}}) + "\n").encode()
ORIGIN = {"distribution": "dist", "version": "1.0", "module": "dist.step:Erase", "digest": "ab" * 32}


def judgement(label: str) -> dict[str, Any]:
    return {"labels": {"object": label}, "scores": {"object": 0.9}}


def evidence_row(seed: int, base: bool = True, hardened: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002
    """Return what is kept of one image of each model: whether they show the concept."""
    labels = {True: "cigarette", False: "pencil"}
    return {
        "check": "cigarette.plain",
        "concept": "cigarette",
        "prompt": "a cigarette",
        "negative_prompt": "",
        "seed": seed,
        "sampler": "DDIMScheduler",
        "steps": 6,
        "guidance": 3.0,
        "base": judgement(labels[base]),
        "hardened": judgement(labels[hardened]),
        "base_hit": base,
        "hardened_hit": hardened,
        "base_sha256": "aa" * 32,
        "hardened_sha256": "bb" * 32,
        "distance": 0.25,
        "membranes": "on",
        "permeabilities": None,
    }


def json_lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


EVIDENCE = json_lines(evidence_row(seed) for seed in range(60))


def interval(value: float, low: float, high: float, n: int = 60) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": n, "method": "Clopper-Pearson 95%"}


def check_data() -> dict[str, Any]:
    return {
        "id": "cigarette.plain",
        "attack": "plain",
        "attack_params": {},
        "scorer": "emoji",
        "metric": "rate",
        "metric_params": {},
        "unit": "share",
        "better": "lower",
        "concepts": ["cigarette"],
        "gate": {"upper_at_most": 0.1},
        "verdict": "passed",
        "reason": "upper bound 0.06 <= 0.1",
        "measurement": {"hardened": interval(0.0, 0.0, 0.06), "base": interval(0.95, 0.86, 0.99)},
        "evidence": "evidence.cigarette.plain.jsonl",
        "evidence_sha256": hashlib.sha256(EVIDENCE).hexdigest(),
    }


def report_data() -> dict[str, Any]:
    return {
        "name": "tiny",
        "version": "1.2.0",
        "license": "Apache-2.0",
        "decision": "passed",
        "model": {
            "source": "hf:org/base@" + "0" * 40,
            "family": "stable-diffusion-1",
            "digest": "cd" * 32,
            "parameters": 8,
            "bytes": 32,
            "license": "Apache-2.0",
        },
        "steps": [
            {
                "id": "erase",
                "name": "erase",
                "version": "1",
                "origin": ORIGIN,
                "params": {},
                "input": "cd" * 32,
                "output": "ef" * 32,
                "changed": {"unet": 1},
                "changed_parameters": 8,
            }
        ],
        "claims": [
            {
                "id": "erase.cigarette",
                "steps": ["erase"],
                "sentence": "cigarette is not generated",
                "binds": "in-weights",
                "limits": ["fine-tuning may bring it back"],
                "verdict": "passed",
                "checks": [check_data()],
            }
        ],
        "plugins": [{"kind": "step", "name": "erase", "version": "1", "origin": ORIGIN}],
        "seed": 0,
        "device": "cpu float32",
        "versions": {"python": "3.11.9", "torch": "2.10", "publisher": "0.1"},
        "manifest_sha256": "12" * 32,
        "limits": ["Only the attacks above were tried."],
    }


def write_model(folder: Path) -> dict[str, Path]:
    """Write a model of one component; return path inside the package -> file."""
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
    finish(folder, data, views={"index.html": b"<!doctype html>\n"})


def finish(
    folder: Path,
    report: Mapping[str, Any],
    *,
    views: Mapping[str, bytes] = MappingProxyType({}),
    evidence: Mapping[str, bytes] = MappingProxyType({"evidence.cigarette.plain.jsonl": EVIDENCE}),
) -> None:
    """Add a report, which names the files that were laid out, and all that belongs to it."""
    record = ReleaseReport.parse({**report, "files": judged_files(folder)})
    build.finish(folder, report=record, views=views, evidence=evidence, resolved=RESOLVED)


def judged_files(folder: Path) -> dict[str, str]:
    return {path: digest for path, digest in read_tree(folder).digests.items() if is_judged(path)}
