"""The signature, the list of files, and the folder itself."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rfc8785

from publisher.errors import UsageError
from publisher.package import dsse, keys, tree
from publisher.package.layout import MAX_FINDINGS, TOTALS
from publisher.package.verify import verify
from support.evaluating import UNET, Make, codes, places, release_again, resign

CHANGED = "is not what was signed"


def test_a_good_package_verifies_and_says_what_it_is(signed: Path, public: Path) -> None:
    found = verify(signed, public)
    assert found.ok, found.findings
    assert found.summary is not None
    assert (found.summary.name, found.summary.version) == ("tiny", "1.2.0")


def test_verifying_changes_nothing(package: Path, public: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in package.rglob("*")}
    verify(package, public)
    assert {path: path.stat().st_mtime_ns for path in package.rglob("*")} == before


def test_every_single_flipped_byte_of_a_file_is_found(package: Path, public: Path) -> None:
    for path in sorted(package.rglob("*")):
        if path.is_file() and path.name != "model.sig":
            data = path.read_bytes()
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
            found = verify(package, public)
            assert [str(finding) for finding in found.findings] == [f"V010 {path.relative_to(package)}: {CHANGED}"]
            path.write_bytes(data)


def test_a_pointer_of_git_lfs_is_told_from_a_changed_file(package: Path, public: Path) -> None:
    (package / UNET).write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12\n")
    (finding,) = verify(package, public).findings
    assert str(finding).startswith(f"V010 {UNET}: is a Git LFS pointer in place of what was signed: run 'git lfs pull'")


def test_every_missing_file_is_one_finding(package: Path, public: Path) -> None:
    for path in sorted(package.rglob("*")):
        if path.is_file() and path.name != "model.sig":
            data = path.read_bytes()
            path.unlink()
            found = verify(package, public)
            assert [(finding.code.value, finding.path) for finding in found.findings] == [
                ("V011", path.relative_to(package).as_posix())
            ]
            path.write_bytes(data)


def test_what_was_not_signed_is_named_and_not_opened(
    package: Path, public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (package / "unet/more.safetensors").write_bytes(b"no weights")
    (package / "unet/more.json").write_text("no JSON")
    opened: list[str] = []
    original = tree._open_inside
    monkeypatch.setattr(tree, "_open_inside", lambda root, path: opened.append(path) or original(root, path))
    assert codes(verify(package, public)) == {"V012"}
    assert UNET in opened
    assert not {"unet/more.safetensors", "unet/more.json"} & set(opened)


@pytest.mark.parametrize(
    ("what", "most", "place"),
    [
        ("bytes", 2000, None),
        ("bytes of text", 2000, None),
        ("JSON keys and values", 30, None),
        ("lines of JSON", 0, "release/reports/evidence.cigarette.plain.jsonl"),
        ("bytes of headers", 20, UNET),
        ("tensors", 0, UNET),
    ],
)
def test_a_limit_of_all_files_together_is_named(
    signed: Path, public: Path, monkeypatch: pytest.MonkeyPatch, what: str, most: int, place: str | None
) -> None:
    monkeypatch.setitem(TOTALS, what, most)
    found = verify(signed, public)
    assert codes(found) == {"V040"}
    assert all(f"more than {most} {what}" in finding.message for finding in found.findings)
    assert place is None or places(found, "V040") == {place}


def test_links_count_as_files_and_findings_have_a_limit(
    package: Path, public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(300):
        (package / f"unet/{number}.json").symlink_to("config.json")
    found = verify(package, public)
    assert len(found.findings) == MAX_FINDINGS
    assert "101 more findings are not listed" in found.findings[-1].message
    monkeypatch.setattr("publisher.package.tree.MAX_FILES", 50)
    assert len(verify(package, public).findings) <= 52
    assert "V040" in codes(verify(package, public))


def test_any_changed_byte_of_the_signature_is_found(package: Path, public: Path) -> None:
    file = package / "model.sig"
    good = file.read_bytes()
    for position in range(0, len(good), max(1, len(good) // 60)):
        file.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
        found = verify(package, public)
        assert not found.ok
        assert found.summary is None


def test_an_added_file_is_found(package: Path, public: Path) -> None:
    (package / "unet/extra.json").write_text("{}")
    assert places(verify(package, public), "V012") == {"unet/extra.json"}


def test_a_removed_file_is_found(package: Path, public: Path) -> None:
    (package / "LICENSE").unlink()
    assert places(verify(package, public), "V011") == {"LICENSE"}


def test_a_renamed_file_is_found(package: Path, public: Path) -> None:
    (package / UNET).rename(package / "unet/other.safetensors")
    found = verify(package, public)
    assert places(found, "V011") == {UNET}
    assert places(found, "V012") == {"unet/other.safetensors"}


def test_swapped_files_are_found(package: Path, public: Path) -> None:
    one, two = package / "LICENSE", package / "README.md"
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    assert places(verify(package, public), "V010") == {"LICENSE", "README.md"}


def test_all_failures_are_collected(package: Path, public: Path) -> None:
    (package / "LICENSE").unlink()
    (package / "unet/extra.json").write_text("{}")
    (package / "README.md").write_text("x")
    assert codes(verify(package, public)) >= {"V010", "V011", "V012"}


def test_a_removed_or_empty_signature_is_found(package: Path, public: Path) -> None:
    (package / "model.sig").write_bytes(b"")
    assert codes(verify(package, public)) == {"V001"}
    (package / "model.sig").unlink()
    assert codes(verify(package, public)) == {"V001"}


@pytest.mark.parametrize(
    "data",
    [b"{", b"[]", b"\xef\xbb\xbf{}", b"{}", b'{"a": 1, "a": 2}', b'{"a": NaN}', b"[" * 100_000, b"\xff", b"1" * 10_000],
)
def test_a_malformed_signature_is_found(package: Path, public: Path, data: bytes) -> None:
    (package / "model.sig").write_bytes(data)
    assert codes(verify(package, public)) == {"V002"}


def test_a_huge_signature_is_not_read(package: Path, public: Path) -> None:
    with (package / "model.sig").open("r+b") as file:
        file.truncate(9 * 1024 * 1024)
    assert codes(verify(package, public)) == {"V040"}


def test_another_key_is_found(signed: Path, tmp_path: Path) -> None:
    keys.generate(tmp_path / "b.key", tmp_path / "b.pub", None)
    found = verify(signed, tmp_path / "b.pub")
    assert codes(found) == {"V004"}
    assert found.summary is None


def test_a_signature_under_a_false_hint_is_found(package: Path, public: Path, tmp_path: Path) -> None:
    keys.generate(tmp_path / "b.key", tmp_path / "b.pub", None)
    resign(package, tmp_path / "b.key")
    data = json.loads((package / "model.sig").read_bytes())
    data["verificationMaterial"]["publicKey"]["hint"] = keys.load_public(public).hint
    (package / "model.sig").write_text(json.dumps(data))
    assert codes(verify(package, public)) == {"V003"}


def twin(signature: bytes) -> bytes:
    """Return the other signature that ECDSA accepts for the same statement."""
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

    r, s = decode_dss_signature(signature)
    return encode_dss_signature(r, keys.CURVES["secp256r1"] - s)


def rewritten(data: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    bundle = json.loads(data)
    change(bundle)
    return rfc8785.dumps(bundle) + b"\n"


def with_twin(data: bytes) -> bytes:
    found = dsse.parse(data)
    return dsse.bundle(found.payload, twin(found.signature), found.material)


@pytest.mark.parametrize("file", ["model.sig", "release/attestations/svr.sigstore.json"])
@pytest.mark.parametrize(
    "rewrite",
    [
        lambda data: data + b"\n",
        lambda data: data[:-2] + b" " * 1_000_000 + data[-2:],
        lambda data: json.dumps(json.loads(data)).encode(),
        lambda data: rewritten(data, lambda bundle: bundle["dsseEnvelope"]["signatures"][0].update(keyid="other")),
        lambda data: rewritten(data, lambda bundle: bundle["dsseEnvelope"]["signatures"][0].pop("keyid")),
        lambda data: rewritten(data, lambda bundle: bundle["verificationMaterial"].pop("tlogEntries")),
        lambda data: rewritten(data, lambda bundle: bundle.update(more=1)),
        with_twin,
    ],
    ids=["line end", "spaces", "other json", "keyid", "no keyid", "no log", "another field", "twin signature"],
)
def test_a_bundle_can_be_written_in_one_way_only(
    package: Path, key_pair: tuple[Path, Path], file: str, rewrite: Callable[[bytes], bytes]
) -> None:
    data = (package / file).read_bytes()
    (package / file).write_bytes(rewrite(data))
    if file == "model.sig":
        assert codes(verify(package, key_pair[1])) == {"V002"}
    else:
        resign(package, key_pair[0])
        assert places(verify(package, key_pair[1]), "V030") == {file}


def test_signing_twice_gives_the_same_bytes(package: Path, key_pair: tuple[Path, Path]) -> None:
    release_again(package, key_pair[0])
    before = (package / "model.sig").read_bytes()
    release_again(package, key_pair[0])
    assert (package / "model.sig").read_bytes() == before


@pytest.mark.parametrize("key", [{}, {"hint": None}, {"hint": ""}, {"hint": 1}, None])
def test_a_signature_that_does_not_name_its_key_is_refused(package: Path, public: Path, key: object) -> None:
    data = json.loads((package / "model.sig").read_bytes())
    data["verificationMaterial"]["publicKey"] = key
    (package / "model.sig").write_text(json.dumps(data))
    assert codes(verify(package, public)) == {"V002"}


def test_the_signature_of_another_package_does_not_fit(package: Path, make: Make, public: Path) -> None:
    other = make(lambda data: data.update(version="1.3.0"))
    shutil.copy(other / "model.sig", package / "model.sig")
    assert "V010" in codes(verify(package, public))


def test_a_weak_trust_anchor_is_refused(signed: Path, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = rsa.generate_private_key(65537, 2048).public_key()
    (tmp_path / "rsa.pub").write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    assert codes(verify(signed, tmp_path / "rsa.pub")) == {"V005"}


@pytest.mark.parametrize(
    "change",
    [
        lambda statement: statement["predicate"].update(resources=[]),
        lambda statement: statement["predicate"]["serialization"].update(ignore_paths=["."]),
        lambda statement: statement["predicate"]["serialization"].update(ignore_paths=["model.sig", "unet"]),
        lambda statement: statement["predicate"]["serialization"].update(allow_symlinks=True),
        lambda statement: statement["predicate"]["serialization"].update(method="shards", shard_size=10),
        lambda statement: statement["predicate"]["resources"].append(statement["predicate"]["resources"][0]),
        lambda statement: statement["predicate"]["resources"][0].update(name="../outside"),
        lambda statement: statement["predicate"]["resources"][0].update(name="/etc/passwd"),
        lambda statement: statement["predicate"]["resources"][0].update(name="model.sig"),
        lambda statement: statement["predicate"]["resources"][0].update(algorithm="blake3"),
        lambda statement: statement.update(subject=[]),
        lambda statement: statement.update(predicateType="https://model_signing/Digests/v0.1"),
    ],
    ids=[
        "empty model",
        "ignore all",
        "ignore a folder",
        "links",
        "shards",
        "listed twice",
        "parent",
        "absolute",
        "itself",
        "blake3",
        "no subject",
        "old predicate",
    ],
)
def test_what_the_publisher_signed_must_be_acceptable(
    package: Path, key_pair: tuple[Path, Path], change: Callable[[dict[str, Any]], object]
) -> None:
    resign(package, key_pair[0], change)
    assert "V008" in codes(verify(package, key_pair[1]))


@pytest.mark.parametrize("name", [".git/hooks/x", ".gitignore", ".gitattributes", ".github/x.yaml"])
def test_git_files_are_refused_even_if_signed(package: Path, key_pair: tuple[Path, Path], name: str) -> None:
    (package / name).parent.mkdir(parents=True, exist_ok=True)
    (package / name).write_text("*.safetensors filter=lfs diff=lfs merge=lfs -text\n")
    assert codes(verify(package, key_pair[1])) == (set() if name == ".gitattributes" else {"V012"})
    resign(package, key_pair[0])
    assert "V008" in codes(verify(package, key_pair[1]))


@pytest.mark.parametrize("name", ["x.yaml", "evil.py", "unet/weights.bin", ".eval_results/x.yaml", "unet/con.json"])
def test_a_foreign_file_is_one_finding_that_says_all(package: Path, public: Path, name: str) -> None:
    (package / name).parent.mkdir(exist_ok=True)
    (package / name).write_text("{}")
    (found,) = verify(package, public).findings
    assert (found.code.value, found.path) == ("V012", name)
    assert found.message.startswith("was not signed, and ")


def test_a_card_that_was_edited_is_one_finding_that_names_the_tag(package: Path, public: Path) -> None:
    (package / "README.md").write_text("# Edited on the hub\n")
    (found,) = verify(package, public).findings
    assert found.code.value == "V010"
    assert "Edited after signing: verify the release's tag" in found.remedy


@pytest.mark.parametrize("kind", ["file", "folder", "broken", "loop"])
def test_a_symbolic_link_is_refused_and_not_followed(package: Path, public: Path, tmp_path: Path, kind: str) -> None:
    target = {"file": package / UNET, "folder": tmp_path, "broken": Path("nowhere"), "loop": package}[kind]
    (package / "unet/link.safetensors").symlink_to(target)
    assert places(verify(package, public), "V013") == {"unet/link.safetensors"}


def test_a_link_in_place_of_a_signed_file_is_refused(package: Path, public: Path, tmp_path: Path) -> None:
    (package / UNET).rename(tmp_path / "moved")
    (package / UNET).symlink_to(tmp_path / "moved")
    found = verify(package, public)
    assert places(found, "V013") == places(found, "V011") == {UNET}


def test_pipes_and_sockets_are_refused_without_waiting(package: Path, public: Path) -> None:
    os.mkfifo(package / "unet/pipe.json")
    assert places(verify(package, public), "V013") == {"unet/pipe.json"}


def test_a_hard_link_is_refused(package: Path, public: Path, tmp_path: Path) -> None:
    os.link(package / UNET, tmp_path / "outside")
    assert places(verify(package, public), "V013") == {UNET}


def test_an_empty_folder_is_refused(package: Path, public: Path) -> None:
    (package / "unet/empty").mkdir()
    assert places(verify(package, public), "V012") == {"unet/empty"}


@pytest.mark.parametrize(
    "name", ["a\u202eb.json", "a\x1b[31m.json", "\u00e9.json", "e\u0301.json", "a\nb.json", "a:b.json"]
)
def test_odd_names_are_refused_and_escaped(package: Path, key_pair: tuple[Path, Path], name: str) -> None:
    (package / "unet" / name).write_text("{}")
    found = verify(package, key_pair[1])
    assert places(found, "V012") == {f"unet/{name}"}
    assert all(str(finding).isprintable() for finding in found.findings)


def test_names_that_differ_by_case_collide(package: Path, key_pair: tuple[Path, Path]) -> None:
    shutil.copy(package / "unet/config.json", package / "unet/Config.json")
    if len(list((package / "unet").iterdir())) < 3:
        pytest.skip("this file system cannot tell them apart")
    resign(package, key_pair[0])
    assert "V015" in codes(verify(package, key_pair[1]))


def test_too_many_or_too_deep_is_refused(package: Path, public: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = package / "/".join("d" * 12)
    deep.mkdir(parents=True)
    (deep / "x.json").write_text("{}")
    assert "V040" in codes(verify(package, public))
    monkeypatch.setattr("publisher.package.tree.MAX_FILES", 5)
    assert "V040" in codes(verify(package, public))


@pytest.mark.parametrize(
    ("name", "lowest", "good"),
    [
        ("tiny", "1.2.0", True),
        (None, "1.1", True),
        ("other", None, False),
        (None, "1.2.1", False),
        ("tiny", "10", False),
    ],
)
def test_another_name_or_an_older_version_is_refused(
    signed: Path, public: Path, name: str | None, lowest: str | None, *, good: bool
) -> None:
    found = verify(signed, public, expect_name=name, min_version=lowest)
    assert codes(found) == (set() if good else {"V033"})


def test_a_version_that_cannot_be_compared_is_not_new_enough(make: Make, public: Path) -> None:
    package = make(lambda data: data.update(version="spring"))
    assert verify(package, public).ok
    assert codes(verify(package, public, min_version="1.0")) == {"V033"}


def test_a_file_that_changes_during_the_verification_is_found(
    package: Path, public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from publisher.package import verify as module

    def change(*args: Any) -> Any:
        (package / UNET).write_bytes((package / UNET).read_bytes())
        return original(*args)

    original = module.check_content
    monkeypatch.setattr(module, "check_content", change)
    assert places(verify(package, public), "V016") == {UNET}


@pytest.mark.parametrize("missing", ["folder", "key", "version"])
def test_what_cannot_be_read_is_a_usage_error(signed: Path, public: Path, tmp_path: Path, missing: str) -> None:
    with pytest.raises(UsageError):
        verify(
            tmp_path / "none" if missing == "folder" else signed,
            tmp_path / "none" if missing == "key" else public,
            min_version="new" if missing == "version" else None,
        )


def test_the_library_must_agree(package: Path, public: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from model_signing import verifying

    def refuse(*_args: object) -> None:
        raise LookupError("odd")

    monkeypatch.setattr(verifying.Config, "verify", refuse)
    assert codes(verify(package, public)) == {"V002"}
