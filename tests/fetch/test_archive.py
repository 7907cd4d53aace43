from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path

import pytest

from moulin.bundle.load import load_bundle
from moulin.fetch.archive import ArchiveUrl, parse_archive_url
from moulin.fetch.errors import FetchError

from .archives import NAME, PATH, a_file, fetch, model_members, tar_of
from .site import Site


def test_a_release_comes_once_and_loads(url: str, site: Site, content: bytes, tmp_path: Path) -> None:
    folder, received = fetch(url, tmp_path)
    assert folder.name == "sherpa-onnx-tiny-2026"
    assert received == len(content)
    assert load_bundle(folder, expect="streaming").family == "lstm"
    assert fetch(url, tmp_path) == (folder, 0)
    assert len(site.requests) == 1
    assert [file.name for file in (tmp_path / "archives").iterdir() if not file.name.endswith(".lock")] == [
        folder.parent.name
    ]


def test_an_interrupted_fetch_goes_on(url: str, site: Site, tmp_path: Path) -> None:
    site.breaks[PATH] = [50_000, 0]
    with pytest.raises(FetchError, match=r"got 50,000 before the connection broke"):
        fetch(url, tmp_path)
    assert not list(tmp_path.rglob("*.onnx"))
    folder, _ = fetch(url, tmp_path)
    assert site.requests[-1].range == "bytes=50000-"
    load_bundle(folder)


def test_the_checksum_in_the_address(url: str, content: bytes, tmp_path: Path) -> None:
    sha256 = hashlib.sha256(content).hexdigest()
    load_bundle(fetch(f"{url}#sha256={sha256}", tmp_path)[0])
    wrong = "0" * 64
    with pytest.raises(FetchError, match=f"Expected {NAME} to have the checksum {wrong}, got {sha256}"):
        fetch(f"{url}#sha256={wrong}", tmp_path)
    assert len(list(tmp_path.rglob("tokens.txt"))) == 1


@pytest.mark.parametrize("mode", ["w:gz", "w:xz", "w"])
def test_other_compressions(site: Site, tmp_path: Path, mode: str) -> None:
    name = {"w:gz": "m.tar.gz", "w:xz": "m.tar.xz", "w": "m.tar"}[mode]
    site.files[f"/{name}"] = tar_of(*model_members(), mode=mode)
    load_bundle(fetch(f"{site.url}/{name}", tmp_path)[0])


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([a_file("m/some.int8.onnx"), a_file("m/tokens.txt")], f"{NAME} holds no transducer"),
        ([*model_members("a"), *model_members("b")], f"{NAME} holds 2 models: a, b"),
    ],
)
def test_no_model_or_two(
    site: Site, tmp_path: Path, members: list[tuple[tarfile.TarInfo, bytes]], message: str
) -> None:
    site.files[PATH] = tar_of(*members)
    with pytest.raises(FetchError, match=message):
        fetch(site.url + PATH, tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("https://example.org/model.zip", "Expected the address of a .tar.bz2"),
        ("https://example.org/", "Expected the address of a .tar.bz2"),
        ("https://example.org/m.tar.bz2#md5=1", "Expected #sha256= and 64 hexadecimal digits, got #md5=1"),
    ],
)
def test_addresses_that_are_none(text: str, message: str) -> None:
    with pytest.raises(FetchError, match=message):
        parse_archive_url(text)


def test_an_address_with_a_query() -> None:
    assert parse_archive_url("https://example.org/a%20b.tar.bz2?x=1") == ArchiveUrl(
        "https://example.org/a%20b.tar.bz2?x=1"
    )
