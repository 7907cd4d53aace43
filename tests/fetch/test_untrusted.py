"""Addresses, hubs, servers and archives that want to harm: one FetchError, and nothing outside the cache."""

from __future__ import annotations

import gzip
import json
import lzma
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moulin.errors import MoulinError
from moulin.fetch.archive import parse_archive_url
from moulin.fetch.download import RemoteFile, download
from moulin.fetch.hub import HubModel, fetch_from_hub
from moulin.fetch.resolve import fetch_model, parse_source
from moulin.fetch.unpack import unpack

from .archives import a_file, tar_of
from .site import COMMIT, REPOSITORY, Site

MODEL = HubModel(REPOSITORY)


def refuses(call: Callable[[], object], match: str | None = None) -> None:
    with pytest.raises(MoulinError, match=match) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 2000


# ----------------------------------------------------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    "address",
    [
        "é",
        "hf://é/x",
        "hf://é/é",
        "hf://a/é",
        "hf://a/b/" + "x/" * 1500,
        "hf://a/b/" + "x" * 300,
        "hf://a/../b",
        "hf://a/b/../../c",
        "hf://a/b@" + "x" * 5000,
        "x" * 100_000,
        "http://[::1/m.tar.gz",
        "https://a:port/m.tar.gz",
        "https://a:99999999/m.tar.gz",
        "https:///m.tar.gz",
        "https://" + "a" * 300 + "/m.tar.gz",
        "https://a..b/m.tar.gz",
        "https://a/" + "x" * 300 + ".tar.gz",
        "https://a/m.tar.gz#sha256=" + "x" * 10_000,
        "file:///etc/passwd",
        "ftp://a/m.tar.gz",
        "https://\ud800/m.tar.gz",
        "hf://a\nb/c",
        "https://a b/m.tar.gz",
        "https://a/b\n.tar.gz#x",
    ],
    ids=lambda address: repr(address[:24]),
)
def test_addresses_of_any_kind(address: str, tmp_path: Path) -> None:
    refuses(lambda: fetch_model(address, tmp_path))


@pytest.mark.parametrize(
    ("address", "sent"),
    [
        ("https://exämple.org/mödel 1.tar.gz", "https://xn--exmple-cua.org/m%C3%B6del%201.tar.gz"),
        ("http://user:p%40ss@[::1]:80/a%20b.tar.gz?x=ü&y", "http://user:p%40ss@[::1]:80/a%20b.tar.gz?x=%C3%BC&y"),
    ],
)
def test_addresses_are_sent_as_http_wants_them(address: str, sent: str) -> None:
    assert parse_archive_url(address).url == sent


def test_a_hub_address_in_ascii() -> None:
    assert isinstance(parse_source("hf://owner/name@main/folder"), HubModel)


# ------------------------------------------------------------------------------------------------------------ the hub

GOOD: dict[str, Any] = {"rfilename": "tokens.txt", "size": 1, "blobId": "0" * 40}
SIBLINGS: list[Any] = [
    {"size": "x"},
    {"size": -1},
    {"size": 1.5},
    {"size": 2**80},
    {"size": [1]},
    {"size": True},
    {"rfilename": "../x"},
    {"rfilename": "/etc/passwd"},
    {"rfilename": ".."},
    {"rfilename": ""},
    {"rfilename": 7},
    {"rfilename": None},
    {"rfilename": "x/" * 1500 + "encoder.onnx"},
    {"rfilename": "x" * 300},
    {"rfilename": "a\0b"},
    {"rfilename": "\ud800"},
    {"blobId": "../x"},
    {"blobId": 7},
    {"blobId": "z" * 40},
    {"lfs": {"sha256": "x", "size": 1, "pointerSize": 1}},
    {"lfs": {"sha256": 7, "size": 1, "pointerSize": 1}},
    {"lfs": {}},
    {"lfs": "x"},
    {"lfs": [1]},
]


@pytest.mark.parametrize("fields", SIBLINGS, ids=repr)
def test_files_that_no_hub_has(hub: Site, tmp_path: Path, fields: dict[str, Any]) -> None:
    answer = {"id": REPOSITORY, "sha": COMMIT, "siblings": [GOOD, {**GOOD, **fields}], "tags": [], "downloads": 0}
    hub.files[f"/api/models/{REPOSITORY}/revision/main"] = json.dumps(answer).encode()
    refuses(lambda: fetch_from_hub(MODEL, tmp_path))


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"7",
        b'{"id": 7}',
        b'{"sha": "../../x"}',
        b"[" * 100_000,
        b'{"siblings": {}}',
        b"\xff",
        json.dumps({"id": REPOSITORY, "sha": COMMIT, "siblings": [1, 2]}).encode(),
        json.dumps({"id": REPOSITORY, "sha": COMMIT, "siblings": "x"}).encode(),
        json.dumps({"id": REPOSITORY, "sha": "x" * 100_000, "siblings": []}).encode(),
    ],
    ids=lambda answer: repr(answer[:40]),
)
def test_answers_that_no_hub_gives(hub: Site, tmp_path: Path, answer: bytes) -> None:
    hub.files[f"/api/models/{REPOSITORY}/revision/main"] = answer
    refuses(lambda: fetch_from_hub(MODEL, tmp_path))


@pytest.mark.parametrize("kept", [b"", b"7", b"[[]]", b'[["x", "x", null]]', b'[["x", 1, ["md5", "x"]]]', b"\xff"])
def test_a_damaged_listing_in_the_cache_is_asked_for_again(hub: Site, tmp_path: Path, kept: bytes) -> None:
    home = tmp_path / "hub" / REPOSITORY
    home.mkdir(parents=True)
    (home / f"{COMMIT}.json").write_bytes(kept)
    hub.files[f"/api/models/{REPOSITORY}/revision/{COMMIT}"] = json.dumps(
        {"id": REPOSITORY, "sha": COMMIT, "siblings": [GOOD], "tags": [], "downloads": 0}
    ).encode()
    refuses(lambda: fetch_from_hub(HubModel(REPOSITORY, COMMIT), tmp_path), "holds no transducer|has no")
    assert hub.asked(COMMIT)


# ---------------------------------------------------------------------------------------------------------- downloads


@pytest.mark.parametrize(
    "to",
    [
        "ftp://127.0.0.1/x",
        "file:///etc/passwd",
        "http://[::1",
        "//",
        "http://",
        "http://a b/",
        "x" * 70_000,
        "{itself}",
    ],
)
def test_redirects_of_any_kind(site: Site, tmp_path: Path, to: str) -> None:
    site.redirects["/x"] = to.format(itself=f"{site.url}/x")
    refuses(lambda: download(RemoteFile(f"{site.url}/x", "x"), tmp_path / "x"))
    assert not (tmp_path / "x").exists()


def test_more_bytes_than_announced(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.files["/x"] = bytes(1000)
    refuses(lambda: download(RemoteFile(f"{site.url}/x", "x", size=10), tmp_path / "x"))
    monkeypatch.setattr("moulin.fetch.download.MOST_BYTES", 100)
    refuses(lambda: download(RemoteFile(f"{site.url}/x", "x"), tmp_path / "y"), "sends more")


# ----------------------------------------------------------------------------------------------------------- archives


def unpacked(content: bytes, tmp_path: Path) -> None:
    archive, into = tmp_path / "archive", tmp_path / "into"
    archive.write_bytes(content)
    into.mkdir()
    unpack(archive, into, name="archive")


def pax(size: int) -> bytes:
    """An extended header of `size` bytes, and a file."""
    header = tarfile.TarInfo("header")
    header.type, header.size = tarfile.XHDTYPE, size
    return header.tobuf(tarfile.USTAR_FORMAT) + bytes(-(-size // 512) * 512) + tarfile.TarInfo("x").tobuf()


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (gzip.compress(pax(1 << 28)), "header that is too long"),
        (lzma.compress(pax(1 << 28)), "header that is too long"),
        (b"".join(pax(512)[:1024] for _ in range(3000)), "no tar archive, or damaged"),
        (tar_of(a_file("x/" * 1500 + "y"), mode="w"), "path that is too long"),
        (tar_of(a_file("x" * 300), mode="w"), "path that is too long"),
        (tar_of(a_file("x" * 5000), mode="w"), "path that is too long"),
        (b"\x1f\x8b" + bytes(100), "no tar archive, or damaged"),
        (b"BZh9" + bytes(100), "no tar archive, or damaged"),
        (b"\xfd7zXZ\0" + bytes(100), "no tar archive, or damaged"),
        (b"", "no tar archive, or damaged"),
        (bytes(511), "no tar archive, or damaged"),
    ],
    ids=["pax gz", "pax xz", "pax chain", "deep", "long name", "longer name", "gz", "bz2", "xz", "empty", "zeros"],
)
def test_archives_of_any_kind(content: bytes, match: str, tmp_path: Path) -> None:
    refuses(lambda: unpacked(content, tmp_path), match)


def test_a_bomb_takes_little_memory(tmp_path: Path) -> None:
    """A header of 1 GB in a megabyte."""
    (tmp_path / "archive").write_bytes(gzip.compress(pax(1 << 30), 1))
    (tmp_path / "into").mkdir()
    script = (
        "import resource\nfrom pathlib import Path\nfrom moulin.fetch.unpack import unpack\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29))\n"
        f"unpack(Path({str(tmp_path / 'archive')!r}), Path({str(tmp_path / 'into')!r}), name='a')\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "header that is too long" in ran.stderr.splitlines()[-1]


def test_links_that_go_in_circles(tmp_path: Path) -> None:
    link = tarfile.TarInfo("a")
    link.type, link.linkname = tarfile.SYMTYPE, "a"
    refuses(lambda: unpacked(tar_of((link, b""), a_file("a/b"), mode="w"), tmp_path), "damaged|twice")


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    """A link inside may lead down only, so that files behind it are inside too."""
    link = tarfile.TarInfo("m/sub")
    link.type, link.linkname = tarfile.SYMTYPE, "deeper"
    unpacked(tar_of(a_file("m/deeper/x"), (link, b""), a_file("m/sub/y"), mode="w"), tmp_path)
    assert (tmp_path / "into" / "m" / "deeper" / "y").read_bytes() == b"x"
    assert {path.name for path in tmp_path.iterdir()} == {"archive", "into"}
