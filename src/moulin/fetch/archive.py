"""Models in an archive at an address, as sherpa-onnx's releases publish them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from moulin.fetch.cache_folder import locked, partial_folder, publish, remove
from moulin.fetch.digest import Digest
from moulin.fetch.download import RemoteFile, download
from moulin.fetch.errors import FetchError
from moulin.fetch.fetched import Fetched
from moulin.fetch.progress import Progress, silent
from moulin.fetch.unpack import unpack

_SUFFIXES = re.compile(r"\.(?:tar(?:\.(?:bz2|gz|xz))?|tbz2?|tgz|txz)$")
_SHA256 = re.compile(r"sha256=([0-9a-fA-F]{64})")


@dataclass(frozen=True, slots=True)
class ArchiveUrl:
    """An address, and the checksum that it was given with (`#sha256=…`)."""

    url: str
    sha256: str | None = None

    @property
    def file_name(self) -> str:
        return unquote(urlsplit(self.url).path).rpartition("/")[2]


def parse_archive_url(text: str) -> ArchiveUrl:
    """Raises FetchError for what is no tar archive by its name, or has a fragment that is no checksum."""
    url, _, fragment = text.partition("#")
    archive = ArchiveUrl(url, None)
    if not _SUFFIXES.search(archive.file_name):
        raise FetchError(
            f"Expected the address of a .tar.bz2, .tar.gz, .tar.xz or .tar, got {url}",
            hint="a model on the Hugging Face hub is hf://owner/name",
        )
    if not fragment:
        return archive
    match = _SHA256.fullmatch(fragment)
    if match is None:
        raise FetchError(
            f"Expected #sha256= and 64 hexadecimal digits, got #{fragment}", hint="sha256sum prints such a checksum"
        )
    return ArchiveUrl(url, match[1].lower())


def fetch_archive(archive: ArchiveUrl, cache: Path, *, progress: Progress = silent) -> Fetched:
    """Bring the model in `archive` into `cache`. An archive is taken not to change: what is there is not asked for."""
    name = archive.file_name
    key = hashlib.sha256(f"{archive.url}#{archive.sha256}".encode()).hexdigest()[:12]
    folder = cache / "archives" / f"{_SUFFIXES.sub('', name)}-{key}"
    received = 0
    with locked(folder):
        if not folder.is_dir():
            partial = partial_folder(folder)
            digest = Digest("sha256", archive.sha256) if archive.sha256 else None
            received = download(RemoteFile(archive.url, name, digest=digest), partial / "archive", progress)
            unpacked = partial / "unpacked"
            remove(unpacked)
            unpacked.mkdir()
            try:
                unpack(partial / "archive", unpacked, name=name, progress=progress)
                _model_folder(unpacked, name)
            except FetchError:
                remove(partial)
                raise
            publish(unpacked, folder)
            remove(partial)
        return Fetched(_model_folder(folder, name), received)


def _model_folder(unpacked: Path, name: str) -> Path:
    folders = sorted(set(_folders_with_models(unpacked)))
    if len(folders) == 1:
        return folders[0]
    if not folders:
        raise FetchError(
            f"There is no transducer in {name}: expected encoder*.onnx, decoder*.onnx and joiner*.onnx with tokens.txt",
            hint="a CTC or attention model is another kind of model, which moulin does not serve",
        )
    choices = ", ".join(str(folder.relative_to(unpacked)) for folder in folders)
    raise FetchError(f"{name} holds {len(folders)} models: {choices}", hint="unpack it by hand and pass the one")


def _folders_with_models(unpacked: Path) -> Iterator[Path]:
    for pattern in ("encoder*.onnx", "pretrained.pt", "epoch-*.pt", "checkpoint-*.pt"):
        for file in unpacked.rglob(pattern):
            if (file.parent / "tokens.txt").is_file():
                yield file.parent
