"""How long `publisher --version` and `--help` take, beside a bare Python start: `python benchmarks/startup.py`."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

PUBLISHER = str(Path(sys.executable).with_name("publisher"))
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "publisher --version": [PUBLISHER, "--version"],
    "publisher --help": [PUBLISHER, "--help"],
}


def main(repeats: int = 10) -> None:
    """Print the median of ``repeats`` runs, and its ratio to the bare start."""
    seconds = {name: [] for name in COMMANDS}
    for _ in range(repeats):
        for name, command in COMMANDS.items():
            began = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds[name].append(time.perf_counter() - began)
    bare = statistics.median(seconds["python -c pass"])
    for name, runs in seconds.items():
        median = statistics.median(runs)
        print(f"{name:20}  {median:.3f} s  {median / bare:.1f} x a bare start  (n = {repeats})")


if __name__ == "__main__":
    main()
