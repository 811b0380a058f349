from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from publisher.errors import ExitCode
from publisher.package import keys


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    keys.generate(tmp_path / "k.key", tmp_path / "k.pub", None)
    return tmp_path / "k.key", tmp_path / "k.pub"


def write_key(folder: Path, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> Path:
    private, public = folder / "w.key", folder / "w.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    private.chmod(0o600)
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private


def test_a_pair_belongs_together_and_only_the_owner_reads_the_private_half(pair: tuple[Path, Path]) -> None:
    private, public = pair
    assert private.stat().st_mode & 0o777 == 0o600
    assert keys.load_private(private).public.hint == keys.load_public(public).hint


def test_nothing_is_overwritten(pair: tuple[Path, Path], tmp_path: Path) -> None:
    before = pair[0].read_bytes()
    with pytest.raises(keys.KeyFileError, match="there already"):
        keys.generate(pair[0], tmp_path / "new.pub", None)
    with pytest.raises(keys.KeyFileError, match="there already"):
        keys.generate(tmp_path / "new.key", pair[1], None)
    assert pair[0].read_bytes() == before
    assert not (tmp_path / "new.key").exists()
    assert not (tmp_path / "new.pub").exists()


def test_no_private_key_is_left_when_the_public_one_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(keys.KeyFileError, match="cannot be written"):
        keys.generate(tmp_path / "k.key", tmp_path / f"{'n' * 300}.pub", None)
    assert not (tmp_path / "k.key").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644, 0o666])
def test_a_private_key_that_others_can_reach_is_refused(pair: tuple[Path, Path], mode: int) -> None:
    pair[0].chmod(mode)
    with pytest.raises(keys.KeyFileError, match="by others") as caught:
        keys.load_private(pair[0])
    assert "chmod 600" in str(caught.value)
    assert caught.value.exit_code == ExitCode.USAGE


def test_a_private_key_behind_a_link_is_refused(pair: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "link.key").symlink_to(pair[0])
    with pytest.raises(keys.KeyFileError, match="must not be a link"):
        keys.load_private(tmp_path / "link.key")


def test_a_folder_a_missing_file_and_something_else_are_no_keys(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    (tmp_path / "text").chmod(0o600)
    (tmp_path / "large").write_bytes(b"x" * (keys.MAX_KEY_BYTES + 1))
    (tmp_path / "large").chmod(0o600)
    expected = {".": "regular file", "missing": "cannot be opened", "text": "in PEM", "large": "too large"}
    for name, words in expected.items():
        with pytest.raises(keys.KeyFileError, match=words):
            keys.load_private(tmp_path / name)
        with pytest.raises(keys.KeyFileError, match=words):
            keys.load_public(tmp_path / name)


def test_a_passphrase_protects_the_key(tmp_path: Path) -> None:
    keys.generate(tmp_path / "k.key", tmp_path / "k.pub", b"secret")
    assert b"ENCRYPTED" in (tmp_path / "k.key").read_bytes()
    assert keys.load_private(tmp_path / "k.key", b"secret").public.hint == keys.load_public(tmp_path / "k.pub").hint
    with pytest.raises(keys.KeyFileError, match="is encrypted"):
        keys.load_private(tmp_path / "k.key")
    with pytest.raises(keys.KeyFileError, match="passphrase is wrong"):
        keys.load_private(tmp_path / "k.key", b"other")


def test_a_passphrase_for_an_open_key_is_an_error(pair: tuple[Path, Path]) -> None:
    with pytest.raises(keys.KeyFileError, match="is not encrypted"):
        keys.load_private(pair[0], b"secret")


def test_other_kinds_and_curves_are_refused(tmp_path: Path) -> None:
    for key in (
        ec.generate_private_key(ec.SECP256K1()),
        rsa.generate_private_key(65537, 2048),
        ed25519.Ed25519PrivateKey.generate(),
    ):
        private = write_key(tmp_path, key)
        with pytest.raises(keys.WeakKeyError, match="P-256"):
            keys.load_private(private)
        with pytest.raises(keys.WeakKeyError, match="P-256"):
            keys.load_public(tmp_path / "w.pub")


def test_a_private_key_is_no_trust_anchor(pair: tuple[Path, Path]) -> None:
    with pytest.raises(keys.KeyFileError, match="is a private key"):
        keys.load_public(pair[0])


def test_a_key_prints_neither_itself_nor_its_passphrase(tmp_path: Path) -> None:
    keys.generate(tmp_path / "k.key", tmp_path / "k.pub", b"secret")
    shown = repr(keys.load_private(tmp_path / "k.key", b"secret"))
    assert "secret" not in shown
    assert "PrivateKey object" not in shown
