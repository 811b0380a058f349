"""The page on CI is true: its YAML is read, its policy is kept by a plan, and its commands have these options."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from publisher.cli import main
from publisher.policy import load_policy
from support.releasing import publisher, write

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "ci.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
GITHUB, GITLAB, POLICY, HOOK = (yaml.safe_load(block) for block in BLOCKS)


def scripts() -> list[str]:
    steps = [step["run"] for step in GITHUB["jobs"]["release"]["steps"] if "run" in step]
    return [*steps, GITLAB["plan"]["script"], GITLAB["release"]["script"]]


def commands() -> list[list[str]]:
    """Return the words of every command of ours, without what the shell takes."""
    lines = [line for script in scripts() for line in script.splitlines() if line.startswith("publisher ")]
    return [shlex.split(line.partition(" >> ")[0])[1:] for line in lines]


def test_every_command_has_the_options_of_the_page() -> None:
    assert [words[0] for words in commands()] == [
        "plan",
        "release",
        "report",
        "report",
        "verify",
        "push",
        "plan",
        "release",
    ]
    for name, *words in commands():
        command = main.get_command(click.Context(main), name)
        assert command is not None
        command.make_context(name, words)


def test_outputs_that_later_steps_ask_for_are_written() -> None:
    asked = set(re.findall(r"steps\.release\.outputs\.(\w+)", PAGE))
    from publisher.cli import release

    source = Path(release.__file__).read_text(encoding="utf-8")
    assert asked == {"package", "report"}
    assert all(f'"{name}": ' in source for name in asked)


def test_the_policy_of_the_page_is_kept_by_a_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    publisher("keygen", "--out", "keys")
    Path("policy.yaml").write_text(BLOCKS[2])
    assert load_policy(Path("policy.yaml")).policy.as_json()["max_age"] == POLICY["max_age"]
    evaluate = {"scorer": "emoji", "sampling": {"steps": 6, "images": 60, "kept_images": 60}}
    write(Path("manifest.yaml"), evaluate=evaluate)
    (plan,) = {tuple(words) for words in commands() if words[0] == "plan" and "github" in words}
    said = publisher(*plan)
    assert (said.exit_code, [line for line in said.stdout.splitlines() if "error" in line]) == (0, [])
    write(Path("manifest.yaml"), evaluate=evaluate, concepts=["cigarette"])  # no synonym, so no paraphrases
    breach = re.search(r"`(policy\.yaml:4:5: [^`]*?) \.\.\.`", PAGE)
    assert breach
    said = publisher("plan", "manifest.yaml", "--policy", "policy.yaml")
    assert said.exit_code == 2
    assert breach[1] in said.stdout


def test_the_hook_takes_manifests() -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    used: dict[str, Any] = HOOK["repos"][0]["hooks"][0]
    assert used["id"] == hook["id"]
    pattern = re.compile(hook["files"])
    assert all(map(pattern.search, ("manifest.yaml", "a/manifest-2.yml", "manifests/quickstart.yaml")))
    assert not any(map(pattern.search, ("policy.yaml", "manifests/a/b.yaml", ".github/workflows/release.yaml")))
