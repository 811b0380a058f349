"""``publisher push`` with the real client on a hub of this machine: what arrives, what is refused, and each fault."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from publisher.cli import main
from publisher.package.verify import verify
from support.fake_hub import ATTRIBUTES, TOKEN, Answer, FakeHub

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])
NAME = "acme/tiny"
UNET = "unet/model.safetensors"
Push = Callable[..., Result]
TRANSPORT = "httpcore2"
"""Logger of the raw headers that come and go, for whoever debugs the transport; the program never turns it on."""


@pytest.fixture
def push(hub: FakeHub, package: Path, public: Path, caplog: pytest.LogCaptureFixture) -> Push:
    """Push the good package; whatever happens, the token is nowhere."""

    def call(*words: str, key: Path = public) -> Result:
        with caplog.at_level(logging.DEBUG):
            result = CliRunner().invoke(main, ["push", str(package), NAME, "--key", str(key), *words])
        said = [result.output, str(result.exception or ""), *(path.read_text() for path in records(package))]
        logged = "\n".join(one.getMessage() for one in caplog.records if one.name.split(".")[0] != TRANSPORT)
        assert not [
            text for text in (*said, logged) if TOKEN in text or base64.b64encode(TOKEN.encode()).decode() in text
        ]
        return result

    return call


def records(package: Path) -> list[Path]:
    return [path for path in package.parent.rglob("*push.json") if package not in path.parents]


def record(package: Path) -> dict[str, object]:
    (path,) = records(package)
    found: dict[str, object] = json.loads(path.read_bytes())
    return found


def held(hub: FakeHub, revision: str = "main") -> dict[str, bytes]:
    """Return the files of the repository, without what every repository has."""
    repository = hub.repositories[NAME]
    files = repository.commits[str(repository.resolve(revision))]
    return {path: data for path, data in files.items() if path != ".gitattributes"}


def test_a_push_is_one_commit_that_is_compared_tagged_and_noted(
    push: Push, hub: FakeHub, package: Path, contents: dict[str, bytes]
) -> None:
    result = push("--gated", "manual")
    assert result.exit_code == 0, result.output
    repository = hub.repositories[NAME]
    assert held(hub) == contents
    assert "Warning" not in result.stderr
    assert len(repository.commits) == 2
    assert repository.tags == {"v1.2.0": repository.branches["main"]}
    assert repository.settings == {"private": True, "gated": "manual"}
    assert hub.count("GET", "/resolve/") == hub.count("HEAD") == 0
    noted = record(package)
    assert (noted["commit"], noted["tag"]) == (repository.branches["main"], "v1.2.0")
    assert str(records(package)[0]).endswith("tiny-1.2.0.push.json")
    assert f"hf:{NAME}@v1.2.0" in result.stdout


def test_a_push_is_noted_in_the_report_folder_where_there_is_one(push: Push, package: Path) -> None:
    reports = package.with_name(f"{package.name}.report")
    reports.mkdir()
    result = push("--json")
    assert json.loads(result.stdout) == json.loads((reports / "push.json").read_bytes())
    assert records(package) == [reports / "push.json"]


def test_the_folder_one_stands_in_can_be_pushed(
    hub: FakeHub, package: Path, public: Path, contents: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(package)
    assert CliRunner().invoke(main, ["push", ".", NAME, "--key", str(public)]).exit_code == 0
    assert held(hub) == contents
    assert len(records(package)) == 1


def test_pushing_again_sends_nothing_and_makes_no_commit(push: Push, hub: FakeHub) -> None:
    assert push().exit_code == 0
    uploads, commits = hub.count("PUT", "/blobs/"), hub.count("POST", "/commit/")
    again = push("--public")
    assert again.exit_code == 0
    assert "Nothing is new" in again.stderr
    assert (hub.count("PUT", "/blobs/"), hub.count("POST", "/commit/")) == (uploads, commits)
    assert hub.repositories[NAME].settings["private"] is False


def test_a_package_that_does_not_verify_is_not_sent(push: Push, hub: FakeHub, package: Path) -> None:
    (package / "LICENSE").write_text("Do not.\n")
    result = push()
    assert result.exit_code == 1
    assert "V010 LICENSE" in result.stderr
    assert not hub.asked


def test_hub_files_beside_the_package_are_not_sent(push: Push, hub: FakeHub, package: Path) -> None:
    (package / ".gitattributes").write_bytes(ATTRIBUTES)
    (package / ".cache/huggingface").mkdir(parents=True)
    (package / ".cache/huggingface/x").write_text("x")
    assert push().exit_code == 0
    assert not any(path.startswith(".") for path in held(hub))


def test_a_pull_request_changes_no_branch_and_sets_no_tag(
    push: Push, hub: FakeHub, package: Path, contents: dict[str, bytes]
) -> None:
    before = hub.make(NAME).branches["main"]
    result = push("--pr")
    assert result.exit_code == 0, result.output
    repository = hub.repositories[NAME]
    assert (repository.branches["main"], repository.tags) == (before, {})
    assert held(hub, "refs/pr/1") == contents
    assert (record(package)["pull_request"], record(package)["tag"]) == (1, None)
    repository.branches["main"] = repository.branches["refs/pr/1"]
    assert "Nothing is new" in push("--pr").stderr
    assert repository.tags == {}
    assert push().exit_code == 0
    assert repository.tags == {"v1.2.0": repository.branches["main"]}


def test_another_branch_must_be_there(push: Push, hub: FakeHub, contents: dict[str, bytes]) -> None:
    repository = hub.make(NAME)
    assert push("--revision", "next").exit_code == 2
    repository.branches["next"] = repository.branches["main"]
    assert push("--revision", "next", "--no-tag").exit_code == 0
    assert (held(hub), held(hub, "next"), repository.tags) == ({}, contents, {})


def test_foreign_files_forbid_the_push_and_prune_deletes_them(
    push: Push, hub: FakeHub, contents: dict[str, bytes]
) -> None:
    repository = hub.make(NAME, {"old.bin": b"x", "unet/config.json": b"{}"})
    before = dict(repository.branches)
    result = push()
    assert result.exit_code == 1
    assert "old.bin" in result.stderr
    assert repository.branches == before
    assert push("--prune").exit_code == 0
    assert held(hub) == contents
    assert ".gitattributes" in repository.commits[repository.branches["main"]]


def test_results_of_others_are_never_deleted(push: Push, hub: FakeHub) -> None:
    repository = hub.make(NAME, {".eval_results/x.yaml": b"a: 1\n"})
    before = dict(repository.branches)
    result = push("--prune")
    assert result.exit_code == 1
    assert ".eval_results/x.yaml" in result.stderr
    assert repository.branches == before


def test_a_dry_run_says_what_would_be_done_and_changes_nothing(push: Push, hub: FakeHub, package: Path) -> None:
    new = json.loads(push("--dry-run", "--json").stdout)
    assert (new["parent"], len(new["added"]), new["tag"]) == (None, new["files"], "v1.2.0")
    assert hub.repositories == {}
    repository = hub.make(NAME, {"old.bin": b"x"})
    result = push("--dry-run", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["foreign"] == ["old.bin"]
    pruned = push("--dry-run", "--prune")
    assert pruned.exit_code == 0
    assert "1 files to delete: old.bin" in pruned.stdout
    assert len(repository.commits) == 2
    assert not [one for one in hub.asked if not one.startswith("GET")]
    assert not records(package)


def test_a_tag_at_other_files_is_refused_before_anything_is_sent(push: Push, hub: FakeHub) -> None:
    repository = hub.make(NAME, {"README.md": b"# Another\n"})
    repository.tags["v1.2.0"] = repository.branches["main"]
    result = push()
    assert result.exit_code == 1
    assert "the tag v1.2.0 is at commit" in result.stderr
    assert hub.count("POST", "/commit/") == 0
    assert push("--tag", "v1.2.0-b").exit_code == 0
    assert repository.tags["v1.2.0-b"] == repository.branches["main"]


def test_a_tag_at_the_same_files_stays_where_it_is(push: Push, hub: FakeHub, contents: dict[str, bytes]) -> None:
    assert push().exit_code == 0
    repository = hub.repositories[NAME]
    first = repository.branches["main"]
    repository.commit({".gitattributes": ATTRIBUTES, **contents, "README.md": b"# Edited\n"})
    assert push().exit_code == 0
    assert held(hub) == contents
    assert (repository.tags["v1.2.0"], len(repository.commits)) == (first, 4)


def test_a_tag_that_comes_meanwhile_is_compared(push: Push, hub: FakeHub) -> None:
    repository = hub.make(NAME)
    elsewhere = repository.branches["main"]

    def overtake(method: str, path: str) -> None:
        if method == "POST" and "/tag/" in path:
            repository.tags.setdefault("v1.2.0", elsewhere)

    hub.faults.append(overtake)
    result = push()
    assert result.exit_code == 1
    assert f"is at commit {elsewhere}" in result.stderr
    repository.tags["v1.2.0"] = repository.branches["main"]
    assert push().exit_code == 0


def test_a_failure_of_a_blob_is_tried_again_at_once(push: Push, hub: FakeHub, contents: dict[str, bytes]) -> None:
    hub.once("PUT", "/blobs/", Answer(500, {"error": f"no {TOKEN}"}))
    assert push().exit_code == 0
    assert held(hub) == contents


def test_after_a_failure_of_the_commit_no_blob_is_sent_again(push: Push, hub: FakeHub, package: Path) -> None:
    hub.once("POST", "/commit/", Answer(503, {"error": f"busy {TOKEN}"}))
    result = push("--debug")
    assert result.exit_code == 3
    assert "(503)" in result.stderr
    assert not records(package)
    uploads = hub.count("PUT", "/blobs/")
    assert uploads > 0
    assert push().exit_code == 0
    assert hub.count("PUT", "/blobs/") == uploads


def test_a_lost_race_is_refused_and_the_next_push_wins(push: Push, hub: FakeHub, contents: dict[str, bytes]) -> None:
    repository = hub.make(NAME)

    def overtake(method: str, path: str) -> None:
        if method == "POST" and "/commit/" in path and len(repository.commits) == 1:
            repository.commit({".gitattributes": ATTRIBUTES, "README.md": b"# First\n"})

    hub.faults.append(overtake)
    result = push("--debug")
    assert result.exit_code == 1
    assert "another commit came to main meanwhile" in result.stderr
    assert held(hub) == {"README.md": b"# First\n"}
    assert push().exit_code == 0
    assert held(hub) == contents


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("part", ["/api/repos/create", "/preupload/", "/commit/", "/tag/", "/settings"])
def test_without_the_right_it_is_exit_2(push: Push, hub: FakeHub, status: int, part: str) -> None:
    denied = Answer(status, {"error": f"no right for {TOKEN}"}, {"X-Error-Message": f"no {TOKEN}"})
    hub.faults.append(lambda _method, path: denied if part in path else None)
    result = push("--gated", "auto", "--debug")
    assert result.exit_code == 2, result.output
    assert f"({status})" in result.stderr
    assert "hf auth login" in result.stderr


def test_refused_metadata_is_exit_2_before_anything_is_sent(push: Push, hub: FakeHub) -> None:
    refused = Answer(400, {"errors": [{"message": f"license must be one of {TOKEN}"}], "warnings": []})
    hub.faults.append(lambda _method, path: refused if path == "/api/validate-yaml" else None)
    result = push("--debug")
    assert result.exit_code == 2
    assert "Invalid metadata in README.md. - license must be one of [not shown]" in result.stderr
    assert hub.count("PUT", "/blobs/") == hub.count("POST", "/commit/") == 0


def test_warnings_of_the_hub_are_shown_without_the_token(push: Push, hub: FakeHub) -> None:
    warned = Answer(200, {"errors": [], "warnings": [{"message": f"empty or missing, {TOKEN}"}]})
    hub.faults.append(lambda _method, path: warned if path == "/api/validate-yaml" else None)
    result = push()
    assert result.exit_code == 0
    assert "empty or missing, [not shown]" in result.stderr


@pytest.mark.parametrize("path", ["README.md", UNET])
def test_a_hub_that_holds_something_else_is_exit_3_without_a_tag(push: Push, hub: FakeHub, path: str) -> None:
    digests = {"oid": "0" * 40, "lfs": {"oid": "0" * 64, "size": 1, "pointerSize": 1}}
    hub.listed = lambda entries: [
        {**one, **{key: digests[key] for key in one.keys() & digests.keys()}} if one["path"] == path else one
        for one in entries
    ]
    result = push()
    assert result.exit_code == 3
    assert f"something else than the package: {path}" in result.stderr
    assert hub.repositories[NAME].tags == {}


def test_an_unreachable_hub_is_exit_3(push: Push, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    result = push("--debug")
    assert result.exit_code == 3
    assert "the hub did not make the repository" in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["--pr", "--tag", "x"],
        ["--tag", "../x"],
        ["--tag", "a", "--no-tag"],
        ["--pr", "--revision", "x"],
        ["--revision", "../x"],
    ],
)
def test_a_malformed_name_is_exit_2_without_asking(push: Push, hub: FakeHub, words: list[str]) -> None:
    assert push(*words).exit_code == 2
    assert not hub.asked


@pytest.mark.parametrize("name", ["tiny", "a/b/c", "../tiny", "acme/ti ny", "-a/b"])
def test_a_malformed_repository_is_exit_2(hub: FakeHub, package: Path, public: Path, name: str) -> None:
    result = CliRunner().invoke(main, ["push", "--key", str(public), str(package), "--", name])
    assert result.exit_code == 2
    assert not hub.asked


def test_the_key_beside_the_package_is_taken_and_without_one_nothing_is_sent(
    hub: FakeHub, package: Path, public: Path
) -> None:
    words = ["push", str(package), NAME]
    result = CliRunner().invoke(main, words)
    assert (result.exit_code, hub.asked) == (2, [])
    assert "--key" in result.stderr
    package.with_name(f"{package.name}.pub").write_bytes(public.read_bytes())
    assert CliRunner().invoke(main, words).exit_code == 0


def test_an_open_repository_is_gated_before_the_files_are_there(push: Push, hub: FakeHub) -> None:
    hub.make(NAME)
    assert push("--gated", "auto").exit_code == 0
    changed = [one for one in hub.asked if not one.startswith(("GET", "HEAD"))]
    settings = next(number for number, one in enumerate(changed) if "/settings" in one)
    commit = next(number for number, one in enumerate(changed) if "/commit/" in one)
    assert settings < commit


def test_what_was_pushed_verifies_when_it_is_fetched(push: Push, hub: FakeHub, public: Path) -> None:
    from publisher.hub.fetch import locate

    assert push().exit_code == 0
    assert verify(locate(f"hf:{NAME}@v1.2.0").path, public).ok
    assert hub.count("GET", "/resolve/") > 0
