"""A release that is killed, or that runs out of disk, leaves no half package, and the same command makes a whole one.

Every third stop is a SIGKILL before a change on the disk, a SIGTERM at some time, and a SIGKILL at some time. A full
disk is a small tmpfs where one can be mounted, elsewhere a limit for the size of a file. Long form: ``make kill``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from support import killing
from support.releasing import write

KILLS, FULLS = (int(os.environ.get(name) or default) for name, default in (("KILLS", 2), ("FULLS", 1)))
FEW = {
    "scorer": "emoji",
    "sampling": {"steps": 6, "guidance": 3.0, "images": 6, "kept_images": 4},
    "gates": {
        "erase.cigarette.plain": {"upper_at_most": 0.6},
        "erase.cigarette.paraphrase": {"upper_at_most": 0.6},
        "erase.kept": {"lower_at_least": -0.6},
    },
}
SEED = int(os.environ.get("KILL_SEED") or 1)


@pytest.mark.slow
def test_a_release_survives_kills_and_full_disks(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "manifest.yaml", evaluate=FEW)
    words = [sys.executable, killing.__file__, tmp_path, KILLS, FULLS, SEED]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    counts = Counter(
        f"{one['how'].split()[0]}: {'complete' if one['package'] else 'resumed'}" for one in told["rounds"]
    )
    with capfd.disabled():
        print(f"\n{told['events']} changes on disk in {told['seconds']} s, seed {SEED}:", dict(counts))  # noqa: T201
    for one in told["rounds"]:
        assert (one["resumed"], one["same"], one["left"]) == (0, True, []), one
        if one["how"].startswith("killed"):
            assert one["stopped"] in (-signal.SIGKILL, 0), one
        elif one["how"].startswith("terminated"):
            assert (one["stopped"] in (143, -signal.SIGTERM, 0), one["litter"]) == (True, []), one
        else:
            assert (one["stopped"], one["package"], one["litter"]) == (3, False, []), one
            assert "No space left on device" in one["said"] or "File too large" in one["said"], one
            assert "This is an error in publisher" not in one["said"], one
    assert len(told["rounds"]) == KILLS + FULLS
