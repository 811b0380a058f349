"""A model hub in memory on this machine's loopback: enough of it for the real client to create, commit, tag and fetch.

What a test wants to go wrong is put into ``faults``: a function that sees each request first, and may answer it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import RLock, Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

ATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n*.png filter=lfs diff=lfs merge=lfs -text\n"
TOKEN = "hf_" + "Tt0kEnTh4tN0b0dyM4ySee" * 2
LARGE = (".safetensors", ".png")
PAGE = 50
"""Entries of one page of a listing."""


@dataclass
class Answer:
    """What the hub says to a request."""

    status: int = 200
    data: Any = None
    """JSON, or bytes."""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Repository:
    """Commits with their files, branches, tags and settings."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    pull_requests: int = 0

    def commit(self, files: Mapping[str, bytes], branch: str = "main") -> str:
        """Add a commit on a branch, and return its name."""
        name = hashlib.sha1(f"{len(self.commits)}{sorted(files)}".encode(), usedforsecurity=False).hexdigest()
        self.commits[name] = dict(files)
        self.branches[branch] = name
        return name

    def resolve(self, revision: str) -> str | None:
        """Return the commit of a branch, a tag or a commit."""
        for names in (self.branches, self.tags, {one: one for one in self.commits}):
            if revision in names:
                return names[revision]
        return None


Fault = Callable[[str, str], Answer | None]


@dataclass
class FakeHub:
    """The hub."""

    address: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    """sha256 -> content of large files that were uploaded."""
    asked: list[str] = field(default_factory=list)
    """Every request: method and path."""
    faults: list[Fault] = field(default_factory=list)
    """Each sees method and path of a request, and answers it or not."""
    listed: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = lambda entries: entries
    """Changes what a listing says."""
    headers: Callable[[str, dict[str, str]], dict[str, str]] = lambda _path, headers: headers
    """Changes the headers of a file."""
    content: Callable[[str, bytes], bytes] = lambda _path, data: data
    """Changes what a file is sent as."""
    lock: RLock = field(default_factory=RLock)

    def make(self, name: str, files: Mapping[str, bytes] | None = None) -> Repository:
        """Add a repository, which begins with a system commit of ``.gitattributes``."""
        found = self.repositories[name] = Repository(settings={"private": False, "gated": False})
        found.commit({".gitattributes": ATTRIBUTES})
        if files is not None:
            found.commit({".gitattributes": ATTRIBUTES, **files})
        return found

    def once(self, method: str, part: str, answer: Answer) -> None:
        """Answer the next request of this method whose path has this part, and no later one."""
        left = [answer]
        self.faults.append(lambda verb, path: left.pop() if left and verb == method and part in path else None)

    def count(self, method: str, part: str = "") -> int:
        """Return how many requests there were."""
        return sum(one.startswith(f"{method} ") and part in one for one in self.asked)

    def answer(self, method: str, target: str, body: bytes) -> Answer:
        """Answer a request."""
        parts = urlsplit(target)
        path, query = unquote(parts.path), parse_qs(parts.query)
        with self.lock:
            self.asked.append(f"{method} {path}")
            for fault in self.faults:
                if (found := fault(method, path)) is not None:
                    return found
            for verb, pattern, handler in ROUTES:
                match = re.fullmatch(pattern, path)
                if method == verb and match:
                    return handler(self, query=query, body=body, **match.groupdict())
        return Answer(404, {"error": "no such route"}, {"X-Error-Code": "EntryNotFound"})

    def create(self, *, query: Any, body: bytes) -> Answer:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.repositories:
            return Answer(409, {"error": "You already created this model repo", "url": f"{self.address}/{name}"})
        self.make(name).settings["private"] = asked.get("visibility") == "private"
        return Answer(data={"url": f"{self.address}/{name}"})

    def validate(self, *, query: Any, body: bytes) -> Answer:
        return Answer(data={"errors": [], "warnings": []})

    def info(self, *, name: str, revision: str = "main", query: Any, body: bytes) -> Answer:
        if name not in self.repositories:
            return Answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        commit = self.repositories[name].resolve(revision)
        if commit is None:
            return Answer(404, {"error": f"Invalid rev id: {revision}"}, {"X-Error-Code": "RevisionNotFound"})
        files = self.repositories[name].commits[commit]
        siblings = [{"rfilename": path} for path in files]
        return Answer(data={"id": name, "sha": commit, "siblings": siblings, **self.repositories[name].settings})

    def preupload(self, *, name: str, revision: str, query: Any, body: bytes) -> Answer:
        commit = self.repositories[name].resolve(revision)
        if commit is None:
            return Answer(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
        there = self.repositories[name].commits[commit]
        files = [
            {
                "path": one["path"],
                "uploadMode": "lfs" if one["path"].endswith(LARGE) else "regular",
                "shouldIgnore": False,
                "oid": _oid(one["path"], there[one["path"]]) if one["path"] in there else None,
            }
            for one in json.loads(body)["files"]
        ]
        return Answer(data={"files": files})

    def batch(self, *, name: str, query: Any, body: bytes) -> Answer:
        objects = []
        for one in json.loads(body)["objects"]:
            upload = {"actions": {"upload": {"href": f"{self.address}/blobs/{one['oid']}"}}}
            objects.append({**one, **({} if one["oid"] in self.blobs else upload)})
        return Answer(data={"transfer": "basic", "objects": objects})

    def upload(self, *, oid: str, query: Any, body: bytes) -> Answer:
        if hashlib.sha256(body).hexdigest() != oid:
            return Answer(400, {"error": "another digest"})
        self.blobs[oid] = body
        return Answer(data={})

    def commit(self, *, name: str, revision: str, query: Any, body: bytes) -> Answer:
        repository = self.repositories[name]
        lines = [json.loads(line) for line in body.splitlines()]
        header = lines[0]["value"]
        parent = header.get("parentCommit")
        if parent is not None and parent != repository.resolve(revision):
            return Answer(412, {"error": "A commit has happened since. Please refresh and try again."})
        files = dict(repository.commits[str(repository.resolve(revision))])
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.blobs[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        branch, url = revision, None
        if query.get("create_pr"):
            repository.pull_requests += 1
            branch = f"refs/pr/{repository.pull_requests}"
            url = f"{self.address}/{name}/discussions/{repository.pull_requests}"
        made = repository.commit(files, branch)
        where = f"{self.address}/{name}/commit/{made}"
        return Answer(data={"commitOid": made, "commitUrl": where, "pullRequestUrl": url})

    def tree(self, *, name: str, revision: str, query: Any, body: bytes) -> Answer:
        commit = self.repositories[name].resolve(revision) if name in self.repositories else None
        if commit is None:
            return Answer(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
        files = self.repositories[name].commits[commit]
        entries = self.listed([_entry(path, files[path]) for path in sorted(files)])
        start = int(query.get("cursor", ["0"])[0])
        link = f'<{self.address}/api/models/{name}/tree/{revision}?cursor={start + PAGE}&recursive=true>; rel="next"'
        more = {"Link": link} if start + PAGE < len(entries) else {}
        return Answer(data=entries[start : start + PAGE], headers=more)

    def tag(self, *, name: str, revision: str, query: Any, body: bytes) -> Answer:
        repository, tag = self.repositories[name], json.loads(body)["tag"]
        if tag in repository.tags:
            return Answer(409, {"error": "Tag reference exists already"})
        repository.tags[tag] = str(repository.resolve(revision))
        return Answer(data={})

    def settle(self, *, name: str, query: Any, body: bytes) -> Answer:
        asked = json.loads(body)
        visibility = asked.pop("visibility", None)
        private = {} if visibility is None else {"private": visibility == "private"}
        self.repositories[name].settings |= {**asked, **private}
        return Answer(data={})

    def refs(self, *, name: str, query: Any, body: bytes) -> Answer:
        if name not in self.repositories:
            return Answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        repository = self.repositories[name]

        def listed(names: Mapping[str, str], kind: str) -> list[dict[str, str]]:
            return [{"name": one, "ref": f"refs/{kind}/{one}", "targetCommit": names[one]} for one in names]

        branches = {one: commit for one, commit in repository.branches.items() if not one.startswith("refs/")}
        return Answer(
            data={"branches": listed(branches, "heads"), "tags": listed(repository.tags, "tags"), "converts": []}
        )

    def file(self, *, name: str, revision: str, path: str, query: Any, body: bytes) -> Answer:
        if name not in self.repositories:
            return Answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        commit = self.repositories[name].resolve(revision)
        if commit is None:
            return Answer(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
        files = self.repositories[name].commits[commit]
        if path not in files:
            return Answer(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        etag = _oid(path, files[path])
        data = self.content(path, files[path])
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": commit, "X-Linked-Size": str(len(data))}
        if path.endswith(LARGE):
            headers["X-Linked-Etag"] = f'"{etag}"'
        return Answer(data=data, headers=self.headers(path, headers))


_NAME = r"(?P<name>[\w.-]+/[\w.-]+)"
ROUTES: tuple[tuple[str, str, Callable[..., Answer]], ...] = (
    ("POST", "/api/repos/create", FakeHub.create),
    ("POST", "/api/validate-yaml", FakeHub.validate),
    ("GET", f"/api/models/{_NAME}", FakeHub.info),
    ("GET", f"/api/models/{_NAME}/revision/(?P<revision>.+)", FakeHub.info),
    ("GET", f"/api/models/{_NAME}/refs", FakeHub.refs),
    ("GET", f"/api/models/{_NAME}/tree/(?P<revision>.+)", FakeHub.tree),
    ("POST", f"/api/models/{_NAME}/preupload/(?P<revision>.+)", FakeHub.preupload),
    ("POST", f"/{_NAME}.git/info/lfs/objects/batch", FakeHub.batch),
    ("PUT", "/blobs/(?P<oid>[0-9a-f]{64})", FakeHub.upload),
    ("POST", f"/api/models/{_NAME}/commit/(?P<revision>.+)", FakeHub.commit),
    ("POST", f"/api/models/{_NAME}/tag/(?P<revision>.+)", FakeHub.tag),
    ("PUT", f"/api/models/{_NAME}/settings", FakeHub.settle),
    ("HEAD", f"/{_NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", FakeHub.file),
    ("GET", f"/{_NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", FakeHub.file),
)


def git_sha1(data: bytes) -> str:
    """Return the name that git gives to a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _oid(path: str, data: bytes) -> str:
    return hashlib.sha256(data).hexdigest() if path.endswith(LARGE) else git_sha1(data)


def _entry(path: str, data: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": git_sha1(data)}
    if path.endswith(LARGE):
        entry["lfs"] = {"oid": _oid(path, data), "size": len(data), "pointerSize": 134}
    return entry


@contextmanager
def running() -> Iterator[FakeHub]:
    """Run a hub on the loopback until the block ends."""
    hub = FakeHub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Log nothing."""

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            answer = hub.answer(self.command, self.path, body)
            data = answer.data if isinstance(answer.data, bytes) else json.dumps(answer.data).encode()
            self.send_response(answer.status)
            kind = "application/octet-stream" if isinstance(answer.data, bytes) else "application/json"
            for name, value in {"content-type": kind, "content-length": str(len(data)), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_HEAD = do_POST = do_PUT = _serve  # noqa: N815 - the names that the library calls

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def serving(folder: Path, repository: str, commit: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the address of a hub with a folder as one commit, and the files that were sent, which grows meanwhile."""
    start, sent = f"/{repository}/resolve/{commit}/", list[str]()

    def note(method: str, path: str) -> None:
        if method == "GET" and path.startswith(start):
            sent.append(path.removeprefix(start))

    with running() as hub:
        files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        hub.make(repository).commits[commit] = {name: path.read_bytes() for name, path in files.items()}
        hub.faults.append(note)
        yield hub.address, sent
