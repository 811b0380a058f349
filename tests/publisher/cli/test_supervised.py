"""A command that something else ends is never a success; signals and exit codes go through the parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

HEAD = """
import os, signal, sys, time
from publisher.cli import interrupts
from publisher.cli.supervised import supervised
def program():
    interrupts.listen()
"""


def script(tmp_path: Path, *lines: str) -> list[str]:
    path = tmp_path / "program.py"
    path.write_text(HEAD + "".join(f"    {line}\n" for line in lines) + "sys.exit(supervised(program))\n")
    return [sys.executable, str(path)]


@pytest.mark.parametrize("code", [0, 4])
def test_what_the_command_says_is_the_exit_code(tmp_path: Path, code: int) -> None:
    assert subprocess.run(script(tmp_path, f"sys.exit({code})"), timeout=60, check=False).returncode == code


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("os._exit(0)", "with exit code 0, by a plugin or a library"),
        ("os.execv('/bin/true', ['true'])", "with exit code 0, by a plugin or a library"),
        ("import ctypes; ctypes.CDLL(None).exit(0)", "with exit code 0, by a plugin or a library"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "by SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "by SIGKILL"),
    ],
)
def test_whatever_else_ends_the_process_could_not_decide(tmp_path: Path, line: str, message: str) -> None:
    done = subprocess.run(script(tmp_path, line), capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, f"the command was ended {message}" in done.stderr) == (3, True), done.stderr
    assert "the same command resumes" in done.stderr


WAITING = (
    "try:",
    "    print(os.getpid(), flush=True)",
    "    time.sleep(60)",
    "except BaseException as error:",
    "    time.sleep(0.3)",
    "    print(type(error).__name__, flush=True)",
    "    sys.exit(130 if isinstance(error, KeyboardInterrupt) else 143)",
)


@pytest.mark.parametrize("group", [False, True])
@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "KeyboardInterrupt"), (15, 143, "Terminated")]
)
def test_a_signal_arrives_once_whether_it_is_sent_to_the_parent_or_to_the_group(
    tmp_path: Path, number: int, code: int, word: str, *, group: bool
) -> None:
    command = script(tmp_path, *WAITING)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (os.killpg if group else os.kill)(process.pid, number)
        assert (process.wait(60), process.stdout.read().split()) == (code, [word])


def test_the_child_does_not_outlive_its_parent(tmp_path: Path) -> None:
    command = script(tmp_path, "print(os.getpid(), flush=True)", "time.sleep(60)")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        process.kill()
        assert process.stdout.read() == ""  # until the child's end of it is closed, too
    for _ in range(100):
        if not Path(f"/proc/{child}").exists() or "zombie" in Path(f"/proc/{child}/status").read_text():
            return
        time.sleep(0.05)
    pytest.fail("the child is still there")


def test_a_plugin_that_ends_the_process_when_it_is_imported_is_no_success(tmp_path: Path) -> None:
    about = tmp_path / "leaves-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: leaves\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[publisher]\nleaves = leaves\n")
    (tmp_path / "leaves.py").write_text("import os\nos._exit(0)\n")
    paths = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "publisher", "plugins", "--json"]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert "by a plugin or a library" in done.stderr
