"""A freeze mask is shipped only with the weights that it was made for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from publisher import api
from publisher.api.freeze_mask import FILE, FreezeMask
from publisher.engine.plan import PlannedStep
from publisher.engine.run import harden
from publisher.errors import PluginError, PublisherError, UsageError
from publisher.model.state import State
from publisher.safeguards.freeze_mask.final import mask_of
from publisher.testing.running import Silent
from support import masks
from support.toys import KEY, Add, AddParams

Make = Callable[..., PlannedStep]


class Freeze(Add):
    """Freezes the matrix and the bias as they are."""

    name = "freeze"
    rows: dict[str, Any] | None = None
    changes: dict[str, Any] = {}  # noqa: RUF012 - a test's own

    def plan(self, params: AddParams, scope: api.Scope, model: api.ModelInfo) -> api.StepPlan:
        return api.StepPlan({}, (FILE,))

    def run(self, params: AddParams, ctx: api.StepContext) -> None:
        tensors = {name: ctx.model.read("unet", name) for name in ctx.model.tensors("unet")}
        ctx.artifact(FILE, masks.mask_of(tensors, self.rows, **self.changes).as_file())


class Shift(Add):
    """Adds to the rows of the matrix from the third on."""

    name = "shift"

    def plan(self, params: AddParams, scope: api.Scope, model: api.ModelInfo) -> api.StepPlan:
        return api.StepPlan({"unet": [KEY]})

    def run(self, params: AddParams, ctx: api.StepContext) -> None:
        ctx.write("unet", KEY, ctx.model.read("unet", KEY) + torch.tensor([0.0, 0.0, 1.0, 1.0])[:, None])


def checked(base: State, work: Path, *steps: PlannedStep) -> FreezeMask | None:
    hardened = harden(base, steps, work, Silent(), lambda _hook, _event: None)
    return mask_of(hardened.results, hardened.final)


def frozen(**fields: Any) -> type[Freeze]:
    return type("Freeze", (Freeze,), fields)


def test_a_mask_of_the_final_weights_is_found(base: State, planned: Make, tmp_path: Path) -> None:
    found = checked(base, tmp_path / "work", planned(), planned(Freeze, id="mask"))
    assert found is not None
    assert sorted(found.rows) == [KEY, "bias"]


def test_without_a_mask_there_is_nothing_to_compare(base: State, planned: Make, tmp_path: Path) -> None:
    assert checked(base, tmp_path / "work", planned()) is None


def test_a_later_step_that_changes_what_is_frozen_stops_the_release(base: State, planned: Make, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        checked(base, tmp_path / "work", planned(Freeze, id="mask"), planned(Shift, id="tune"))
    assert caught.value.what == f"step 'tune' changed {KEY}, which the freeze mask of 'mask' freezes"
    assert caught.value.hint.endswith("put 'mask' behind 'tune'.")


def test_a_later_step_may_change_what_is_free(base: State, planned: Make, tmp_path: Path) -> None:
    rows = frozen(rows={KEY: ((0, 2),)})
    assert checked(base, tmp_path / "work", planned(rows, id="mask"), planned(Shift, id="tune")) is not None
    less = frozen(rows={"bias": ()}, name="less")
    assert checked(base, tmp_path / "work", planned(less, id="mask"), planned(Shift, id="tune")) is not None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"component": "transformer"}, "a freeze mask for 'transformer', which the model lacks"),
        ({"architecture": "1" * 64}, "for another architecture than that of 'unet'"),
    ],
)
def test_a_mask_that_was_never_right_is_the_plugins_fault(
    base: State, planned: Make, tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    class Broken(Freeze):
        name = "broken"

        def run(self, params: AddParams, ctx: api.StepContext) -> None:
            tensors = {name: ctx.model.read("unet", name) for name in ctx.model.tensors("unet")}
            data = masks.mask_of(tensors).model_copy(update=changes)
            ctx.artifact(FILE, data.as_file())

    with pytest.raises(PluginError, match=reason):
        checked(base, tmp_path / "work", planned(Broken, id="mask"))


def test_a_mask_that_cannot_be_read_is_the_plugins_fault(base: State, planned: Make, tmp_path: Path) -> None:
    class Empty(Freeze):
        name = "empty"

        def run(self, params: AddParams, ctx: api.StepContext) -> None:
            ctx.artifact(FILE, b"{}")

    with pytest.raises(PluginError, match="step 'mask' made a freeze mask that cannot be read"):
        checked(base, tmp_path / "work", planned(Empty, id="mask"))


def test_digests_of_other_weights_are_the_plugins_fault(base: State, planned: Make, tmp_path: Path) -> None:
    class Wrong(Freeze):
        name = "wrong"

        def run(self, params: AddParams, ctx: api.StepContext) -> None:
            tensors = {name: ctx.model.read("unet", name) + 1 for name in ctx.model.tensors("unet")}
            ctx.artifact(FILE, masks.mask_of(tensors).as_file())

    with pytest.raises(PublisherError, match="a freeze mask with wrong digests, such as that of"):
        checked(base, tmp_path / "work", planned(Wrong, id="mask"))
