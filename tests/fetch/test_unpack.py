"""Archives that are hostile or damaged."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from moulin.bundle.load import load_bundle
from moulin.fetch import unpack as unpacking
from moulin.fetch.errors import FetchError

from .archives import NAME, PATH, a_file, fetch, model_members, tar_of
from .site import Site


def special(name: str, kind: bytes, link: str = "") -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member, b""


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
