"""Just enough of a model hub, on this machine, to fetch one repository from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlparse


@contextmanager
def serving(folder: Path, repository: str, commit: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the hub's address, and the files that were sent, which grows while the block runs."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    sent: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Log nothing."""

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            path = unquote(urlparse(self.path).path)
            if path.startswith(f"/api/models/{repository}/tree/{commit}"):
                tree = [
                    {"type": "file", "path": name, "size": file.stat().st_size, "oid": "0" * 40}
                    for name, file in files.items()
                ]
                return self._send(json.dumps(tree).encode(), {"content-type": "application/json"}, body=body)
            name = path.removeprefix(f"/{repository}/resolve/{commit}/")
            if name not in files:
                self.send_error(404)
                return None
            data = files[name].read_bytes()
            sent.extend([name] if body else [])
            digest = hashlib.sha256(data).hexdigest()
            return self._send(data, {"etag": f'"{digest}"', "x-repo-commit": commit}, body=body)

        def _send(self, data: bytes, headers: dict[str, str], *, body: bool) -> None:
            self.send_response(200)
            for key, value in {**headers, "content-length": str(len(data))}.items():
                self.send_header(key, value)
            self.end_headers()
            if body:
                self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", sent
    finally:
        server.shutdown()
        server.server_close()
