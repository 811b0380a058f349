"""Packages by their names on the hub: what a name stands for, what is fetched, and which answers are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import publisher
from publisher.auditing import audit
from publisher.builtin.sources import Hub
from publisher.cli import main
from publisher.errors import ExitCode, HostileHubError, PublisherError, UsageError
from publisher.hub.errors import HubRefusedError, HubUnreachableError
from publisher.hub.fetch import locate
from publisher.loading import NotVerifiedError
from publisher.model.inputs import locate_input
from publisher.package.verify import verify
from support.fake_hub import TOKEN, Answer, FakeHub, Repository

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])
NAME = "acme/tiny"


@pytest.fixture
def repository(hub: FakeHub, contents: dict[str, bytes]) -> Repository:
    """The good package on the hub, with a tag."""
    found = hub.make(NAME, contents)
    found.tags["v1.2.0"] = found.branches["main"]
    return found


def test_a_commit_and_a_tag_are_fetched_and_verify(repository: Repository, public: Path, hub: FakeHub) -> None:
    commit = repository.branches["main"]
    by_tag = locate(f"hf:{NAME}@v1.2.0")
    assert str(by_tag) == f"hf:{NAME}@v1.2.0, commit {commit}"
    assert verify(by_tag.path, public).findings == ()
    asked = hub.count("GET", "/resolve/")
    by_commit = locate(Path(f"hf:{NAME}@{commit}"))
    assert (by_commit.path, str(by_commit)) == (by_tag.path, f"hf:{NAME}@{commit}")
    assert hub.count("GET", "/resolve/") == asked


def test_a_folder_stays_a_folder_and_asks_no_hub(tmp_path: Path) -> None:
    found = locate(tmp_path)
    assert (found.path, found.repository, str(found)) == (tmp_path, "", str(tmp_path))


@pytest.mark.parametrize("name", ["hf:tiny", "hf:acme/tiny", "hf:acme/tiny@", "hf:acme/../x@v1", "hf:acme/tiny@../x"])
def test_a_malformed_name_is_refused_without_asking(hub: FakeHub, name: str) -> None:
    with pytest.raises(UsageError, match="no package of the hub"):
        locate(name)
    assert not hub.asked


def test_a_branch_is_refused_with_the_commit_that_it_is_at(repository: Repository) -> None:
    with pytest.raises(UsageError, match=f"branch(.|\n)*{repository.branches['main']}"):
        locate(f"hf:{NAME}@main")


def test_an_unknown_tag_names_those_that_there_are(repository: Repository) -> None:
    with pytest.raises(HubRefusedError, match=r"no such tag(.|\n)*v1\.2\.0"):
        locate(f"hf:{NAME}@v2")


def test_an_unknown_repository_is_a_usage_error(hub: FakeHub) -> None:
    with pytest.raises(HubRefusedError, match=r"did not list the tags \(404\)"):
        locate("hf:acme/none@v1")


def test_a_commit_in_the_cache_needs_no_hub(repository: Repository, hub: FakeHub, public: Path) -> None:
    name = f"hf:{NAME}@{repository.branches['main']}"
    first = locate(name)
    hub.faults.append(lambda _method, _path: Answer(503, {"error": "down"}))
    assert locate(name).path == first.path
    with pytest.raises(HubUnreachableError, match="503"):
        locate(f"hf:{NAME}@{'0' * 40}")
    assert verify(first.path, public).ok


def test_what_came_after_the_release_is_a_finding(repository: Repository, public: Path) -> None:
    edited = {**repository.commits[repository.branches["main"]], "README.md": b"# Edited\n"}
    changed = repository.commit({**edited, ".eval_results/x.yaml": b"a: 1\n"})
    found = verify(locate(f"hf:{NAME}@{changed}").path, public)
    assert {one.path: one.code.value for one in found.findings} == {".eval_results/x.yaml": "V012", "README.md": "V010"}


@pytest.mark.parametrize(
    "path",
    ["../outside", "unet/../../../outside", "/etc/passwd", "a//b", "unet/./x", "a\\..\\b", "x\u202e", "x" * 500],
)
def test_a_listing_with_a_path_that_leads_elsewhere_is_refused(
    repository: Repository, hub: FakeHub, path: str, tmp_path: Path
) -> None:
    hub.listed = lambda entries: [*entries, {**entries[0], "path": path}]
    with pytest.raises(HostileHubError) as caught:
        locate(f"hf:{NAME}@{repository.branches['main']}")
    assert caught.value.exit_code == ExitCode.REFUSED
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"size": 1 << 50}, "more than 1099511627776 bytes"),
        ({"size": -1}, "without its size"),
        ({"oid": "../../../x"}, "without its digest"),
        ({"lfs": {"oid": "x", "size": 1, "pointerSize": 1}}, "without its digest"),
    ],
)
def test_a_listing_that_cannot_be_true_is_refused(
    repository: Repository, hub: FakeHub, change: dict[str, Any], match: str
) -> None:
    hub.listed = lambda entries: [{**entries[0], **change}, *entries[1:]]
    with pytest.raises(HostileHubError, match=match):
        locate(f"hf:{NAME}@{repository.branches['main']}")


def test_a_huge_listing_is_not_read_to_its_end(
    repository: Repository, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("publisher.hub.client.MAX_FILES", 120)
    hub.listed = lambda entries: [{**entries[0], "path": f"x{number}"} for number in range(100_000)]
    with pytest.raises(HostileHubError, match="more than 120 files"):
        locate(f"hf:{NAME}@{repository.branches['main']}")
    assert hub.count("GET", "/tree/") <= 3


def test_a_file_of_another_digest_is_a_finding(repository: Repository, hub: FakeHub, public: Path) -> None:
    hub.content = lambda path, data: data[:-1] + b"?" if path == "unet/model.safetensors" else data
    found = verify(locate(f"hf:{NAME}@v1.2.0").path, public)
    assert {one.path: one.code.value for one in found.findings} == {"unet/model.safetensors": "V010"}


DOORS: dict[str, Callable[[str], object]] = {
    "package": locate,
    "base model": lambda name: Hub().fetch(name, Path()),
    "weights of a plugin": lambda name: locate_input(name, Path(), "the scorer", fetch=True),
}


@pytest.mark.parametrize("header", ["ETag", "X-Linked-Etag", "X-Repo-Commit"])
@pytest.mark.parametrize("door", DOORS)
def test_a_header_that_names_a_file_elsewhere_is_refused(
    repository: Repository, hub: FakeHub, header: str, door: str, tmp_path: Path
) -> None:
    hub.headers = lambda _path, headers: {**headers, header: "../../../../outside"}
    with pytest.raises(HostileHubError, match=header):
        DOORS[door](f"hf:{NAME}@{repository.branches['main']}")
    assert not list(tmp_path.rglob("outside*"))


def test_a_commit_that_is_none_is_refused(repository: Repository) -> None:
    repository.commits["../x"] = {}
    repository.tags["v2"] = "../x"
    with pytest.raises(HostileHubError, match="a commit that is none"):
        locate(f"hf:{NAME}@v2")


def test_the_token_is_in_no_error(hub: FakeHub) -> None:
    hub.make(NAME)
    for status in (400, 401, 403, 500):
        hub.faults = [lambda _method, _path, status=status: Answer(status, {"error": f"no {TOKEN}"})]  # type: ignore[misc]
        with pytest.raises(PublisherError) as caught:
            locate(f"hf:{NAME}@v1")
        assert TOKEN not in str(caught.value)
        assert caught.value.__suppress_context__


def test_verify_says_which_commit_a_tag_is(repository: Repository, public: Path) -> None:
    commit = repository.branches["main"]
    words = ["verify", f"hf:{NAME}@v1.2.0", "--hub", "--key", str(public)]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    assert f"  hf:{NAME}@v1.2.0, commit {commit}\n" in result.stdout
    data = json.loads(CliRunner().invoke(main, [*words, "--json"]).stdout)
    assert data["hub"] == {"repository": NAME, "revision": "v1.2.0", "commit": commit}


def test_load_guard_and_audit_take_a_package_of_the_hub_and_refuse_a_changed_one(
    repository: Repository, hub: FakeHub, public: Path, tmp_path: Path
) -> None:
    hub.content = lambda path, data: data + b" " if path == "unet/config.json" else data
    name = f"hf:{NAME}@v1.2.0"
    for ask in (
        lambda: publisher.load(name, verify_key=public),
        lambda: publisher.guard(None, name, verify_key=public),
        lambda: audit(tmp_path, name, public),
    ):
        with pytest.raises(NotVerifiedError, match=r"V010 unet/config\.json"):
            ask()
    with pytest.raises(UsageError, match="not used without its publisher's key"):
        publisher.load(name, verify_key=None)
