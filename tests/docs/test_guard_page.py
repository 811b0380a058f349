"""The page on fine-tuning with the guard: its first block is run, the others fit the scripts they are for."""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

import publisher
from publisher.api.freeze_mask import FILE
from publisher.guarding import EVERY
from publisher.safeguards.freeze_mask.guard.guard import HANDFUL
from publisher.safeguards.freeze_mask.guard.record import KEY
from publisher_emoji import model_folder
from support.guarding import mask_of

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "fine-tune-with-the-guard.md"


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_first_block_runs_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pipeline: Any) -> None:
    monkeypatch.chdir(tmp_path)
    Path("package").symlink_to(model_folder())
    mask = mask_of(pipeline.unet, {"conv_in.weight": (), "conv_out.weight": ()})
    guard = publisher.guard

    def trusting(model: Any, package: str, *, verify_key: str) -> Any:
        assert (package, verify_key) == ("package", "publisher.pub")  # signatures have tests of their own
        return guard(model, mask, verify_key=None)

    monkeypatch.setattr(publisher, "guard", trusting, raising=False)

    def loss(pipeline: Any, batch: torch.Tensor) -> torch.Tensor:
        states = torch.zeros(1, 4, pipeline.unet.config.cross_attention_dim)
        return pipeline.unet(batch, torch.tensor([3]), states).sample.square().mean()

    exec(blocks()[0], {"batches": [torch.ones(1, 4, 8, 8)], "loss": loss})
    assert (Path("fine-tuned/unet") / FILE).read_bytes() == mask.as_file()
    assert KEY in Path("fine-tuned/unet/config.json").read_text()


def test_the_lines_to_add_call_what_there_is() -> None:
    found = [block.replace("unet.parameters(),", "unet.parameters(),)").rstrip() for block in blocks()[1:]]
    found[1] += ")"
    called = [
        ast.unparse(node.func)
        for block in found
        for node in ast.walk(ast.parse(textwrap.dedent(block)))
        if isinstance(node, ast.Call)
    ]
    assert called.count("publisher.guard") == 2
    assert "guard.exclude_modules" in called


def test_the_pages_figures_are_the_codes() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert f"every {EVERY} steps" in text
    assert {8: "eight"}[HANDFUL] in text
    assert f"`{KEY}`" in text
