from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from publisher.cli import main
from publisher.package import keys


def call(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def test_verify_says_what_was_verified(signed: Path, public: Path) -> None:
    result = call("verify", signed, "--key", public)
    assert result.exit_code == 0
    assert result.stdout.startswith("Verified: tiny 1.2.0, decision passed\n")
    assert "passed: cigarette is not generated (in-weights)" in result.stdout
    assert result.stderr == ""


def test_verify_lists_every_failure_with_its_code(package: Path, public: Path) -> None:
    (package / "LICENSE").unlink()
    (package / "unet/a\x1b[2Jb.json").write_text("{}")
    result = call("verify", package, "--key", public)
    assert result.exit_code == 1
    assert "V011 LICENSE: was signed and is not there" in result.stdout
    assert "V012 unet/a\\x1b[2Jb.json" in result.stdout
    assert "\x1b" not in result.stdout


def test_verify_gives_one_json_document(package: Path, public: Path) -> None:
    good = json.loads(call("verify", package, "--key", public, "--json").stdout)
    assert good["verified"]
    assert good["release"]["name"] == "tiny"
    (package / "model.sig").unlink()
    result = call("verify", package, "--key", public, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["findings"][0] | {"message": ""} == {
        "code": "V001",
        "meaning": "There is no signature",
        "path": "model.sig",
        "message": "",
    }


def test_without_a_trust_anchor_there_is_no_answer(signed: Path) -> None:
    result = call("verify", signed)
    assert result.exit_code == 2
    assert "--key" in result.stderr
    assert result.stdout == ""


def test_the_anchor_can_come_from_the_environment(signed: Path, public: Path) -> None:
    result = CliRunner().invoke(main, ["verify", str(signed)], env={"PUBLISHER_PUBLIC_KEY": str(public)})
    assert result.exit_code == 0


@pytest.mark.parametrize("what", ["folder", "key"])
def test_what_cannot_be_read_is_exit_2(signed: Path, public: Path, tmp_path: Path, what: str) -> None:
    folder = tmp_path / "none" if what == "folder" else signed
    key = tmp_path / "none" if what == "key" else public
    result = call("verify", folder, "--key", key)
    assert result.exit_code == 2
    assert "Error: " in result.stderr


def test_a_crash_is_exit_3(signed: Path, public: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("publisher.package.verify.check_content", lambda *_: 1 / 0)
    result = call("verify", signed, "--key", public)
    assert result.exit_code == 3
    assert result.stdout == ""


def test_name_and_version_can_be_asked_for(signed: Path, public: Path) -> None:
    assert call("verify", signed, "--key", public, "--name", "tiny", "--min-version", "1.0").exit_code == 0
    result = call("verify", signed, "--key", public, "--name", "other", "--min-version", "2.0")
    assert result.exit_code == 1
    assert result.stdout.count("V033") == 2


def test_keygen_makes_a_pair_and_says_what_to_do_next(tmp_path: Path) -> None:
    result = call("keygen", "--out", tmp_path / "keys", "--name", "mine")
    assert result.exit_code == 0
    assert (tmp_path / "keys/mine.key").stat().st_mode & 0o777 == 0o600
    assert keys.load_public(tmp_path / "keys/mine.pub").hint in result.stdout
    assert "publisher verify PACKAGE --key" in result.stderr


def test_keygen_never_overwrites(tmp_path: Path) -> None:
    assert call("keygen", "--out", tmp_path).exit_code == 0
    before = (tmp_path / "publisher.key").read_bytes()
    result = call("keygen", "--out", tmp_path)
    assert result.exit_code == 2
    assert "there already" in result.stderr
    assert (tmp_path / "publisher.key").read_bytes() == before


def test_keygen_takes_the_passphrase_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call("keygen", "--out", tmp_path, "--passphrase-env", "NO_SUCH_VARIABLE").exit_code == 2
    assert not any(tmp_path.iterdir())
    monkeypatch.setenv("MY_PASSPHRASE", "secret")
    result = call("keygen", "--out", tmp_path, "--passphrase-env", "MY_PASSPHRASE")
    assert result.exit_code == 0
    assert "secret" not in result.output
    assert keys.load_private(tmp_path / "publisher.key", b"secret")


def test_keygen_refuses_a_name_that_is_a_path(tmp_path: Path) -> None:
    assert call("keygen", "--out", tmp_path / "keys", "--name", "../mine").exit_code == 2
    assert not any(tmp_path.iterdir())
