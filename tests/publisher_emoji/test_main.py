from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner
from PIL import Image

from publisher_emoji import vocabulary
from publisher_emoji.__main__ import SHOWN, _summary, main
from publisher_emoji.scorer import EmojiLabels


def test_prompts_are_generated_judged_and_written(tmp_path: Path) -> None:
    arguments = ["a pizza emoji", "a cat emoji in noto style", "--steps", "2", "--out", str(tmp_path)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["a pizza emoji", "a cat emoji in noto style"]
    assert all("looks like" in line and "style" in line for line in lines)
    record = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert (record["seed"], record["steps"], record["guidance"]) == (7, 2, 3.0)
    assert [image["prompt"] for image in record["images"]] == ["a pizza emoji", "a cat emoji in noto style"]
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.height == 2 * (3 * 32 + 2)


def test_the_summary_counts_and_lists_mistakes() -> None:
    asked = [("cat", "noto"), ("pizza", "blob")]
    judged = [EmojiLabels("cat", 0.9, "noto", 0.9), EmojiLabels("cheese", 0.6, "blob", 0.9)]
    assert _summary(asked, judged) == [
        "right object: 1 of 2 = 50.0% (95% interval 1.3% to 98.7%)",
        "right style:  2 of 2 = 100.0% (95% interval 15.8% to 100.0%)",
        "  pizza in blob style: looks like cheese",
    ]


def test_the_shown_objects_exist() -> None:
    assert set(SHOWN) <= set(vocabulary().object_names)


def test_a_bad_option_is_a_usage_error() -> None:
    result = CliRunner().invoke(main, ["--steps", "0"])
    assert result.exit_code == 2
    assert "--steps" in result.output
