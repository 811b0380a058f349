from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch

from publisher.api import Concept, Model, Scope
from publisher.api.membranes import (
    Branch,
    Membrane,
    MembraneFileError,
    MembraneIndex,
    find_hosts,
    membrane_bytes,
    parse_membrane_bytes,
)
from publisher.engine.cache import Identity
from publisher.engine.context import RunningStep
from publisher.engine.device import Device
from publisher.testing.running import Silent
from publisher_membrane_bundle import publisher_register_steps
from publisher_membrane_bundle.params import MembraneParams
from publisher_membrane_bundle.step import MembraneBundle
from support.toys import ORIGIN

SKULL = Concept(id="skull", name="skull", prompts=("a skull emoji",), label="skull")
GHOST = Concept(id="ghost", name="ghost", prompts=("a ghost emoji",), label="ghost")
SCOPE = Scope(concepts=(SKULL,), keep=(GHOST,))
SHORT = {"preset": "large", "steps": 3, "warmup": 1, "pool": 2, "denoising_steps": 3, "surrogates": {"skull": "ghost"}}


def context(model: Model, tmp_path: Path, params: MembraneParams, scope: Scope = SCOPE) -> RunningStep:
    identity = Identity(
        name="membrane-bundle",
        version="1",
        origin=ORIGIN,
        id="membranes",
        params=params.as_json(),
        scope=scope,
        seed=0,
        device=Device("cpu", "float32"),
        versions={},
    )
    return RunningStep(identity, model, tmp_path, Silent())


def run(model: Model, tmp_path: Path, files: dict[str, Path] | None = None, **data: Any) -> RunningStep:
    params = MembraneParams.parse(data)
    step = MembraneBundle()
    step.files = files or {}
    ctx = context(model, tmp_path, params)
    plan = step.plan(params, SCOPE, model)
    step.run(params, ctx)
    assert sorted(plan.artifacts) == sorted(ctx.artifacts)
    assert {component: sorted(names) for component, names in plan.changes.items()} == ctx.changed()
    return ctx


def made(model: Model, seed: int = 0) -> Membrane:
    """Make a membrane of random factors for every host."""
    generator = torch.Generator().manual_seed(seed)
    branches = {
        stem: Branch(
            torch.randn(1, host.shape[1], generator=generator) * 0.02,
            torch.randn(host.shape[0], 1, generator=generator) * 0.02,
            1.0,
            len(host.shape) == 4,
        )
        for stem, host in find_hosts(model).items()
    }
    return Membrane(branches, ("skull",), {"base_model": "f" * 64})


@pytest.fixture
def file(embedded: Model, tmp_path: Path) -> Path:
    path = tmp_path / "skull.safetensors"
    path.write_bytes(membrane_bytes(made(embedded)))
    return path


def test_the_plugin_registers_the_step() -> None:
    assert publisher_register_steps() == (MembraneBundle,)
    assert MembraneBundle.Params is MembraneParams


def test_a_bundle_changes_no_weight_and_leaves_a_membrane_and_an_index(embedded: Model, tmp_path: Path) -> None:
    ctx = run(embedded, tmp_path, **SHORT)
    assert ctx.changed() == {}
    index = MembraneIndex.model_validate_json(ctx.artifacts["membranes/index.json"])
    (entry,) = index.entries
    data = ctx.artifacts[f"membranes/{entry.file}"]
    assert entry.sha256 == hashlib.sha256(data).hexdigest()
    assert (entry.words, entry.texts, entry.trained_on) == (("skull",), ("skull",), embedded.digest)
    assert set(parse_membrane_bytes(data, "").branches) == set(find_hosts(embedded))
    assert {curve.name for curve in ctx.curves}


def test_a_file_under_from_is_used_as_it_is(embedded: Model, tmp_path: Path, file: Path) -> None:
    ctx = run(embedded, tmp_path, {"a.safetensors": file}, **{"from": {"skull": "a.safetensors"}})
    assert ctx.artifacts["membranes/skull.safetensors"] == file.read_bytes()
    (entry,) = MembraneIndex.model_validate_json(ctx.artifacts["membranes/index.json"]).entries
    assert entry.trained_on == "f" * 64


def test_merging_writes_the_exact_sum_into_every_host(embedded: Model, tmp_path: Path, file: Path) -> None:
    files = {"a.safetensors": file}
    ctx = run(embedded, tmp_path, files, **{"from": {"skull": "a.safetensors"}, "mode": "merge", "permeability": 0.5})
    hosts, membrane = find_hosts(embedded), made(embedded)
    assert len(ctx.tensors) == len(hosts) == 84
    for stem, host in hosts.items():
        branch, name = membrane.branches[stem], f"{host.module}.weight"
        before, after = embedded.read("unet", name), ctx.tensors["unet", name]
        expected = before.double().flatten(1) + 0.5 * branch.up.double() @ branch.down.double()
        torch.testing.assert_close(after.double().flatten(1), expected, rtol=1e-6, atol=1e-7)


def test_a_membrane_of_another_width_is_refused_by_the_plan_already(embedded: Model, tmp_path: Path) -> None:
    wide = made(embedded)
    stem = next(iter(wide.branches))
    branch = wide.branches[stem]
    branches = {**wide.branches, stem: Branch(torch.ones(1, 7), branch.up, 1.0, branch.conv)}
    path = tmp_path / "wide.safetensors"
    path.write_bytes(membrane_bytes(Membrane(branches, ("skull",))))
    step = MembraneBundle()
    step.files = {"wide.safetensors": path}
    params = MembraneParams.parse({"from": {"skull": "wide.safetensors"}})
    with pytest.raises(MembraneFileError, match="does not fit") as caught:
        step.plan(params, SCOPE, embedded)
    assert stem in str(caught.value)


@pytest.mark.slow
def test_equal_seeds_give_equal_bytes(embedded: Model, tmp_path: Path) -> None:
    first = run(embedded, tmp_path / "a", **SHORT).artifacts
    second = run(embedded, tmp_path / "b", **SHORT).artifacts
    assert first == second
