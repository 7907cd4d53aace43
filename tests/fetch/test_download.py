from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from moulin.fetch.digest import Digest
from moulin.fetch.download import RemoteFile, download
from moulin.fetch.errors import FetchError, Unreachable

from .site import Site

CONTENT = bytes(range(256)) * 4000
SHA256 = Digest("sha256", hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture
def remote(site: Site) -> RemoteFile:
    site.files["/file"] = CONTENT
    return RemoteFile(f"{site.url}/file", "file")


def test_a_file_comes_once(remote: RemoteFile, site: Site, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    assert download(remote, tmp_path / "here", lambda *step: seen.append(step)) == len(CONTENT)
    assert (tmp_path / "here").read_bytes() == CONTENT
    assert seen[0] == ("file", 0, len(CONTENT))
    assert seen[-1] == ("file", len(CONTENT), len(CONTENT))
    assert download(remote, tmp_path / "here") == 0
    assert len(site.requests) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["here"]


def test_a_broken_connection_is_opened_again_for_the_rest(remote: RemoteFile, site: Site, tmp_path: Path) -> None:
    site.breaks["/file"] = [1000, 5000]
    assert download(remote, tmp_path / "here") == len(CONTENT)
    assert [request.range for request in site.requests] == [None, "bytes=1000-", "bytes=6000-"]
    assert (tmp_path / "here").read_bytes() == CONTENT


def test_the_next_try_goes_on(remote: RemoteFile, site: Site, tmp_path: Path) -> None:
    site.breaks["/file"] = [1000, 0]
    with pytest.raises(FetchError, match=r"got 1,000 before the connection broke .*continues where it stopped"):
        download(remote, tmp_path / "here")
    assert not (tmp_path / "here").exists()
    assert download(remote, tmp_path / "here") == len(CONTENT) - 1000
    assert site.requests[-1].range == "bytes=1000-"
    assert (tmp_path / "here").read_bytes() == CONTENT


def test_what_changed_meanwhile_comes_anew(remote: RemoteFile, site: Site, tmp_path: Path) -> None:
    site.breaks["/file"] = [1000, 0]
    with pytest.raises(FetchError):
        download(remote, tmp_path / "here")
    site.files["/file"] = CONTENT[::-1]
    assert download(remote, tmp_path / "here") == len(CONTENT)
    assert (tmp_path / "here").read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize(("etags", "ranges"), [(False, True), (True, False)])
def test_a_server_that_cannot_go_on_starts_anew(
    remote: RemoteFile, site: Site, tmp_path: Path, etags: bool, ranges: bool
) -> None:
    site.etags, site.ranges = etags, ranges
    site.breaks["/file"] = [1000]
    assert download(remote, tmp_path / "here") == 1000 + len(CONTENT)
    assert (tmp_path / "here").read_bytes() == CONTENT


def test_a_complete_part_is_only_checked(site: Site, tmp_path: Path) -> None:
    site.files["/file"] = CONTENT
    (tmp_path / "here.part").write_bytes(CONTENT)
    for size in (len(CONTENT), None):
        shutil.copy(tmp_path / "here.part", tmp_path / "kept")
        assert download(RemoteFile(f"{site.url}/file", "file", size, SHA256), tmp_path / "here") == 0
        (tmp_path / "here").unlink()
        shutil.move(tmp_path / "kept", tmp_path / "here.part")
    assert len(site.requests) == 1


def test_a_part_longer_than_the_file_is_given_up(site: Site, tmp_path: Path) -> None:
    site.files["/file"] = CONTENT
    (tmp_path / "here.part").write_bytes(CONTENT + b"more")
    assert download(RemoteFile(f"{site.url}/file", "file", digest=SHA256), tmp_path / "here") == len(CONTENT)
    assert (tmp_path / "here").read_bytes() == CONTENT


@pytest.mark.parametrize("digest", [SHA256, Digest("git", "0" * 40)], ids=lambda digest: digest.kind)
def test_a_wrong_checksum_leaves_nothing(site: Site, tmp_path: Path, digest: Digest) -> None:
    site.files["/file"] = CONTENT[:-1] + b"?"
    remote = RemoteFile(f"{site.url}/file", "file", len(CONTENT), digest)
    with pytest.raises(FetchError, match=f"to have the checksum {digest.value}, got "):
        download(remote, tmp_path / "here")
    assert not list(tmp_path.iterdir())


def test_another_size_than_promised(remote: RemoteFile, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="to have 7 bytes, got 1,024,000 from 127"):
        download(RemoteFile(remote.url, "file", 7), tmp_path / "here")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (404, "There is no file at"),
        (401, "does not give file to everybody .401"),
        (403, "does not give file to everybody .403"),
        (503, "answers 503 .*later"),
        (418, "answers 418"),
    ],
)
def test_refusals(remote: RemoteFile, site: Site, tmp_path: Path, status: int, message: str) -> None:
    site.statuses["/file"] = status
    with pytest.raises(FetchError, match=message):
        download(remote, tmp_path / "here")
    assert not list(tmp_path.iterdir())


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match=r"Cannot reach 127.0.0.1:9: .*check the network"):
        download(RemoteFile("http://127.0.0.1:9/file", "file"), tmp_path / "here")


def test_no_room(remote: RemoteFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(FetchError, match=r"Expected 1.0 MB for file on the disk of .*, got 1 kB .*make room"):
        download(remote, tmp_path / "here")


def test_the_token_stays_with_whom_it_is_for(remote: RemoteFile, site: Site, tmp_path: Path) -> None:
    site.redirects["/private"] = remote.url.replace("127.0.0.1", "localhost")
    site.redirects["/same"] = remote.url
    headers = {"Authorization": "Bearer secret"}
    for name in ("private", "same"):
        download(RemoteFile(f"{site.url}/{name}", name, headers=headers), tmp_path / name)
    assert [(request.path, request.token) for request in site.requests] == [
        ("/private", "Bearer secret"),
        ("/file", None),
        ("/same", "Bearer secret"),
        ("/file", "Bearer secret"),
    ]
