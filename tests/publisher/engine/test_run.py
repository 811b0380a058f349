"""Steps run in order, once; what they may not do is caught; a killed run goes on where it was."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from publisher import api
from publisher.api import PluginError
from publisher.engine.cache import Stored
from publisher.engine.plan import PlannedStep, prefixed
from publisher.engine.run import Hardened, harden
from publisher.errors import BusyError, ExitCode
from publisher.model.lock import locked
from publisher.model.state import State
from publisher.testing.running import Silent
from support.toys import CONCEPT, KEY, Add, AddParams

Make = Callable[..., PlannedStep]


class Recorder(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def warn(self, text: str) -> None:
        self.lines.append(text)


def run(base: State, steps: list[PlannedStep], work: Path, progress: Silent | None = None) -> Hardened:
    return harden(base, steps, work, progress or Silent(), lambda _hook, _event: None)


def test_each_step_starts_from_the_one_before(base: State, planned: Make, tmp_path: Path) -> None:
    done = run(base, [planned(by=1.0), planned(id="again", by=10.0)], tmp_path / "work")
    assert done.final.read("unet", KEY)[0, 1] >= 11
    assert [result.record.input for result in done.results] == [done.states[0].digest, done.states[1].digest]
    assert [result.record.output for result in done.results] == [done.states[1].digest, done.states[2].digest]
    record = done.results[0].record
    assert (record.changed, record.changed_parameters, record.params) == ({"unet": 1}, 16, {"by": 1.0})
    assert (record.numbers[0].name, record.artifacts) == ("residual", ("made.json",))


def test_the_same_run_again_computes_nothing_and_gives_the_same(base: State, planned: Make, tmp_path: Path) -> None:
    first = run(base, [planned()], tmp_path / "work")
    second = run(base, [planned()], tmp_path / "work")
    assert (Add.runs, second.cached) == (1, ("add",))
    assert second.final.digest == first.final.digest


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(base: State, planned: Make, tmp_path: Path) -> None:
    digests = [run(base, [planned(seed=seed)], tmp_path / f"work{i}").final.digest for i, seed in enumerate([0, 0, 1])]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("change", [{"by": 2.0}, {"seed": 5}, {"id": "other"}])
def test_what_a_result_depends_on_is_in_its_key(base: State, planned: Make, tmp_path: Path, change: dict) -> None:
    run(base, [planned()], tmp_path / "work")
    run(base, [planned(**change)], tmp_path / "work")
    assert Add.runs == 2


def test_a_run_killed_in_its_second_step_resumes_with_it(base: State, planned: Make, tmp_path: Path) -> None:
    class Killed(Add):
        name = "killed"

        def run(self, params: AddParams, ctx: api.StepContext) -> None:
            (ctx.scratch / "checkpoint").write_text("half way")
            raise KeyboardInterrupt

    class Resumed(Killed):
        def run(self, params: AddParams, ctx: api.StepContext) -> None:
            assert (ctx.scratch / "checkpoint").read_text() == "half way"
            Add.run(self, params, ctx)

    with pytest.raises(KeyboardInterrupt):
        run(base, [planned(), planned(Killed, id="two")], tmp_path / "work")
    resumed = run(base, [planned(), planned(Resumed, id="two")], tmp_path / "work")
    assert resumed.cached == ("add",)
    assert not list((tmp_path / "work" / "scratch").iterdir())


def test_a_cached_result_that_was_edited_is_computed_anew(base: State, planned: Make, tmp_path: Path) -> None:
    first = run(base, [planned()], tmp_path / "work")
    path = first.results[0].delta.path("unet")
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    progress = Recorder()
    second = run(base, [planned()], tmp_path / "work", progress)
    assert second.final.digest == first.final.digest
    assert progress.lines[0] == "Step 1 of 1, add on gun"
    assert "changed or damaged" in progress.lines[1]


def damage_an_artifact(entry: Path) -> None:
    (entry / "artifacts/made.json").write_text("[]")


def add_a_component(entry: Path) -> None:
    shutil.copyfile(entry / "delta/unet.safetensors", entry / "delta/vae.safetensors")


def add_it_to_the_list(entry: Path) -> None:
    add_a_component(entry)
    said = json.loads((entry / "result.json").read_text())
    said["files"]["delta/vae.safetensors"] = said["files"]["delta/unet.safetensors"]
    (entry / "result.json").write_text(json.dumps(said))


def add_it_with_the_right_digest(entry: Path) -> None:
    add_it_to_the_list(entry)
    stored = Stored.model_validate_json((entry / "result.json").read_bytes())
    (entry / "result.json").write_text(stored.sealed().model_dump_json())


def tell_of_it_in_the_record(entry: Path) -> None:
    add_it_to_the_list(entry)
    stored = Stored.model_validate_json((entry / "result.json").read_bytes())
    record = stored.record.model_copy(update={"changed": {"unet": 1, "vae": 1}})
    (entry / "result.json").write_text(stored.model_copy(update={"record": record}).sealed().model_dump_json())


def edit_a_number(entry: Path) -> None:
    said = (entry / "result.json").read_text()
    (entry / "result.json").write_text(said.replace("0.5", "0.1"))


def link_a_file(entry: Path) -> None:
    delta = entry / "delta/unet.safetensors"
    delta.rename(entry.parent / "elsewhere")
    delta.symlink_to(entry.parent / "elsewhere")


def hide_a_file(entry: Path) -> None:
    (entry / "delta/.hidden").touch()


@pytest.mark.parametrize(
    "change",
    [
        damage_an_artifact,
        add_a_component,
        add_it_to_the_list,
        add_it_with_the_right_digest,
        tell_of_it_in_the_record,
        edit_a_number,
        link_a_file,
        hide_a_file,
    ],
)
def test_a_cached_result_holds_what_its_list_says_and_nothing_else(
    base: State, planned: Make, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    first = run(base, [planned()], tmp_path / "work")
    change(first.results[0].delta.folder.parent)
    progress = Recorder()
    second = run(base, [planned()], tmp_path / "work", progress)
    assert (Add.runs, second.cached, second.final.digest) == (2, (), first.final.digest)
    assert second.results[0].record.numbers[0].value == 0.5
    assert list(second.results[0].delta.digests) == ["unet"]
    assert progress.lines[0] == "Step 1 of 1, add on gun"
    assert "changed or damaged" in progress.lines[1]


def test_a_cached_result_of_another_run_is_not_taken_under_a_copied_name(
    base: State, planned: Make, tmp_path: Path
) -> None:
    entries = [run(base, [planned(by=by)], tmp_path / "work").results[0].delta.folder.parent for by in (1.0, 2.0)]
    shutil.rmtree(entries[0])
    shutil.copytree(entries[1], entries[0])
    again = run(base, [planned(by=1.0)], tmp_path / "work")
    assert (again.cached, again.results[0].record.params) == ((), {"by": 1.0})


def broken(body: Callable[[api.StepContext], object]) -> type[Add]:
    class Broken(Add):
        name = "broken"

        def run(self, params: AddParams, ctx: api.StepContext) -> None:
            Add.run(self, params, ctx)
            body(ctx)

    return Broken


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (lambda ctx: 1 / 0, "crashed: ZeroDivisionError"),
        (lambda ctx: sys.exit(0), "crashed: SystemExit: 0"),
        (lambda ctx: ctx.write("unet", KEY, torch.full((4, 4), float("nan"))), "wrote NaN or infinity into unet/attn2"),
        (lambda ctx: ctx.write("unet", KEY, torch.zeros(4, 3)), r"the model has F32 \(4, 4\)"),
        (lambda ctx: ctx.write("unet", KEY, torch.zeros(4, 4, dtype=torch.float16)), r"as F16 \(4, 4\)"),
        (lambda ctx: ctx.write("vae", KEY, torch.zeros(4, 4)), "which the model does not have"),
        (lambda ctx: ctx.write("unet", "bias", torch.zeros(4)), "something else than its plan says"),
        (lambda ctx: ctx.artifact("../../model.sig", b""), "named an artifact"),
        (lambda ctx: ctx.artifact("made.json", b""), "twice"),
        (lambda ctx: ctx.artifact("more.json", b""), "something else than its plan says"),
        (lambda ctx: (ctx.model.folder / "model_index.json").write_text("{}"), "changed the files of its input"),
    ],
)
def test_a_step_that_breaks_its_contract_leaves_no_result(
    base: State, planned: Make, tmp_path: Path, body: Callable[[api.StepContext], object], message: str
) -> None:
    with pytest.raises(PluginError, match=message) as caught:
        run(base, [planned(broken(body))], tmp_path / "work")
    assert caught.value.exit_code == ExitCode.UNDECIDED
    assert [path.name for path in (tmp_path / "work").glob("steps/*")] == []


def test_a_step_that_keeps_its_claim_cannot_change_the_gate_later() -> None:
    claim = Add().claims(AddParams(), api.Scope(concepts=(CONCEPT,)))[0]
    planned_claim = prefixed("add", claim)
    object.__setattr__(claim.checks[0].gate, "upper_at_most", 1.0)
    assert planned_claim.checks[0].gate.upper_at_most == 0.1


def test_what_an_observer_is_told(base: State, planned: Make, tmp_path: Path) -> None:
    told: list[tuple[str, str]] = []
    harden(
        base,
        [planned()],
        tmp_path / "work",
        Silent(),
        lambda hook, event: told.append((hook, getattr(event, "id", "") or event.record.id)),
    )
    assert told == [("publisher_on_step_start", "add"), ("publisher_on_step_end", "add")]


def test_two_runs_do_not_share_a_work_folder(tmp_path: Path) -> None:
    with locked(tmp_path / "work"), pytest.raises(BusyError, match="another run is using"), locked(tmp_path / "work"):
        pass
