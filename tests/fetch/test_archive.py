from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from moulin.bundle.load import load_bundle
from moulin.fetch import unpack as unpacking
from moulin.fetch.archive import ArchiveUrl, fetch_archive, parse_archive_url
from moulin.fetch.errors import FetchError
from tests.bundles import BUNDLES

from .site import Site

NAME = "sherpa-onnx-tiny-2026.tar.bz2"
PATH = f"/releases/download/asr-models/{NAME}"


def tar_of(*members: tuple[tarfile.TarInfo, bytes], mode: str = "w:bz2") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def a_file(name: str, content: bytes = b"x") -> tuple[tarfile.TarInfo, bytes]:
    return tarfile.TarInfo(name), content


def special(name: str, kind: bytes, link: str = "") -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member, b""


def model_members(
    top: str = "sherpa-onnx-tiny-2026", bundle: str = "lstm-streaming"
) -> list[tuple[tarfile.TarInfo, bytes]]:
    return [
        *(a_file(f"{top}/{file.name}", file.read_bytes()) for file in (BUNDLES / bundle).iterdir()),
        a_file(f"{top}/test_wavs/0.wav", b"RIFF"),
    ]


@pytest.fixture(scope="module")
def content() -> bytes:
    return tar_of(*model_members())


@pytest.fixture
def url(site: Site, content: bytes) -> str:
    site.files[PATH] = content
    return site.url + PATH


def fetch(url: str, cache: Path) -> tuple[Path, int]:
    fetched = fetch_archive(parse_archive_url(url), cache)
    return fetched.folder, fetched.received_bytes


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


def test_a_link_within_stays(site: Site, tmp_path: Path) -> None:
    site.files[PATH] = tar_of(*model_members(), special("sherpa-onnx-tiny-2026/again", tarfile.SYMTYPE, "tokens.txt"))
    folder, _ = fetch(site.url + PATH, tmp_path)
    assert (folder / "again").read_bytes() == (folder / "tokens.txt").read_bytes()


def _with_a_null() -> tuple[tarfile.TarInfo, bytes]:
    member, content = a_file("m/null")
    member.pax_headers = {"path": "m/nu\0ll"}
    return member, content


HOSTILE: dict[str, tuple[list[tuple[tarfile.TarInfo, bytes]], str]] = {
    "absolute": ([a_file("/tmp/moulin-evil")], "a file that leads out of its folder: '/tmp/moulin-evil'"),
    "parent": ([a_file("m/../../evil")], "a file that leads out of its folder"),
    "symbolic link": ([special("m/l", tarfile.SYMTYPE, "../../..")], "a link that leads out of its folder"),
    "absolute link": ([special("m/l", tarfile.SYMTYPE, "/etc/passwd")], "a link that leads out of its folder"),
    "hard link": ([special("m/l", tarfile.LNKTYPE, "../../evil")], "a link that leads out of its folder"),
    "hard link to nothing": ([special("m/l", tarfile.LNKTYPE, "m/nothing")], "no tar archive, or damaged"),
    "through a link": ([special("l", tarfile.SYMTYPE, "m"), a_file("m", b"1"), a_file("l", b"2")], "has l twice"),
    "device": ([special("m/null", tarfile.CHRTYPE)], "has a device: 'm/null'"),
    "pipe": ([special("m/pipe", tarfile.FIFOTYPE)], "has a device: 'm/pipe'"),
    "null in a name": ([_with_a_null()], "no tar archive, or damaged"),
    "twice": ([a_file("m/a"), a_file("m/a")], "has a twice"),
    "a file as a folder": ([a_file("m"), a_file("m/a")], "has m twice"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_archives(site: Site, tmp_path: Path, kind: str) -> None:
    members, message = HOSTILE[kind]
    site.files[PATH] = tar_of(*model_members(), *members)
    with pytest.raises(FetchError, match=message):
        fetch(site.url + PATH, tmp_path / "cache")
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    assert not list(tmp_path.rglob("*.onnx"))


def test_more_than_the_limit(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking.unpack, "__kwdefaults__", {**_defaults(unpacking.unpack), "max_bytes": 1_000_000})
    with pytest.raises(FetchError, match=r"unpacks to more than 1.0 MB"):
        fetch(url, tmp_path)
    assert not list(tmp_path.rglob("*.onnx"))


def _defaults(function: Callable[..., object]) -> dict[str, object]:
    return function.__kwdefaults__ or {}


@pytest.mark.parametrize("damage", ["truncated", "flipped", "no archive", "empty"])
def test_damaged_archives(site: Site, content: bytes, tmp_path: Path, damage: str) -> None:
    middle = len(content) // 2
    site.files[PATH] = {
        "truncated": content[:middle],
        "flipped": content[:middle]
        + bytes(255 - byte for byte in content[middle : middle + 64])
        + content[middle + 64 :],
        "no archive": b"<html>log in first</html>",
        "empty": b"",
    }[damage]
    with pytest.raises(FetchError, match=f"{NAME} is no tar archive, or damaged"):
        fetch(site.url + PATH, tmp_path)
    site.files[PATH] = content
    load_bundle(fetch(site.url + PATH, tmp_path)[0])


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([a_file("m/model.int8.onnx"), a_file("m/tokens.txt")], f"{NAME} holds no transducer"),
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
