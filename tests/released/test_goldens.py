"""The quickstart asks what it asked when its golden was made, and the comparison sees what differs."""

from __future__ import annotations

import copy
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from publisher.cli import main
from publisher.evaluate.prepare import settle
from publisher.release.prepare import prepare

HERE = Path(__file__).parent
GOLDEN: dict[str, Any] = json.loads((HERE / "quickstart.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def compare() -> Any:
    spec = importlib.util.spec_from_file_location("released_compare", HERE / "compare.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_check_asks_the_prompts_and_seeds_of_the_golden(compare: Any, tmp_path: Path) -> None:
    prepared = prepare(HERE.parents[1] / "manifests" / "quickstart.yaml", tmp_path / "work", fetch=False)
    found = {}
    for claim in prepared.claims:
        for check in claim.claim.checks:
            one = settle(check, prepared.resolved.scope, prepared.tools, prepared.resolved.evaluate.sampling)
            if not (one.trains or one.searches):
                found[check.id] = compare.asked([(request.prompt, request.seed) for request in one.asked.requests])
    assert found == {name: one["asked"] for name, one in GOLDEN["checks"].items() if "asked" in one}


def test_the_comparison_sees_a_verdict_a_value_and_a_seed(compare: Any) -> None:
    golden = {"decision": GOLDEN["decision"], "steps": GOLDEN["steps"], "checks": GOLDEN["checks"]}
    assert list(compare.differences(golden, golden)) == []
    other = copy.deepcopy(golden)
    other["checks"]["kept"]["verdict"] = "failed"
    other["checks"]["erase.noto.plain"]["value"] = 0.5
    other["checks"]["unconditional"]["asked"] = "x"
    del other["checks"]["erase.pistol.plain"]
    assert [line.partition(":")[0] for line in compare.differences(other, golden)] == [
        "other checks",
        "erase.noto.plain",
        "kept",
        "unconditional",
    ]


def test_the_package_that_was_signed_is_still_a_package() -> None:
    found = CliRunner().invoke(main, ["verify", str(HERE / "tiny"), "--key", str(HERE / "tiny.pub")])
    assert found.exit_code == 0, found.output
