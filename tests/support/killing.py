"""Releases that are killed, or run out of disk, at any moment, and are started again: ``python killing.py FOLDER ...``.

One process imports everything once, and forks for each run: threads of torch are started in the children alone.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

NAME = "small-1.0.0"
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.symlink")
IMPORTED = (
    "publisher.cli.release",
    "publisher.release",
    "publisher.runtime.pipelines",
    "publisher_emoji.scorer",
    "publisher_erase.data",
    "publisher.package.bom",
    "model_signing.signing",
    "scipy.special",
    "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion",
    "diffusers.models.unets.unet_2d_condition",
    "diffusers.models.autoencoders.autoencoder_kl",
    "transformers.models.clip.modeling_clip",
)
"""What a release imports: once for all runs."""
RANDOM = "model.sig"
"""The one file whose bytes differ from run to run: an ECDSA signature."""


@dataclass
class Round:
    """What became of a run that was stopped, and of the same command afterwards."""

    how: str
    stopped: int
    """Exit code of the run that was to be stopped; negative: the signal that ended it."""
    said: str
    """Its last words."""
    package: bool
    """There was a package afterwards, which then had to be complete."""
    litter: list[str]
    """Unfinished folders that it left."""
    resumed: int
    same: bool
    """The package has the bytes of one that was made without a stop."""
    left: list[str]
    """What lies beside the package in the end and should not."""


@dataclass
class Bench:
    """Where the releases are made."""

    root: Path
    manifest: Path
    key: Path

    def run(self, prepare: Callable[[], None] = lambda: None, after: float = 0, number: int = 0) -> tuple[int, str]:
        """Release in a child, and send it a signal after some seconds; its exit code, and what it said."""
        log = self.root / "log"
        child = os.fork()
        if child == 0:
            self._release(prepare, log)
        if number:
            time.sleep(after)
            os.kill(child, number)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return code, log.read_text() if log.is_file() else ""

    def _release(self, prepare: Callable[[], None], log: Path) -> None:
        from publisher.cli import main

        code = 99
        try:
            words = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
            for number in (1, 2):
                os.dup2(words, number)
            sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115
            prepare()
            main.main(["release", str(self.manifest), "--out", str(self.root / "out"), "--key", str(self.key)])
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def clear(self) -> None:
        shutil.rmtree(self.root / "out", ignore_errors=True)

    def package(self) -> dict[str, bytes]:
        folder = self.root / "out" / NAME
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def finish(self, how: str, stopped: int, said: str, good: dict[str, bytes]) -> Round:
        """Give the same command once more, unless the package is there."""
        there = (self.root / "out" / NAME).exists()
        litter = sorted(path.name for path in (self.root / "out").glob(f".{NAME}*"))
        code, words = (0, "") if there else self.run()
        said = said if code == 0 else words
        names = {path.name for path in (self.root / "out").iterdir()}
        left = sorted(names - {NAME, f"{NAME}.report", ".work"})
        now = self.package()
        same = {name: data for name, data in now.items() if name != RANDOM} == good and RANDOM in now
        return Round(how, stopped, said.strip()[-600:], there, litter, code, same, left)


def counted(root: Path, act: Callable[[], None], at: int = 0) -> Callable[[], None]:
    """Call ``act`` before the run changes something below ``root`` for the ``at``-th time; 0: each time."""
    seen = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES
        if (writes or event in CHANGES) and str(arguments[0]).startswith(str(root)):
            seen += 1
            if at in (0, seen):
                act()

    return lambda: sys.addaudithook(hook)


def by_event(bench: Bench, at: int) -> tuple[str, int, str]:
    code, said = bench.run(counted(bench.root / "out", lambda: os.kill(os.getpid(), signal.SIGKILL), at))
    return f"killed before change {at}", code, said


def by_time(bench: Bench, seconds: float, number: signal.Signals) -> tuple[str, int, str]:
    code, said = bench.run(after=seconds, number=number)
    how = "killed" if number == signal.SIGKILL else "terminated"
    return f"{how} after {seconds:.2f} s", code, said


def mount(folder: Path, size: int, *options: str) -> bool:
    """Make a small file system of a folder, or another size of it; False: it is not allowed here."""
    choice = ",".join([f"size={size}", *options])
    words = ["mount", "-t", "tmpfs", "-o", choice, "tmpfs", str(folder)]
    try:
        return subprocess.run(words, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def main(folder: Path, kills: int, fulls: int, seed: int) -> dict[str, Any]:
    """Make one release undisturbed, then others that are stopped."""
    from publisher.package import keys

    for name in IMPORTED:
        import_module(name)

    keys.generate(folder / "a.key", folder / "a.pub", None)
    bench = Bench(folder, folder / "manifest.yaml", folder / "a.key")
    choose = random.Random(seed)
    marks = folder / "marks"
    began = time.monotonic()
    code, said = bench.run(counted(folder / "out", lambda: os.close(_mark(marks))))
    if code:
        raise SystemExit(f"the undisturbed release ended with {code}: {said}")
    whole, events = time.monotonic() - began, marks.stat().st_size
    good = {name: data for name, data in bench.package().items() if name != RANDOM}
    sizes = [path.stat().st_size for path in (folder / "out").rglob("*") if path.is_file() and not path.is_symlink()]
    rounds = []
    for number in range(kills):
        bench.clear()
        (bench.root / "out").mkdir()
        at, seconds = choose.randint(1, events), choose.uniform(0, whole)
        if number % 3 == 0:
            ended = by_event(bench, at)
        else:
            ended = by_time(bench, seconds, signal.SIGTERM if number % 3 == 1 else signal.SIGKILL)
        rounds.append(asdict(bench.finish(*ended, good)))
    for _ in range(fulls):
        bench.clear()
        rounds.append(asdict(full(bench, choose, sizes, good)))
    return {"events": events, "seconds": round(whole, 2), "rounds": rounds}


def _mark(path: Path) -> int:
    file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.write(file, b".")
    return file


def full(bench: Bench, choose: random.Random, sizes: list[int], good: dict[str, bytes]) -> Round:
    """Release on a device that is too small, or where it cannot be made under a limit for the size of a file."""
    out = bench.root / "out"
    out.mkdir()
    size = int(sum(sizes) * choose.uniform(0.02, 0.95)) // 4096 * 4096
    if not mount(out, size):
        limit = choose.randint(1, max(sizes))
        code, said = bench.run(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
        return bench.finish(f"limit of {limit} bytes a file", code, said, good)
    try:
        code, said = bench.run()
        mount(out, 4 * sum(sizes), "remount")
        return bench.finish(f"tmpfs of {size} bytes", code, said, good)
    finally:
        subprocess.run(["umount", "--lazy", str(out)], check=True)


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), *map(int, sys.argv[2:]))))  # noqa: T201
