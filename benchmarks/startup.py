"""Processor seconds of `publisher --version`, `--help` and `plan`, beside a bare Python start: `benchmarks/startup.py`.

User and system time of the process together, which other programs on the machine hardly change. Bytecode is compiled
before, as `pip` does when it installs: with `PYTHONDONTWRITEBYTECODE` each start of an editable copy compiles it again.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

PUBLISHER = str(Path(sys.executable).with_name("publisher"))
MANIFESTS = Path(__file__).parents[1] / "manifests"
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "publisher --version": [PUBLISHER, "--version"],
    "publisher --help": [PUBLISHER, "--help"],
    "publisher plan first.yaml": [PUBLISHER, "plan", str(MANIFESTS / "first.yaml")],
    "publisher plan quickstart.yaml": [PUBLISHER, "plan", str(MANIFESTS / "quickstart.yaml")],
}


def processor_seconds(command: list[str], folder: Path) -> float:
    """Run a command to its end, with its bytecode and its work folder under ``folder``.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"PYTHONPYCACHEPREFIX": str(folder / "bytecode"), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=folder, env=environment) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return used.ru_utime + used.ru_stime


def main(repeats: int = 10) -> None:
    """Print the least and the median of ``repeats`` runs."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        for command in COMMANDS.values():
            processor_seconds(command, Path(folder))
        for _ in range(repeats):
            for name, command in COMMANDS.items():
                seconds[name].append(processor_seconds(command, Path(folder)))
    for name, runs in seconds.items():
        print(f"{name:32}  least {min(runs):.2f} s  median {statistics.median(runs):.2f} s  (n = {repeats})")


if __name__ == "__main__":
    main()
