"""Files over HTTP on this machine, with Range, and with faults to order; and a hub that huggingface_hub talks to."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "somebody/tiny-lstm"


@dataclass(frozen=True)
class Request:
    path: str
    range: str | None
    token: str | None
    host: str


@dataclass
class Site:
    """What is served, what was asked for, and what goes wrong."""

    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    # How many bytes each of the next responses of a file brings before the connection breaks.
    breaks: dict[str, list[int]] = field(default_factory=dict)
    etags: bool = True
    ranges: bool = True
    error_headers: dict[str, str] = field(default_factory=dict)
    url: str = ""

    def asked(self, part: str = "") -> list[str]:
        """The paths asked for that contain `part`."""
        return [request.path for request in self.requests if part in request.path]

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = unquote(urlsplit(handler.path).path)
        headers = handler.headers
        self.requests.append(Request(path, headers["Range"], headers["Authorization"], headers["Host"]))
        if path in self.redirects:
            handler.send_response(302)
            handler.send_header("Location", self.redirects[path])
            handler.send_header("Content-Length", "0")
            handler.end_headers()
        elif path in self.statuses or path not in self.files:
            handler.send_response(self.statuses.get(path, 404))
            for name, value in self.error_headers.items():
                handler.send_header(name, value)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
        else:
            self._send(handler, path, self.files[path])

    def _send(self, handler: BaseHTTPRequestHandler, path: str, content: bytes) -> None:
        etag = f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'
        wanted = handler.headers["Range"]
        same = handler.headers["If-Range"] in (None, etag)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.ranges and same else 0
        if start and start >= len(content):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(content)}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if self.etags:
            handler.send_header("ETag", etag)
        handler.send_header("Content-Length", str(len(content) - start))
        handler.end_headers()
        pending = self.breaks.get(path)
        with suppress(ConnectionError):  # of a client that has seen enough
            handler.wfile.write(content[start : start + pending.pop(0)] if pending else content[start:])
        handler.close_connection = True


@contextmanager
def running(site: Site) -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        site.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield site
        server.shutdown()
        thread.join()


def publish(
    site: Site, files: Mapping[str, bytes], repository: str = REPOSITORY, commit: str = COMMIT, revision: str = "main"
) -> None:
    """Put `files` on `site` as a model of the hub; what is large there has a SHA-256, the rest a git SHA-1."""
    siblings: list[dict[str, object]] = []
    for name, content in files.items():
        sibling: dict[str, object] = {"rfilename": name, "size": len(content)}
        sibling["blobId"] = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        if name.endswith((".onnx", ".pt", ".data")):
            sha256 = hashlib.sha256(content).hexdigest()
            sibling["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 130}
        siblings.append(sibling)
        site.files[f"/{repository}/resolve/{commit}/{name}"] = content
    info = json.dumps({"id": repository, "sha": commit, "siblings": siblings, "tags": [], "downloads": 0}).encode()
    for name in (revision, commit):
        site.files[f"/api/models/{repository}/revision/{name}"] = info


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}
