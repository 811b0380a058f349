"""What leaves the process: results alone on stdout, and no text that could do harm."""

from __future__ import annotations

import ast
import io
import json
import os
import re
import subprocess
import sys
import textwrap
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
from click.testing import CliRunner

from publisher.api import Origin
from publisher.cli import main, output, plan
from publisher.cli.console import Terminal
from publisher.cli.output import Clean, clean
from publisher.package import keys
from publisher.registry import Broken, Registry, load_registry

ROOT = Path(__file__).parents[3]
QUICKSTART = ROOT / "manifests" / "quickstart.yaml"
EVIL = "\x1b[2J\n::error::owned \u202e ##vso[task.setvariable]x\r"
NOISY = """
    import atexit, os, subprocess, sys
    from publisher import api

    print("by print")
    os.write(1, b"by descriptor\\n")
    subprocess.run([sys.executable, "-c", "print('by a child')"], check=True)
    sys.__stdout__.write("by the first stdout\\n")
    sys.__stdout__.flush()
    atexit.register(print, "at the end")

    class Loud(api.Executor):
        \"\"\"Loud.\"\"\"
        name, version = "loud", "1"
        summary = "\\x1b[2J\\n::error::owned \\u202e ##vso[task.setvariable]x\\r"
        def map(self, function, tasks): pass

    @api.hookimpl
    def publisher_register_executors(): return [Loud]
"""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain \u00e9\u4e2d\u3000\U0001f355", "plain \u00e9\u4e2d\u3000\U0001f355"),
        ("\u0645\u06cc\u200c\u062e\n\tx", "\u0645\u06cc\u200c\u062e\n\tx"),
        ("\x1b[31mred\x07\x7f\x9b", "\\x1b[31mred\\x07\\x7f\\x9b"),
        ("a\u202eb\u2066\u2028\ufeff\U000e0041", "a\\u202eb\\u2066\\u2028\\ufeff\\U000e0041"),
        ("\udcff.safetensors", "\\udcff.safetensors"),
        ("ok\r::error::x", "ok\\r::error::x"),
        ("::error::x\n  ::add-mask::y\na::b", "\\x3a:error::x\n  \\x3a:add-mask::y\na::b"),
        ("x ##[error]y ##vso[a]z ##teamcity[b] ## [c]", "x \\x23#[error]y \\x23#vso[a]z \\x23#teamcity[b] ## [c]"),
    ],
)
def test_text_that_could_do_harm_is_written_out(text: str, shown: str) -> None:
    assert clean(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("-----BEGIN EC PRIVATE KEY-----\nMHcC+/=\n-----END EC PRIVATE KEY-----: x", "[not shown]: x"),
        ("'-----BEGIN PRIVATE KEY-----\\nMIGH\\n-----END PRIVATE KEY-----'", "'[not shown]'"),
        ("-----BEGIN PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA", "[not shown]"),
        ("LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0t/x", "[not shown]"),
        (f"MIGHAgEAMBMGByqG{'A' * 100}==.", "[not shown]."),
        (f"hf_{'a' * 34}: no", "[not shown]: no"),
        ("ftp://me:pass@host/x and http://host:80/a@b", "ftp:/[not shown]@host/x and http://host:80/a@b"),
        ("-----BEGIN PUBLIC KEY-----", "-----BEGIN PUBLIC KEY-----"),
    ],
)
def test_what_is_a_secret_by_its_form_is_not_shown(text: str, shown: str) -> None:
    assert clean(text) == shown


def test_endless_text_is_cut_in_time() -> None:
    assert len(clean("-----BEGIN PRIVATE KEY-----::\x1b://a:" * 100_000)) < 12 * output.LONGEST


def test_a_hidden_secret_is_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "_hidden", set())
    output.hide("hunter22")
    output.hide("short")
    assert clean("it was hunter22, in short") == "it was [not shown], in short"


def test_bars_of_libraries_may_go_back_and_other_writers_may_not() -> None:
    seen = io.StringIO()
    stream = Clean(seen)
    for text in ("\rloading 3/4", "\x1b[A\x1b[A", "a\rb", "\x1b[A\x1b[2Jx"):
        stream.write(text)
    assert seen.getvalue() == "\rloading 3/4\x1b[A\x1b[Aa\\rb\\x1b[A\\x1b[2Jx"


def test_bars_show_foreign_names_and_prints_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Screen()
    monkeypatch.setattr(sys, "stderr", Clean(screen))
    monkeypatch.setenv("TERM", "xterm")
    with Terminal() as terminal:
        terminal.update(f"[/x] {EVIL}", 1, 2, f"[red] {EVIL}")
        sys.stdout.write(f"a plugin {EVIL}\n")
        terminal.warn(EVIL)
    shown = screen.getvalue()
    assert "[/x] \\x1b[2J\\n::error::owned \\u202e" in shown
    assert "a plugin \\x1b[2J" in shown
    assert not [mark for mark in ("\x1b[2J", "\n::error", "\u202e", "##vso") if mark in shown]


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment with a plugin that prints wherever it can."""
    site = tmp_path_factory.mktemp("site")
    (site / "noisy.py").write_text(textwrap.dedent(NOISY))
    info = site / "noisy-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: noisy\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[publisher]\nnoisy = noisy\n")
    return os.environ | {"PYTHONPATH": str(site)}


def test_stdout_is_the_result_alone_whoever_prints(noisy: dict[str, str]) -> None:
    words = [sys.executable, "-m", "publisher", "plugins", "--json"]
    done = subprocess.run(words, env=noisy, capture_output=True, text=True, check=True)
    (loud,) = [one for one in json.loads(done.stdout)["plugins"] if one["name"] == "loud"]
    assert loud["summary"] == EVIL
    assert "##" not in done.stdout
    lines = ["at the end", "by a child", "by descriptor", "by print", "by the first stdout"]
    assert sorted(done.stderr.splitlines()) == lines


def test_a_full_disk_behind_stdout_is_no_success(noisy: dict[str, str]) -> None:
    with Path("/dev/full").open("w") as full:
        words = [sys.executable, "-m", "publisher", "plugins"]
        done = subprocess.run(words, env=noisy, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, "cannot be written to stdout: No space left" in done.stderr) == (3, True)


def test_texts_of_plugins_reach_the_terminal_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    good = load_registry()
    origin = Origin(distribution=EVIL, version="1", module=EVIL)
    entry = replace(good.get("executor", "local"), name=EVIL, summary=EVIL, origin=origin)
    registry = Registry((), (entry, entry), (Broken(EVIL, origin, EVIL),))
    monkeypatch.setattr(import_module("publisher.cli.plugins"), "load_registry", lambda: registry)
    for words in (["plugins"], ["plugins", "show", EVIL], ["plugins", "show", "nothing"]):
        result = CliRunner().invoke(main, words)
        shown = result.stdout + result.stderr
        assert not {"\x1b", "\r", "\u202e"} & set(shown)
        assert not [line for line in shown.splitlines() if line.lstrip().startswith("::") or "##" in line]


def test_the_plan_says_what_was_set_aside_and_refuses_a_name_of_two_origins(monkeypatch: pytest.MonkeyPatch) -> None:
    good = load_registry()
    origin = Origin(distribution="thief", version="1", module="thief")
    broken = Broken("bad", origin, f"ImportError: {EVIL}")
    monkeypatch.setattr(
        import_module("publisher.release.prepare"),
        "load_registry",
        lambda: Registry((), good.contributions, (broken,)),
    )
    data = json.loads(CliRunner().invoke(main, ["plan", str(QUICKSTART), "--json"]).stdout)
    assert [(one["plugin"], one["reason"]) for one in data["set_aside"]] == [("bad", f"ImportError: {EVIL}")]
    text = plan.as_text(data)
    assert "\nplugins\n  set aside: bad (thief of thief): ImportError: \\x1b[2J\\n::error::owned \\u202e" in text
    for kind, name in (("step", "erase"), ("metric", "concept-rate"), ("report_format", "html"), ("executor", "local")):
        twice = (*good.contributions, replace(good.get(kind, name), origin=origin))
        monkeypatch.setattr(
            import_module("publisher.release.prepare"), "load_registry", lambda twice=twice: Registry((), twice, ())
        )
        result = CliRunner().invoke(main, ["plan", str(QUICKSTART)])
        assert (result.exit_code, result.stdout) == (2, "")
        assert f"{kind.replace('_', ' ')} '{name}' is provided by" in result.stderr
        assert "thief of thief" in result.stderr


def test_the_schema_leaves_out_what_two_plugins_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    good = load_registry()
    entries = (*good.contributions, good.get("step", "erase"), good.get("scorer", "emoji"))
    monkeypatch.setattr(import_module("publisher.registry"), "load_registry", lambda: Registry((), entries, ()))
    result = CliRunner().invoke(main, ["schema", "manifest"])
    names = json.loads(result.stdout)["$defs"]["StepEntry"]["properties"]["use"]["enum"]
    assert ("erase" in names, "immunize" in names) == (False, True)


def test_a_traceback_shows_foreign_text_written_out() -> None:
    shown = CliRunner().invoke(main, ["plan", f"nowhere {EVIL}", "--debug"]).stderr
    assert "Traceback" in shown
    assert not {"\x1b", "\r", "\u202e"} & set(shown)
    assert not [line for line in shown.splitlines() if line.lstrip().startswith("::") or "##vso" in line]


def test_every_command_prints_through_the_one_way_out() -> None:
    found = []
    for path in sorted((ROOT / "publisher").rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(source if re.search("print|echo|std", source) else "")):
            name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if path.parent.name == "testing":
                continue  # prints in a process of its own, whose answer a test reads
            if name in {"print", "click.echo", "click.secho", "sys.stdout.write", "sys.stderr.write"}:
                found.append(path.name)
    assert set(found) == {"output.py"}


@pytest.fixture
def signed_by(tmp_path: Path) -> Path:
    """A manifest that names the variables of its key and passphrase."""
    manifest = tmp_path / "m.yaml"
    manifest.write_text(f"{QUICKSTART.read_text()}\nsign: {{key_env: THE_KEY, passphrase_env: THE_PASS}}\n")
    return manifest


SECRET = "correct-horse-battery"


@pytest.mark.parametrize("holds", ["pem", "one line", "base64 body", SECRET, "/dev/null", "x" * 5000])
def test_the_variable_of_the_key_is_never_shown(
    tmp_path: Path, signed_by: Path, monkeypatch: pytest.MonkeyPatch, holds: str
) -> None:
    keys.generate(tmp_path / "k.key", tmp_path / "k.pub", None)
    pem = (tmp_path / "k.key").read_text()
    body = "".join(pem.splitlines()[1:-1])
    value = {"pem": pem, "one line": pem.replace("\n", "\\n"), "base64 body": body}.get(holds, holds)
    monkeypatch.setenv("THE_KEY", value)
    monkeypatch.setenv("THE_PASS", SECRET)
    for words in (["--debug"], []):
        result = CliRunner().invoke(main, ["release", str(signed_by), "--out", str(tmp_path / "out"), *words])
        assert (result.exit_code, "does not hold the path of a key file" in result.stderr) == (2, True)
        assert not [part for part in (value, pem, body[:40], body[-40:], SECRET) if part in result.output]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["release", "keygen"])
def test_a_passphrase_given_in_place_of_its_variable_is_not_shown(
    tmp_path: Path, signed_by: Path, command: str
) -> None:
    keys.generate(tmp_path / "k.key", tmp_path / "k.pub", None)
    words = {"release": [str(signed_by), "--key", str(tmp_path / "k.key")], "keygen": ["--name", "other"]}[command]
    for extra in (["--passphrase-env", SECRET], [f"--passphrase-env={SECRET}", "--debug"], [SECRET, SECRET]):
        result = CliRunner().invoke(main, [command, *words, "--out", str(tmp_path), *extra])
        assert (result.exit_code, SECRET in result.output) == (2, False)


def test_a_key_in_place_of_its_path_is_not_shown(tmp_path: Path, signed_by: Path) -> None:
    keys.generate(tmp_path / "k.key", tmp_path / "k.pub", None)
    pem = (tmp_path / "k.key").read_text()
    for words in (["release", str(signed_by), "--key", pem], ["verify", str(tmp_path), "--key", pem], ["plan", pem]):
        result = CliRunner().invoke(main, [*words, "--debug"])
        assert (result.exit_code, result.stdout) == (2, "")
        assert pem.splitlines()[1][:20] not in result.stderr
