"""The page on pushing is true: its commands run in their order, on a hub of this machine."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from publisher.cli import main
from support.fake_hub import FakeHub

PAGE = Path(__file__).parents[3] / "docs/how-to/push-to-the-hub.md"


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_the_commands_of_the_page_run_as_printed(
    hub: FakeHub,
    make: Callable[[Callable[[dict[str, Any]], object]], Path],
    public: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    package = make(lambda data: data.update(name="emoji-clean", version="1.0.0"))
    shutil.move(package, tmp_path / "releases/emoji-clean-1.0.0")
    (tmp_path / "keys").mkdir()
    shutil.copy(public, tmp_path / "keys/publisher.pub")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    commands = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert len(commands) == 4
    for words in commands:
        result = CliRunner().invoke(main, words[1:])
        assert (words[0], result.exit_code) == ("publisher", 0), result.output
    assert set(hub.repositories["acme/emoji-clean"].tags) == {"v1.0.0"}
    assert (
        hub.repositories["acme/emoji-clean-next"].pull_requests,
        hub.repositories["acme/emoji-clean-next"].tags,
    ) == (1, {})
