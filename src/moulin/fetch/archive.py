"""Models in an archive at a URL, as sherpa-onnx's releases publish them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote, urlsplit

from moulin.bundle.choice import NO_WISH, Wish, choose_model
from moulin.bundle.folder_files import files_around
from moulin.bundle.vocabulary_files import find_vocabulary
from moulin.errors import BundleError
from moulin.fetch.cache_folder import locked, partial_folder, publish, remove
from moulin.fetch.digest import Digest
from moulin.fetch.download import RemoteFile, download
from moulin.fetch.errors import FetchError
from moulin.fetch.fetched import Fetched
from moulin.fetch.progress import Progress, silent
from moulin.fetch.published_path import is_plain
from moulin.fetch.unpack import unpack
from moulin.quoting import cut, quoted

_SUFFIXES = re.compile(r"\.(?:tar(?:\.(?:bz2|gz|xz))?|tbz2?|tgz|txz)$")
_MOST_NAME_BYTES = 200  # the cache's folder has a checksum behind it
_SHA256 = re.compile(r"sha256=([0-9a-fA-F]{64})")


@dataclass(frozen=True, slots=True)
class ArchiveUrl:
    """A URL, and its checksum if given (`#sha256=…`)."""

    url: str
    sha256: str | None = None

    @property
    def file_name(self) -> str:
        return unquote(urlsplit(self.url).path).rpartition("/")[2]


def parse_archive_url(text: str) -> ArchiveUrl:
    """Parse `text`. Raises FetchError where the name is not that of a tar archive, or the fragment is no checksum."""
    url, _, fragment = text.partition("#")
    archive = ArchiveUrl(_in_ascii(url), None)
    if not _SUFFIXES.search(archive.file_name):
        raise FetchError(
            f"Expected the address of a .tar.bz2, .tar.gz, .tar.xz or .tar, got {cut(url, 200)}",
            hint="a model on the Hugging Face hub is hf://owner/name",
        )
    if not fragment:
        return archive
    match = _SHA256.fullmatch(fragment)
    if match is None:
        raise FetchError(
            f"Expected #sha256= and 64 hexadecimal digits, got #{cut(fragment)}",
            hint="sha256sum prints such a checksum",
        )
    return ArchiveUrl(archive.url, match[1].lower())


def _in_ascii(url: str) -> str:
    """`url` with the host as IDNA and other characters percent-encoded, as HTTP sends it. Raises FetchError."""
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna").decode("ascii")
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError as error:
        raise FetchError(f"Expected an address of a web server, got {quoted(url)}: {cut(str(error))}") from None
    if not host:
        raise FetchError(f"Expected an address with the name of a web server, got {quoted(url)}")
    user, at, _ = parts.netloc.rpartition("@")
    bracketed = f"[{host}]" if ":" in host else host
    path, query = (quote(part, safe="/%:@!$&'()*+,;=~?") for part in (parts.path, parts.query))
    return f"{parts.scheme}://{quote(user, safe='%:')}{at}{bracketed}{port}{path}" + (f"?{query}" if query else "")


def fetch_archive(
    archive: ArchiveUrl,
    cache: Path,
    *,
    wish: Wish = NO_WISH,
    progress: Progress = silent,
) -> Fetched:
    """Fetch the model in `archive` into `cache`. An archive is assumed not to change, so a cached one is used."""
    name = archive.file_name
    if not is_plain(PurePosixPath(name)) or len(name.encode()) > _MOST_NAME_BYTES:
        raise FetchError(f"Expected an archive with a shorter name, got {quoted(name)}")
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
            except FetchError:
                remove(partial)
                raise
            publish(unpacked, folder)
            remove(partial)
        return _chosen(folder, name, wish, received)


def _chosen(unpacked: Path, name: str, wish: Wish, received: int) -> Fetched:
    """The model in the folder `unpacked`, by the rules for folders. Raises FetchError, which calls it `name`."""
    paths, inside = files_around(unpacked)
    own = {path for path in paths if path.is_relative_to(inside)}
    top = _only_folder(own, inside)
    try:
        choice = choose_model(own, top, str(top), wish)
        find_vocabulary(own, choice.file, str(top), choice.language)
    except BundleError as error:
        message = error.message.replace(f"{top}/", "").replace(str(top), name)
        raise FetchError(message, hint=error.hint or f"it is unpacked in {top}") from None
    folder = Path(choice.file).parent
    alone = _default(own, PurePosixPath(folder)) == choice.file
    return Fetched(folder if alone else Path(choice.file), received, mode=choice.mode, notes=choice.notes)


def _only_folder(paths: Collection[PurePosixPath], top: PurePosixPath) -> PurePosixPath:
    """The archive's single top folder, if it has one, else `top`."""
    folders = {path.relative_to(top).parts[0] for path in paths if len(path.relative_to(top).parts) > 1}
    loose = any(path.parent == top for path in paths)
    return top / folders.pop() if len(folders) == 1 and not loose else top


def _default(paths: Collection[PurePosixPath], folder: PurePosixPath) -> PurePosixPath | None:
    """The file chosen where only the folder is named; None where the choice fails."""
    try:
        return choose_model(paths, folder, str(folder)).file
    except BundleError:
        return None
