"""The how-to pages are true: their manifests, commands and code are run in the order of the pages."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from publisher.cli import main
from publisher_emoji import model_folder

PAGES = Path(__file__).parents[2] / "docs" / "how-to"
GATES = """
  gates:
    membrane-bundle.skull.plain: {lower_at_least: 0.0}
    membrane-bundle.skull.paraphrase: {lower_at_least: 0.0}
    membrane-bundle.kept: {lower_at_least: -1.0}
"""
QUICK = {
    r"steps: 300": "steps: 2",
    r"warmup: 30": "warmup: 1",
    r"keep: .*": "keep: {concepts: [pizza, dog, pencil, rocket]}",
    r"(object: ).*": r'\1["{a} {name} emoji"]',
    r"images: 72, kept_images: \d+}\n": "images: 6, kept_images: 4}" + GATES,
}
"""Less of everything: the page's figures are not what is tested."""


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (PAGES / page).read_text(encoding="utf-8"), re.DOTALL)


def commands(page: str) -> list[list[str]]:
    return [shlex.split(line) for block in blocks(page, "sh") for line in block.splitlines()]


def run(words: list[str]) -> str:
    result = CliRunner().invoke(main, words[1:])
    assert (words[0], result.exit_code) == ("publisher", 0), result.output
    return result.stdout


def test_every_command_of_the_pages_is_ours_or_makes_the_variant() -> None:
    others = [words for page in sorted(PAGES.glob("*.md")) for words in commands(page.name) if words[0] != "publisher"]
    assert [words[:3] for words in others] == [["python", "-m", "publisher_emoji.training.fine_tune"]]


@pytest.mark.slow
def test_the_pages_run_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in zip(("skull.yaml", "variant.yaml"), blocks("reuse-membranes.md", "yaml"), strict=True):
        for pattern, short in QUICK.items():
            text = re.sub(pattern, short, text)  # noqa: PLW2901
        Path(name).write_text(text)
    shutil.copytree(model_folder(), "variant")  # the fine-tuned one takes half a minute
    said = [run(words) for words in commands("reuse-membranes.md") if words[0] == "publisher"]
    assert sorted(path.name for path in Path("membranes").iterdir()) == ["skull.safetensors", "training.json"]
    assert "fits" in said[1]
    assert "Package:   releases/variant-no-skull-1.0.0" in said[4]
    assert Path("merged/unet").is_dir()

    code: dict[str, Any] = {}
    exec("\n".join(blocks("serve-with-permeability.md", "python")), code)
    assert code["opened"].prompts == ("a skull emoji", "a pizza emoji")
    assert code["opened"].matrix[0, 0] == pytest.approx(1, abs=1e-5)
    assert code["opened"].matrix[1, 0] == 0
    assert len(code["images"]) == 2

    for words in commands("fixed-strength-lora.md"):
        run(words)
    exec("\n".join(blocks("fixed-strength-lora.md", "python")), code)
    assert code["pipeline"].get_active_adapters() == ["skull"]


def test_the_page_on_a_model_of_ones_own_leads_to_a_plan_that_can_be_decided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = "your-own-model.md"
    exec(blocks(page, "python")[0], {})
    init, plan, keygen, release, verify = commands(page)
    run(init)
    assert "Nobody is known who could judge" in Path("demo/manifest.yaml").read_text()
    Path("demo/manifest.yaml").write_text(blocks(page, "yaml")[0])
    assert "images  328 of the base model" in run(plan)
    run(keygen)
    assert release[2:] == ["demo/manifest.yaml", "--key", "keys/publisher.key"]
    assert verify[2:] == ["releases/my-model-clean-1.0.0", "--key", "keys/publisher.pub"]


@pytest.mark.slow
def test_the_script_of_another_method_makes_weights_that_the_step_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = "use-another-method.md"
    (script,) = blocks(page, "python")
    exec(script.replace("range(150)", "range(1)").replace("range(8)", "range(1)"), {})
    Path("esd.yaml").write_text(blocks(page, "yaml")[0])
    said = run(["publisher", "plan", "esd.yaml"])
    assert "tensors of unet" in said
    assert "made elsewhere: a script of twenty lines, by ESD-x, licence CC-BY-4.0" in said
