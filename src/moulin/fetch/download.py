"""Download of one file over HTTP, which resumes an interrupted attempt and keeps only a complete and correct file.

huggingface_hub can download too, but since 1.x it restarts an interrupted file in the next process, and nearly all of a
model is one file.
"""

from __future__ import annotations

import http.client
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from moulin.errors import first_line
from moulin.fetch.digest import Digest
from moulin.fetch.errors import FetchError, Unreachable, size_text
from moulin.fetch.progress import Progress, silent
from moulin.quoting import cut, quoted

_PIECE = 1 << 18
_TIMEOUT_SEC = 30.0
# A broken connection is reopened as long as each one brought some bytes.
_MOST_CONNECTIONS = 20
_GO_ON = "run the same command again: it continues where it stopped"
_CONTENT_RANGE = re.compile(r"(?a)bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)")
_LENGTH = re.compile(r"(?a)\d{1,18}")
MOST_BYTES = 1 << 36
"""The limit on a file whose server does not say how long it is."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file at `url`, with its size and digest if known. `name` is for messages."""

    url: str
    name: str
    size: int | None = None
    digest: Digest | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def download(remote: RemoteFile, to: Path, progress: Progress = silent) -> int:
    """Download `remote` to `to`, in an existing folder; returns the bytes received. Raises FetchError.

    Bytes received stay in `<name>.part` beside it, and the next call requests only the rest. Does nothing where `to`
    exists already.
    """
    if to.is_file():
        return 0
    part = to.with_name(f"{to.name}.part")
    received = 0
    for _ in range(_MOST_CONNECTIONS):
        came, complete = _one_connection(remote, part, progress)
        received += came
        if complete or not came:
            break
    if not complete:
        raise _ended_early(remote, part)
    _check(remote, part)
    _origin(part).unlink(missing_ok=True)
    part.rename(to)
    return received


def _one_connection(remote: RemoteFile, part: Path, progress: Progress) -> tuple[int, bool]:
    """Append the bytes of one request to `part`; returns their number, and whether the file is complete."""
    have = _usable(remote, part)
    if remote.size is not None and have == remote.size:
        part.touch()
        return 0, True
    try:
        response = _open(remote, part, have)
    except _NothingMore:
        return 0, True
    with response:
        have, total = _where_it_starts(remote, part, response, have)
        if total is not None:
            _expect_room(part.parent, remote, total - have)
        _remember_origin(part, response)
        came = 0
        broke = False
        progress(remote.name, have, total)
        with part.open("r+b" if part.exists() else "wb") as file:
            file.truncate(have)
            file.seek(have)
            try:
                for piece in _pieces(response):
                    if have + came + len(piece) > (remote.size if remote.size is not None else MOST_BYTES):
                        raise FetchError(f"{_host(remote.url)} sends more of {cut(remote.name)} than it can have")
                    file.write(piece)
                    came += len(piece)
                    progress(remote.name, have + came, total)
            except _ConnectionBroke:
                broke = True
    return came, not broke and (total is None or have + came >= total)


class _NothingMore(Exception):
    """The server has no bytes beyond those received."""


class _ConnectionBroke(Exception):
    """The connection broke before the announced end of the response."""


def _usable(remote: RemoteFile, part: Path) -> int:
    """Bytes of an earlier attempt to keep: all if they are certainly of the same file, else 0."""
    if not part.exists():
        return 0
    have = part.stat().st_size
    same = remote.digest is not None or _origin(part).is_file()
    return have if same and (remote.size is None or have <= remote.size) else 0


def _open(remote: RemoteFile, part: Path, have: int) -> HTTPResponse:
    headers = {"Accept-Encoding": "identity", "User-Agent": "moulin", **remote.headers}
    if have:
        headers["Range"] = f"bytes={have}-"
        if _origin(part).is_file():
            headers["If-Range"] = _origin(part).read_text()
    try:
        opened = _opener().open(urllib.request.Request(remote.url, headers=headers), timeout=_TIMEOUT_SEC)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416 and have:
                if _total_of(error.headers) in (None, have):
                    raise _NothingMore from None
                _discard(part)
                return _open(remote, part, 0)
            raise _refused(remote, error.code, error.reason) from None
    except urllib.error.URLError as error:
        raise _unreachable(remote.url, error.reason) from None
    except (OSError, http.client.HTTPException) as error:
        raise _unreachable(remote.url, error) from None
    except ValueError as error:  # an address that is none, perhaps one that a server redirects to
        raise FetchError(
            f"{cut(remote.name)} cannot be fetched: {cut(first_line(error), 200)}", hint="check the address"
        ) from None
    if not isinstance(opened, HTTPResponse):
        raise FetchError(f"{_host(remote.url)} redirects {cut(remote.name)} to something else than a web server")
    return opened


def _where_it_starts(remote: RemoteFile, part: Path, response: HTTPResponse, have: int) -> tuple[int, int | None]:
    """The first byte of the response within the file, and the length of the whole file if known."""
    if response.status == 206:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != have:
            _discard(part)
            raise FetchError(
                f"{_host(remote.url)} sent another part of {remote.name} than requested", hint="fetch it again"
            )
        total = None if match[2] == "*" else int(match[2])
    else:
        have = 0
        length = response.headers.get("Content-Length")
        total = int(length) if length is not None and _LENGTH.fullmatch(length) else None
    if None not in (total, remote.size) and total != remote.size:
        raise FetchError(
            f"Expected {remote.name} to have {remote.size:,} bytes, got {total:,} from {_host(remote.url)}",
            hint="a proxy may have answered in its place",
        )
    return have, total if total is not None else remote.size


def _pieces(response: HTTPResponse) -> Iterator[bytes]:
    """The bytes of a response. http.client does not report an end before the announced length."""
    while True:
        try:
            piece = response.read(_PIECE)
        except http.client.IncompleteRead as error:
            yield error.partial
            raise _ConnectionBroke from None
        except (OSError, http.client.HTTPException):
            raise _ConnectionBroke from None
        if not piece:
            return
        yield piece


def _check(remote: RemoteFile, part: Path) -> None:
    size = part.stat().st_size
    if remote.size is not None and size != remote.size:
        _discard(part)
        raise FetchError(f"Expected {remote.name} to have {remote.size:,} bytes, got {size:,}", hint="fetch it again")
    if remote.digest is not None and (got := remote.digest.of(part)) != remote.digest.value:
        _discard(part)
        raise FetchError(
            f"Expected {remote.name} to have the checksum {remote.digest.value}, got {got}",
            hint="it was damaged in transit, or is another file than expected; fetch it again",
        )


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _origin(part).unlink(missing_ok=True)


def _origin(part: Path) -> Path:
    """The file that records which version of the remote file `part` belongs to, as a value for If-Range."""
    return part.with_name(f"{part.name}.origin")


def _remember_origin(part: Path, response: HTTPResponse) -> None:
    etag = response.headers.get("ETag", "")
    validator = response.headers.get("Last-Modified") if etag.startswith("W/") or not etag else etag
    if validator and validator.isascii() and validator.isprintable():
        _origin(part).write_text(validator)
    else:
        _origin(part).unlink(missing_ok=True)


def _total_of(headers: HTTPMessage | Any) -> int | None:
    _, _, total = str(headers.get("Content-Range", "")).rpartition("/")
    return int(total) if _LENGTH.fullmatch(total) else None


def _expect_room(folder: Path, remote: RemoteFile, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise FetchError(
            f"Expected {size_text(needed)} for {remote.name} on the disk of {folder}, got {size_text(free)}",
            hint=f"make room, or set XDG_CACHE_HOME to a larger disk; then {_GO_ON}",
        )


def _ended_early(remote: RemoteFile, part: Path) -> FetchError:
    have = part.stat().st_size if part.exists() else 0
    wanted = f"{remote.size:,} bytes" if remote.size is not None else "all"
    return FetchError(f"Expected {wanted} of {remote.name}, got {have:,} before the connection broke", hint=_GO_ON)


def _refused(remote: RemoteFile, status: int, reason: str) -> FetchError:
    where, reason = _host(remote.url), cut(reason)
    if status in (401, 403):
        return FetchError(
            f"{where} does not give {remote.name} to everybody ({status} {reason})",
            hint="on the Hugging Face hub, accept the model's conditions in a browser and set HF_TOKEN",
        )
    if status in (404, 410):
        return FetchError(f"There is no {remote.name} at {remote.url.partition('#')[0]}", hint="check the address")
    busy = status == 429 or status >= 500
    return FetchError(
        f"{where} answers {status} {reason} for {remote.name}", hint=f"later, {_GO_ON}" if busy else "check the address"
    )


def _unreachable(url: str, why: object) -> Unreachable:
    return Unreachable(
        f"Cannot reach {_host(url)}: {cut(str(why), 200)}", hint=f"check the network or the proxy; then {_GO_ON}"
    )


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]


class _KeepsSecrets(urllib.request.HTTPRedirectHandler):
    """Drops the token on redirects to another host: the hub redirects to a content network, which must not get it.

    Follows no redirect to something else than a web server, or from HTTPS to HTTP.
    """

    def http_error_302(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage
    ) -> Any:
        try:
            return super().http_error_302(req, fp, code, msg, headers)
        except ValueError:  # an address that is none; urllib leaves the connection open
            fp.close()
            raise

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        before, after = urlsplit(req.full_url), urlsplit(newurl)
        if after.scheme not in ("http", "https") or (before.scheme == "https" and after.scheme == "http"):
            raise ValueError(f"{before.netloc} redirects to {quoted(newurl)}")
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None and (before.scheme, before.netloc) != (after.scheme, after.netloc):
            request.remove_header("Authorization")
        return request


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_KeepsSecrets)
