"""Hostile command lines: each ends in time with the right exit code, without traceback, secret or control character.

The short form puts every value once into a place of each command; ``FUZZ=5000`` tries so many more at random.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import pytest
from click.testing import CliRunner

from publisher.cli import main
from publisher.package import keys

ROOT = Path(__file__).parents[3]
FUZZ = int(os.environ.get("FUZZ", "0"))
SEED = int(os.environ.get("FUZZ_SEED", "20261128"))
MOST_S = 10.0
"""Of one line: a hundred times what it takes, for a machine that does other things too."""
MOST_BYTES = 400 * 2**20
PASSPHRASE = "correct-horse-battery-staple"

VALUES = (
    "",
    " ",
    "-",
    "--",
    "---",
    "-x",
    "--no-such-option",
    "=",
    "--=x",
    "nothing",
    "None",
    "true",
    "0",
    "-1",
    "1e999",
    "nan",
    "9" * 5000,
    "0x10",
    "\u0661",
    "a" * 5000,
    "a" * 255,
    "../" * 300,
    "./.",
    "\x1b[2J\x1b[31mred",
    "\x1b]0;title\x07",
    "\u202eltr.ylno",
    "a\rb",
    "a\n::error::owned",
    "::error file=x::owned",
    "##vso[task.complete]",
    "##[error]x",
    "\u2028",
    "\udcff\udc80",
    "\U0001f355" * 300,
    "[red]x[/blue]",
    "{0}{x!r}",
    "%s%n%d",
    "$(id)",
    "`id`",
    "; id",
    "a|b",
    "*",
    "?",
    "C:\\x",
    "\\\\host\\x",
    f"file:{'/' * 3}etc/passwd",
    "http://me:hunter2pass@host/x",
    "hf:org/name",
    "hf:a/b@main",
    "hf::",
    "embedded:",
    "embedded:emojis",
    "@x",
    "~nobody/x",
    "con",
    ".",
    "..",
    "/dev/null",
    "/dev/full",
    "/proc/self/mem",
)
FILES = (
    "empty",
    "folder",
    "loop",
    "dangling",
    "socket",
    "fifo",
    "binary",
    "sparse",
    "text",
    "deep/er",
    "key.pub",
    "key.key",
)
SECRETS = ("PEM", "PEM in a line", "its body")
PLACES: dict[str, tuple[int, ...]] = {
    "release {}": (2,),
    "release {} --json": (2,),
    "release MANIFEST --key {}": (2,),
    "release MANIFEST --key env:{}": (2,),
    "release MANIFEST --key pkcs11:{}": (2,),
    "release MANIFEST --key KEY --certificate-chain {}": (2,),
    "release MANIFEST --out {}": (2,),
    "release MANIFEST --passphrase-env {}": (2,),
    "release MANIFEST --key KEY --passphrase-env {}": (2,),
    "release NOSIGN {}": (2,),
    "plan {}": (2,),
    "plan {} --json": (2,),
    "plan {} --format sarif": (2,),
    "verify {} --key PUB": (1, 2),
    "verify folder --key {}": (1, 2),
    "verify folder --key PUB --name {}": (1, 2),
    "verify folder --identity {} --issuer {}": (1, 2),
    "verify folder --identity x --root {}": (2,),
    "verify folder --key PUB --min-version {} --json": (1, 2),
    "verify folder --key PUB {}": (1, 2),
    "verify folder --key PUB --policy {}": (2,),
    "plan MANIFEST --policy {} --json": (2,),
    "report folder --format sarif --manifest {}": (2,),
    "audit {} --against folder --key PUB": (1, 2, 3, 4),
    "audit folder --against {} --key PUB --json": (1, 2, 3, 4),
    "audit folder --against folder --key {}": (1, 2),
    "audit folder --against folder --identity {} --root {}": (1, 2),
    "audit folder --against folder --key PUB --max {}": (1, 2),
    "report {}": (2,),
    "report {} --format html": (2,),
    "report folder --format {}": (2,),
    "report folder --format html --output {}": (2,),
    "membranes {}": (2,),
    "membranes inspect {}": (2,),
    "membranes inspect {} --json": (2,),
    "membranes inspect text --model {}": (2, 3),
    "membranes merge {} text --out new": (2, 3),
    "membranes merge folder {} --out new": (2, 3),
    "membranes merge folder text --out new --permeability {}": (2, 3),
    "membranes convert {} --out new": (2,),
    "membranes convert text --out new --to {}": (2,),
    "membranes convert text --out new --dtype {}": (2,),
    "membranes train {} --out new": (2,),
    "plugins {}": (0, 2),
    "plugins show {}": (0, 2),
    "plugins show erase {}": (0, 2),
    "keygen --out new --name {}": (0, 2),
    "keygen --out new --passphrase-env {}": (2,),
    "schema {}": (2,),
    "--debug {}": (2,),
    "{} --json": (2,),
    "{}": (2,),
}
"""Where a value is put, and the exit codes that are right there."""
SECRET_PLACES = ("key {}", "env {}", "env:{}", "NOSIGN {}")
"""Where a secret may be put by mistake."""
MANIFESTS = ("--policy {}", "--manifest {}", "release {}", "plan {}", "train {}")
"""Where a pipe is waited for, as the shell's <(...) needs it."""


@dataclass
class Tally:
    """What was seen of all lines."""

    codes: dict[int, int] = field(default_factory=dict)
    slowest: tuple[float, str] = (0.0, "")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """A folder with odd things in it, and what the words in capitals stand for."""
    monkeypatch.chdir(tmp_path)
    keys.generate(Path("key.key"), Path("key.pub"), PASSPHRASE.encode())
    pem = Path("key.key").read_text()
    quickstart = (ROOT / "manifests" / "quickstart.yaml").read_text()
    Path("nosign.yaml").write_text(quickstart)
    Path("manifest.yaml").write_text(f"{quickstart}\nsign: {{key_env: THE_KEY, passphrase_env: THE_PASS}}\n")
    for folder in ("folder", "deep/er"):
        Path(folder).mkdir(parents=True)
    Path("empty").touch()
    Path("text").write_text("text: [1, 2\n")
    Path("binary").write_bytes(bytes(range(256)) * 64)
    Path("loop").symlink_to("loop")
    Path("dangling").symlink_to("nowhere")
    with Path("sparse").open("wb") as file:
        file.truncate(2**33)
    os.mkfifo("fifo")
    os.mknod("socket", 0o600 | stat.S_IFSOCK)
    monkeypatch.setenv("THE_KEY", pem)
    monkeypatch.setenv("THE_PASS", PASSPHRASE)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    before = signal.signal(signal.SIGALRM, _too_long)
    body = "".join(pem.splitlines()[1:-1])
    yield {
        "MANIFEST": "manifest.yaml",
        "NOSIGN": "nosign.yaml",
        "KEY": "key.key",
        "PUB": "key.pub",
        "PEM": pem,
        "PEM in a line": pem.replace("\n", "\\n"),
        "its body": body,
    }
    signal.signal(signal.SIGALRM, before)


def _too_long(_number: int, _frame: FrameType | None) -> None:
    raise TimeoutError


def lines(place: dict[str, str]) -> Iterator[tuple[list[str], tuple[int, ...]]]:
    """Yield command lines with the exit codes that are right for them."""
    chosen = random.Random(SEED)
    everything = (*VALUES, *FILES, *SECRETS)
    pool: list[str] = []
    for where, codes in PLACES.items():
        for _ in range(8):
            pool = pool or chosen.sample(everything, len(everything))
            yield _line(where, pool.pop(), place), codes
        if where.endswith(SECRET_PLACES):
            secrets = SECRETS if where.endswith("key {}") else (*SECRETS, PASSPHRASE)
            for secret in secrets:
                yield _line(where, secret, place), codes
    for _ in range(FUZZ):
        where = chosen.choice(list(PLACES))
        yield _line(where, chosen.choice(everything), place), PLACES[where]


def _line(where: str, value: str, place: dict[str, str]) -> list[str]:
    if value == "fifo" and any(start in where for start in MANIFESTS):
        value = "socket"
    words = [place.get(word, word) for word in where.split()]
    return [place.get(value, value) if word == "{}" else word for word in words]


def complaint(words: list[str], codes: tuple[int, ...], secrets: list[str], tally: Tally) -> str:
    """Run a line and return what is wrong with how it ended, or nothing."""
    began = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, MOST_S)
    try:
        done = CliRunner().invoke(main, words)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    took = time.monotonic() - began
    tally.codes[int(done.exit_code)] = tally.codes.get(done.exit_code, 0) + 1
    tally.slowest = max(tally.slowest, (took, " ".join(word for word in words if len(word) < 40)))
    shown = done.stdout + done.stderr
    rows = [line.lstrip() for line in shown.splitlines()]
    complaints = {
        f"exit code {done.exit_code}, not one of {codes}": done.exit_code not in codes,
        "a traceback": "Traceback" in shown and "--debug" not in words,
        "an error of ours": "This is an error in publisher" in shown,
        "no message": not shown.strip(),
        "a secret is shown": any(secret in shown for secret in secrets),
        "control characters": not shown.replace("\n", "").replace("\t", "").isprintable(),
        "a command for a CI log": any(row.startswith("::") or "##[" in row or "##vso" in row for row in rows),
        "not one JSON document": bool("--json" in words and done.stdout) and not _is_json(done.stdout),
        "too long": len(shown) > 60_000,
        f"it took {took:.1f} s": took > MOST_S,
    }
    found = [text for text, wrong in complaints.items() if wrong]
    return f"{', '.join(found)}: {shown[:300]!r}" if found else ""


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


@pytest.mark.slow
def test_hostile_command_lines_end_well(place: dict[str, str], record_property: Callable[[str, object], None]) -> None:
    pem, body = place["PEM"], place["its body"]
    secrets = [*pem.splitlines()[1:-1], body[:40], body[-40:], PASSPHRASE, "hunter2pass"]
    tally, problems = Tally(), []
    CliRunner().invoke(main, ["membranes", "inspect", "text"])  # imports what all of them need
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    for words, codes in lines(place):
        if problem := complaint(words, codes, secrets, tally):
            problems.append(f"{[word[:80] for word in words]!a}: {problem}")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    count, (took, slowest) = sum(tally.codes.values()), tally.slowest
    record_property(
        "counted",
        f"{count} hostile command lines, exit codes {dict(sorted(tally.codes.items()))}, "
        f"slowest {took:.2f} s ({slowest!a}), {grown / 2**20:.0f} MiB more at most",
    )
    assert problems == [], "\n".join(problems)
    assert count >= 320 + FUZZ
    assert grown < MOST_BYTES
