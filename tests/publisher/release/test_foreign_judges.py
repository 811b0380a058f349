"""A release with scorers and an executor of a third party: two judges by kind, with parameters and files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from publisher.model.digest import sha256_file
from publisher_emoji import reference_images
from support.foreign import installed_plugin
from support.releasing import MANIFEST, publisher

LABELS = {"object": ["cigarette", "pizza", "dog"], "style": ["noto", "blob", "twemoji"]}
Manifest = Callable[..., Path]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The third party's distribution is installed for the time of a test."""
    with installed_plugin("looks", tmp_path, monkeypatch):
        yield


def picture(thing: str, style: str) -> Any:
    image = Image.open(reference_images(thing)[style]).convert("RGB").resize((32, 32))
    return np.asarray(image, dtype=np.float32).transpose(2, 0, 1) / 255


def judge(folder: Path, kind: str, **changes: Any) -> dict[str, Any]:
    """Return an entry of ``evaluate.scorers``, and write the file that it reads."""
    labels = LABELS[kind]
    pairs = [(label, "noto") if kind == "object" else ("pizza", label) for label in labels]
    save_file({"pictures": np.stack([picture(*pair) for pair in pairs])}, folder / f"{kind}.safetensors")
    params = {"kind": kind, "labels": labels, "pictures": f"{kind}.safetensors", "errors": "3 of 3 right"}
    return {"use": "nearest", "id": f"{kind}s", "for": [kind], "with": params, **changes}


def sections(*judges: dict[str, Any], **evaluate: Any) -> dict[str, Any]:
    check = {"id": "style", "attack": "plain", "metric": "concept-rate", "concepts": ["noto"]}
    sampling = {"steps": 3, "guidance": 3.0, "images": 6, "kept_images": 3}
    return {
        "prompts": {"object": ["{a} {name} emoji in noto style"], "style": ["{a} {object} emoji in {name} style"]},
        "concepts": ["cigarette", {"id": "noto", "kind": "style"}],
        "keep": {"concepts": ["pizza", "dog"]},
        "steps": [{**MANIFEST["steps"][0], "concepts": ["cigarette"]}],
        "evaluate": {"scorers": judges, "checks": [check], "sampling": sampling, **evaluate},
    }


@pytest.mark.slow
@pytest.mark.enable_socket  # torch hands tensors between processes through sockets of this machine
@pytest.mark.usefixtures("installed")
def test_two_judges_by_kind_and_processes_of_a_third_party_make_one_release(manifest: Manifest, tmp_path: Path) -> None:
    judges = [judge(tmp_path, kind) for kind in LABELS]
    gates = {
        "erase.cigarette.plain": {"upper_at_most": 1.0},
        "erase.kept": {"lower_at_least": -1.0},
    }
    path = manifest(**sections(*judges, executor={"use": "helpers", "with": {"workers": 1}}, gates=gates))
    done = publisher("release", path, "--out", tmp_path / "out", "--throwaway-key", "--json")
    assert done.exit_code in (0, 1, 4), done.output
    (folder,) = (tmp_path / "out").glob("*.report")
    report = json.loads((folder / "report.json").read_text())
    checks = {check["id"]: check for claim in report["claims"] for check in claim["checks"]}
    assert (checks["style"]["scorer"], checks["erase.kept"]["scorer"]) == ("styles", "objects")
    for kind, labels in LABELS.items():
        card = report["scorers"][f"{kind}s"]
        assert (card["use"], card["kinds"], card["params"]["labels"]) == ("nearest", [kind], labels)
        assert card["inputs"] == {f"{kind}.safetensors": sha256_file(tmp_path / f"{kind}.safetensors")}
    rows = [json.loads(line) for line in (folder / checks["style"]["evidence"]).read_text().splitlines()]
    assert {(tuple(row["base"]["labels"]), row["base"]["labels"]["style"] in LABELS["style"]) for row in rows} == {
        (("style",), True)
    }
    assert {plugin["name"] for plugin in report["plugins"]} >= {"nearest", "helpers"}


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_a_scorer_that_is_always_unsure_releases_nothing(manifest: Manifest, tmp_path: Path) -> None:
    gates = {"erase.cigarette.plain": {"upper_at_most": 0.99}, "erase.kept": {"lower_at_least": -0.99}}
    path = manifest(**sections(judge(tmp_path, "object", use="shrugs"), judge(tmp_path, "style"), gates=gates))
    done = publisher("release", path, "--out", tmp_path / "out", "--throwaway-key", "--json")
    assert done.exit_code == 1, done.output
    claims = {one["id"]: one["verdict"] for one in json.loads(done.stdout)["claims"]}
    assert (claims["erase.cigarette.plain"], claims["erase.kept"]) == ("failed", "unknown")
    assert not (tmp_path / "out" / "small-1.0.0").exists()


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            [{}],
            "no scorer judges the kind 'style'.\n  Judged are: object.  Name a scorer for it under evaluate.scorers.",
        ),
        ([{"for": ["style"]}], "the scorer 'objects' does not judge the kind 'style'."),
        ([{"with": {"labels": ["cigarette"]}}], "'with' lacks the key 'pictures'."),
    ],
)
def test_a_plan_names_what_the_judges_lack(
    changes: list[dict[str, Any]], said: str, manifest: Manifest, tmp_path: Path
) -> None:
    path = manifest(**sections(*[judge(tmp_path, "object", **change) for change in changes]))
    found = publisher("plan", path, "--work", tmp_path / "work")
    assert (found.exit_code, said in found.output) == (2, True), found.output


@pytest.mark.usefixtures("installed")
def test_a_file_that_is_not_there_is_missed_by_the_plan(manifest: Manifest, tmp_path: Path) -> None:
    path = manifest(**sections(*[judge(tmp_path, kind) for kind in LABELS]))
    (tmp_path / "style.safetensors").unlink()
    found = publisher("plan", path, "--work", tmp_path / "work")
    assert (found.exit_code, "the scorer 'styles' names 'style.safetensors', which is not there" in found.output) == (
        2,
        True,
    )
