"""What is measured after which step: models, their masks and membranes, and whose trainings. Nothing is generated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from publisher.api import MatrixCell, NoParams, Sampling
from publisher.api.freeze_mask import FILE
from publisher.builtin.executors.local import Local
from publisher.evaluate.checks import Evaluation
from publisher.evaluate.context import MANIFEST, ModelsUnderTest, Setting, Tools
from publisher.release import make
from support.anatomies import EMBEDDED
from support.grey import SCOPE, write_model, write_safeguards
from support.masks import mask_of, write_mask

STEPS = ("erase", "mask", "membranes")


class Recorder:
    """Stands for ``run_checks``: keeps what it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bool, bool, Sequence[str] | None]] = []
        self.claims: list[list[str]] = []

    def __call__(
        self,
        claims: Any,
        _scope: Any,
        models: ModelsUnderTest,
        _tools: Any,
        _sampling: Any,
        _setting: Setting,
        *,
        trained: Any,
    ) -> Evaluation:
        hardened = models.hardened
        self.claims.append([claim.step for claim in claims])
        self.asked.append((hardened.folder.name, bool(hardened.safeguards), bool(hardened.attached), trained))
        return Evaluation((), {}, (), None, {})


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    found = Recorder()
    monkeypatch.setattr(make, "run_checks", found)
    monkeypatch.setattr(
        make, "matrix_column", lambda _found, after: (MatrixCell(claim="c", after=after, verdict="passed"),)
    )
    return found


def verified(folder: Path, shared: Sequence[tuple[str, ...]] = (), **asked: bool) -> list[str]:
    """Return columns of the matrix of three steps: the second leaves a mask, the third membranes."""
    write_model(folder / "package")
    write_safeguards(write_mask(folder / "package" / "release", mask_of()))
    membranes = {
        f"membranes/{path.name}": path.read_bytes() for path in (folder / "package/release/membranes").iterdir()
    }
    artifacts: list[dict[str, bytes]] = [{}, {FILE: mask_of().as_file()}, membranes]
    for name in ("base", *STEPS):
        write_model(folder / name)
    evaluate = SimpleNamespace(
        **{"after_each_step": True, "trainings_after_each_step": False, "finds": "seal", **asked}, sampling=Sampling()
    )
    makers = [*((step,) for step in (*STEPS, MANIFEST)), *shared]
    prepared: Any = SimpleNamespace(
        path=folder / "manifest.yaml",
        resolved=SimpleNamespace(scope=SCOPE, evaluate=evaluate),
        retrained=None,
        claims=[
            SimpleNamespace(steps=steps, step=steps[0], claim=SimpleNamespace(discloses=False)) for steps in makers
        ],
        device=SimpleNamespace(name="cpu", dtype="float32"),
        tools=Tools({}, {}, {}, {}, Local(NoParams())),
        checks=(),
        images={"base": 0},
        steps=[SimpleNamespace(identity=SimpleNamespace(id=step)) for step in STEPS],
    )
    hardened: Any = SimpleNamespace(
        states=[
            SimpleNamespace(folder=folder / name, anatomy=EMBEDDED, folder_digests=dict) for name in ("base", *STEPS)
        ],
        results=[SimpleNamespace(artifacts=one) for one in artifacts],
    )
    tell: Any = SimpleNamespace(progress=SimpleNamespace(warn=pytest.fail, say=len))
    laid: Any = SimpleNamespace(root=folder / "package", untouched=dict)
    _, cells, _ = make._evaluate(prepared, hardened, laid, folder / "work", tell)
    return [cell.after for cell in cells]


def test_each_column_has_the_mask_and_the_membranes_that_were_there_by_then(recorder: Recorder, tmp_path: Path) -> None:
    assert verified(tmp_path) == ["base", *STEPS]
    assert recorder.asked == [
        ("base", False, False, ()),
        ("erase", False, False, ()),
        ("mask", True, False, ()),
        ("package", True, True, None),
    ]


def test_claims_are_measured_on_the_base_model_and_from_their_own_step_on(recorder: Recorder, tmp_path: Path) -> None:
    verified(tmp_path)
    everything = [*STEPS, MANIFEST]
    assert recorder.claims == [everything, ["erase", MANIFEST], ["erase", "mask", MANIFEST], everything]


def test_a_claim_of_several_steps_is_measured_from_the_first_of_them_on(recorder: Recorder, tmp_path: Path) -> None:
    verified(tmp_path, shared=[("mask", STEPS[-1])])
    counts = [len(claims) for claims in recorder.claims]
    assert counts == [len(STEPS) + 2, 2, 4, len(STEPS) + 2]


def test_on_demand_the_trainings_of_earlier_steps_are_repeated(recorder: Recorder, tmp_path: Path) -> None:
    verified(tmp_path, trainings_after_each_step=True)
    assert [list(trained) if trained is not None else None for *_, trained in recorder.asked] == [
        [],
        ["erase"],
        ["erase", "mask"],
        None,
    ]


def test_without_a_matrix_the_package_alone_is_measured(recorder: Recorder, tmp_path: Path) -> None:
    assert verified(tmp_path, after_each_step=False) == []
    assert [name for name, *_ in recorder.asked] == ["package"]
