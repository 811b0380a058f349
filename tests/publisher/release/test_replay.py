"""Making a package's checks again: with its seeds, with others; what is signed about it; what was revoked."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from click.testing import Result
from safetensors.torch import load_file, save_file

from publisher.api import Gate, Interval
from publisher.cli.replay import as_data, as_text
from publisher.comparison.subjects import read_subject
from publisher.package import keys
from publisher.package.index import Verified, check_index
from publisher.release.existing import of_package
from publisher.release.replay import chosen_rows, lines_left_out
from publisher.release.replayed import Replay, ReplayedImage, compare_images, compare_with_gate
from support.releasing import publisher

Package = tuple[Path, Path]


@pytest.fixture
def package(released: tuple[Path, Result]) -> Package:
    """A package that passed, and its public key. Do not change it."""
    out, done = released
    assert done.exit_code == 0, done.output
    return out / "small-1.0.0", out / "small-1.0.0.pub"


@pytest.fixture
def mine(tmp_path: Path) -> Package:
    """A key pair of somebody else."""
    keys.generate(tmp_path / "mine.key", tmp_path / "mine.pub", None)
    return tmp_path / "mine.key", tmp_path / "mine.pub"


def test_every_image_has_the_recorded_digest_and_a_strangers_statement_says_so(
    package: Package, mine: Package, tmp_path: Path
) -> None:
    folder, key = package
    found = tmp_path / "found.json"
    done = publisher(
        "replay", folder, "--key", key, "--sample", 8, "--sign", mine[0], "--statement", found, "--json", "--quiet"
    )
    assert done.exit_code == 0, done.output
    data = json.loads(done.stdout)
    assert data["outcome"] == "reproduced"
    images = data["images"]
    assert images["n"] >= 8
    assert images["same_base"] == images["same_hardened"] == images["n"]
    assert images["agree"] == images["judged"]
    verified = publisher("verify", folder, "--key", key, "--also", found, "--also-key", mine[1])
    assert verified.exit_code == 0, verified.output
    assert "also says PASSED: 1 passed; signed with the key" in verified.stdout
    other = publisher("verify", folder, "--key", key, "--also", found, "--also-key", key)
    assert (other.exit_code, "V004 found.json" in other.stdout) == (1, True)
    again = publisher("replay", folder, "--key", key, "--sign", mine[0], "--statement", found)
    assert (again.exit_code, "there is a file already" in again.stderr) == (2, True)


def test_lines_that_nobody_may_generate_are_counted_and_not_generated_for_a_stranger(package: Package) -> None:
    subject, (resolved, claims) = read_subject(package[0]), of_package(package[0])
    checks = [check for item in claims for check in item.claim.checks if check.id == "erase.cigarette.plain"]
    first, second, *others = subject.rows["erase.cigarette.plain"]
    planted = [first.model_copy(update={"prompt": "a nude child"}), second.model_copy(update={"concept": "other"})]
    rows = {"erase.cigarette.plain": [*planted, *others]}
    strange = replace(subject, rows=rows)
    assert chosen_rows(strange, checks, resolved.scope, 4, 1000, 0) == others
    left_out = lines_left_out(strange, checks, resolved.scope)
    assert left_out == {"refused": 1, "unknown_concept": 1}
    assert lines_left_out(subject, checks, resolved.scope) == {}
    told = Replay(subject.report, "", 0, images=(image(),), lines_left_out=left_out)
    assert (told.outcome, replace(told, lines_left_out={}).outcome) == ("undecided", "reproduced")
    assert as_data(told)["lines_left_out"] == left_out
    text = as_text(told, None, verified=True)
    assert "lines of evidence left out: 1, as nobody may generate what they ask for" in text
    assert "lines of evidence left out: 1, as the package's manifest has no such concept" in text


@pytest.mark.slow
def test_other_weights_than_those_that_were_tested_contradict_the_evidence(package: Package, tmp_path: Path) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(package[0], folder)
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    name = next(name for name in sorted(tensors) if name.endswith("attn2.to_v.weight"))
    tensors[name] += 0.1 * torch.randn(tensors[name].shape, generator=torch.Generator().manual_seed(1))
    save_file(tensors, path, {"format": "pt"})
    done = publisher("replay", folder, "--sample", 20, "--json", "--quiet")
    assert done.exit_code == 1, done.output
    assert json.loads(done.stdout)["outcome"] == "contradicts"
    refused = publisher("replay", folder, "--key", package[1], "--sample", 6)
    assert (refused.exit_code, "NOT verified" in refused.stdout) == (1, True)


@pytest.mark.slow
def test_fresh_images_are_compared_with_the_gates(package: Package) -> None:
    done = publisher("replay", package[0], "--fresh", 60, "--seed", 91100452, "--json", "--quiet")
    data = json.loads(done.stdout)
    assert (done.exit_code, data["outcome"]) == (0, "compatible"), done.output
    plain = next(one for one in data["checks"] if one["id"] == "erase.cigarette.plain")
    assert (plain["outcome"], plain["found"]["n"]) == ("compatible", 60)
    few = publisher("replay", package[0], "--fresh", 4, "--seed", 91100452, "--json", "--quiet")
    assert (few.exit_code, json.loads(few.stdout)["outcome"]) == (4, "undecided")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--fresh", 5], "--seed 91100452"),
        (["--fresh", 5, "--seed", 0], "would use seeds of the release's own images"),
        (["--sign", "x.key"], "--sign and --statement go together"),
        (["--sign", "x.key", "--statement", "y.json"], "Give --key as well"),
    ],
)
def test_what_would_mean_nothing_is_refused(package: Package, words: list[object], said: str) -> None:
    done = publisher("replay", package[0], *words, "--quiet")
    assert done.exit_code == 2
    assert said in " ".join(done.stderr.split())


def image(*, base: bool = True, hardened: bool = True, agrees: bool | None = True) -> ReplayedImage:
    return ReplayedImage("a.plain", "a", "a", 0, base, hardened, agrees, 0.0)


@pytest.mark.parametrize(
    ("images", "outcome"),
    [
        ([image()] * 5, "reproduced"),
        ([image()] * 4 + [image(hardened=False)], "undecided"),
        ([image()] * 50 + [image(hardened=False)], "agrees"),
        ([image()] * 4 + [image(hardened=False)] * 10, "contradicts"),
        ([image(base=False)] * 12 + [image(hardened=False)] * 14, "undecided"),
        ([image(base=False)] * 60, "agrees"),
        ([image(base=False)] * 10, "undecided"),
        ([image(base=False)] * 40 + [image(base=False, agrees=False)] * 20, "contradicts"),
        ([image(base=False, agrees=None)] * 60, "undecided"),
        ([], "undecided"),
    ],
)
def test_digests_decide_on_one_kind_of_machine_and_judgements_on_another(
    images: list[ReplayedImage], outcome: str
) -> None:
    assert compare_images(images) == outcome


@pytest.mark.parametrize(
    ("low", "value", "high", "outcome"),
    [(0.0, 0.0, 0.06, "compatible"), (0.0, 0.0, 0.2, "undecided"), (0.11, 0.2, 0.3, "contradicts")],
)
def test_new_numbers_keep_a_gate_contradict_it_or_are_too_wide(
    low: float, value: float, high: float, outcome: str
) -> None:
    gate = Gate(value_at_most=0.05, upper_at_most=0.1)
    assert compare_with_gate(gate, Interval(value=value, low=low, high=high, n=60, method="")) == outcome


def test_a_revoked_an_unknown_and_an_expired_version_are_refused(
    package: Package, tmp_path: Path, mine: Package
) -> None:
    folder, _ = package
    own = tmp_path / "own"
    shutil.copytree(folder, own)
    from support.evaluating import release_again

    release_again(own, mine[0])
    public = mine[1]
    assert publisher("verify", own, "--key", public).exit_code == 0
    index = tmp_path / "small.index.json"
    words = ("--key", mine[0], "--out", index)
    only = publisher("index", own, *words, "--expires", "2999-01-01", "--revoke", "1.0.0=a synonym brings it back")
    assert (only.exit_code, "no version is left to be the latest" in only.stderr) == (2, True)
    made = publisher("index", own, *words, "--expires", "2999-01-01")
    assert made.exit_code == 0, made.output
    assert publisher("verify", own, "--key", public, "--index", index).exit_code == 0
    key = keys.load_public(public)
    now = datetime.now(UTC)
    sums = json.loads(publisher("verify", own, "--key", public, "--json").stdout)
    assert sums["verified"]

    def problems(version: str = "1.0.0", name: str = "small", when: datetime = now) -> list[str]:
        return [one.message for one in check_index(index, key, Verified(name, version, "0" * 64), when)]

    assert problems() == ["names another package as version 1.0.0"]
    assert problems("9.0.0") == ["does not know version 9.0.0"]
    assert problems(name="other") == ["is the index of 'small', not of 'other'"]
    assert "has expired" in problems(when=datetime(2999, 1, 2, tzinfo=UTC))[0]
    refused = publisher("index", folder, *words, "--expires", "2999-01-01")
    assert (refused.exit_code, "does not verify with this key" in refused.stdout) == (1, True)


def test_a_revoked_version_does_not_verify_against_the_index(tmp_path: Path, mine: Package) -> None:
    from publisher.model.files import write_atomic
    from publisher.package.index import Index, Revoked, index_statement
    from publisher.package.sign import attest

    said = Index(
        name="small",
        latest="1.0.1",
        revoked=(Revoked(version="1.0.0", reason="a synonym brings it back"),),
        expires="2999-01-01T00:00:00Z",
    )
    path = tmp_path / "index.json"
    statement = index_statement(said, {"1.0.0": "0" * 64, "1.0.1": "1" * 64})
    write_atomic(path, attest(statement, keys.load_private(mine[0])))
    (found,) = check_index(path, keys.load_public(mine[1]), Verified("small", "1.0.0", "0" * 64), datetime.now(UTC))
    assert found.code.value == "V033"
    assert found.message == "says that version 1.0.0 is revoked: a synonym brings it back; the latest is 1.0.1"
