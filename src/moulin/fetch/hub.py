"""Models on the Hugging Face hub.

huggingface_hub lists the files, with commit and checksums, and handles its settings (HF_ENDPOINT, HF_TOKEN,
HF_HUB_OFFLINE); `download` downloads them. A commit never changes, so its list of files is requested once.
"""

from __future__ import annotations

import json
import posixpath
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from moulin.bundle.choice import NO_WISH, Wish
from moulin.errors import first_line
from moulin.extras import install_hint
from moulin.fetch.cache_folder import locked, partial_folder, publish
from moulin.fetch.choose_files import PublishedFile, choose_files, is_link
from moulin.fetch.digest import Digest
from moulin.fetch.download import RemoteFile, download
from moulin.fetch.errors import FetchError, Unreachable
from moulin.fetch.fetched import Fetched
from moulin.fetch.progress import Progress, silent
from moulin.fetch.published_path import is_plain
from moulin.quoting import cut, quoted

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

_TIMEOUT_SEC = 20.0
_COMMIT = re.compile(r"[0-9a-f]{40}")
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_MOST_LINKS = 4
_MOST_FILES = 100_000
_MOST_BYTES = 1 << 50

_ALL = PurePosixPath()


@dataclass(frozen=True, slots=True)
class HubModel:
    """`hf://repository[@revision][/inside]`; `inside` is a folder, an encoder file or a checkpoint."""

    repository: str
    revision: str = "main"
    inside: PurePosixPath = _ALL

    def __str__(self) -> str:
        revision = "" if self.revision == "main" else f"@{self.revision}"
        return f"hf://{self.repository}{revision}"


@dataclass(frozen=True, slots=True)
class _Listing:
    """A commit and its files."""

    commit: str
    files: tuple[PublishedFile, ...]


def fetch_from_hub(
    model: HubModel,
    cache: Path,
    *,
    wish: Wish = NO_WISH,
    progress: Progress = silent,
) -> Fetched:
    """Fetch `model` into `cache`, as a flat folder of the needed files; those in the cache are not fetched again.

    Where the hub cannot be reached, the commit last seen for the revision is used.
    """
    home = cache / "hub" / model.repository
    listing, reached = _listing(model, home)
    inside = _followed(model, listing, home)
    choice = choose_files(listing.files, str(model), inside=inside, wish=wish)
    folder = home / f"{listing.commit[:12]}-{choice.variant}" / home.name
    received = 0
    with locked(folder):
        if not folder.is_dir():
            partial = partial_folder(folder)
            for remote, name in _remote_files(model.repository, listing.commit, choice.files):
                received += download(remote, partial / name, progress)
            publish(partial, folder)
    return Fetched(folder, received_bytes=received, reached=reached, mode=choice.mode, notes=choice.notes)


def _followed(model: HubModel, listing: _Listing, home: Path) -> PurePosixPath:
    """`model.inside`, or the file that it is a symbolic link to. Raises FetchError where a link leads nowhere."""
    inside = model.inside
    for _ in range(_MOST_LINKS):
        if not is_link(inside, listing.files):
            break
        file = next(file for file in listing.files if file.path == inside)
        ((remote, _),) = _remote_files(model.repository, listing.commit, [file])
        link = home / "links" / listing.commit[:12] / quote(str(inside), safe="")
        link.parent.mkdir(parents=True, exist_ok=True)
        with locked(link):
            download(remote, link)
        target = link.read_text(encoding="utf-8", errors="replace").strip()
        inside = PurePosixPath(posixpath.normpath(inside.parent / target))
        if not any(file.path == inside for file in listing.files):
            raise FetchError(
                f"{model}/{file.path} is a link to {quoted(target)}, which is not there",
                hint="name the file that it stands for",
            )
    return inside


def _listing(model: HubModel, home: Path) -> tuple[_Listing, bool]:
    """The files of the revision, and whether they are certain: from the hub, or of a commit, which never changes."""
    if _COMMIT.fullmatch(model.revision) and (known := _remembered(home, model.revision)):
        return known, True
    try:
        listing = _ask(model)
    except Unreachable:
        ref = _ref(home, model.revision)
        if ref.is_file() and (known := _remembered(home, ref.read_text())):
            return known, False
        raise
    _remember(home, model.revision, listing)
    return listing, True


def _ask(model: HubModel) -> _Listing:
    api = _api()
    from huggingface_hub import errors

    try:
        info = api.model_info(model.repository, revision=model.revision, files_metadata=True, timeout=_TIMEOUT_SEC)
    except errors.RevisionNotFoundError:
        raise FetchError(
            f"{model.repository} has no revision {quoted(model.revision)}", hint="a branch, a tag or a commit"
        ) from None
    except errors.HFValidationError:
        raise FetchError(f"Expected hf://owner/name, got {model}", hint="as in the model's address there") from None
    except errors.HfHubHTTPError as error:
        raise _refused(model, api.endpoint, error) from None
    except Exception as error:  # of its HTTP library, which differs between major versions
        raise Unreachable(
            f"Cannot reach {api.endpoint}: {cut(first_line(error), 200)}",
            hint="check the network, the proxy or HF_ENDPOINT",
        ) from None
    commit = str(info.sha)
    if not _COMMIT.fullmatch(commit):  # it becomes the name of a folder
        raise FetchError(
            f"Expected the commit of {model} from {api.endpoint}, got {quoted(commit)}", hint="check HF_ENDPOINT"
        )
    siblings = info.siblings or ()
    if len(siblings) > _MOST_FILES:
        raise FetchError(f"Expected at most {_MOST_FILES:,} files in {model}, got {len(siblings):,}")
    return _Listing(commit, tuple(_published(sibling, model) for sibling in siblings))


def _refused(model: HubModel, endpoint: str, error: HfHubHTTPError) -> FetchError:
    """The error for a refused request. Without a token the hub answers 401 for missing repositories too."""
    from huggingface_hub.errors import GatedRepoError

    status = error.response.status_code
    if isinstance(error, GatedRepoError) or status == 403:
        return FetchError(
            f"{model} is only for those who accepted its conditions",
            hint=f"accept them on {endpoint}/{model.repository}, then set HF_TOKEN or run: hf auth login",
        )
    if status in (401, 404):
        return FetchError(
            f"There is no model {model.repository} on {endpoint}, or it is private",
            hint="check the name; for a private model set HF_TOKEN or run: hf auth login",
        )
    return FetchError(f"{endpoint} does not say what is in {model}: {cut(first_line(error), 200)}", hint="try later")


def _api() -> HfApi:
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise FetchError(
            "Expected huggingface_hub for models on the Hugging Face hub, it is not installed",
            hint=install_hint("hub"),
        ) from None
    return HfApi(library_name="moulin")


def _published(sibling: Any, model: HubModel) -> PublishedFile:
    """One file as the hub describes it. Raises FetchError for what no hub says."""
    lfs = sibling.lfs
    digest = None
    if lfs is not None:
        digest = ["sha256", getattr(lfs, "sha256", None)]
    elif sibling.blob_id is not None:
        digest = ["git", sibling.blob_id]
    try:
        return _checked(sibling.rfilename, sibling.size, digest)
    except ValueError as error:
        raise FetchError(
            f"Expected the hub to say which files {model} has: {error}", hint="check HF_ENDPOINT"
        ) from None


def _checked(path: object, size: object, digest: object) -> PublishedFile:
    """A file from JSON: of the hub, or remembered. Raises ValueError, in words that end a sentence."""
    if not isinstance(path, str) or not is_plain(PurePosixPath(path)):
        raise ValueError(f"expected the path of a file, got {quoted(path)}")
    if size is not None and (type(size) is not int or not 0 <= size < _MOST_BYTES):
        raise ValueError(f"expected the size of {quoted(path)}, got {quoted(size)}")
    match digest:
        case None:
            return PublishedFile(PurePosixPath(path), size)
        case ["sha256" | "git" as kind, str(value)] if _DIGEST.fullmatch(value):
            return PublishedFile(PurePosixPath(path), size, Digest(kind, value))
    raise ValueError(f"expected the checksum of {quoted(path)}, got {quoted(digest)}")


def _remote_files(repository: str, commit: str, files: Sequence[PublishedFile]) -> list[tuple[RemoteFile, str]]:
    """The URL of each of `files`, and its local name."""
    endpoint = _api().endpoint
    from huggingface_hub import constants, get_token, hf_hub_url

    if constants.HF_HUB_OFFLINE:
        raise Unreachable(
            f"HF_HUB_OFFLINE is set, and the files of {repository} are not in the cache", hint="unset it to fetch them"
        )
    token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return [
        (
            RemoteFile(
                hf_hub_url(repository, str(file.path), revision=commit, endpoint=endpoint),
                file.path.name,
                file.size,
                file.digest,
                headers,
            ),
            file.path.name,
        )
        for file in files
    ]


def _ref(home: Path, revision: str) -> Path:
    return home / "refs" / quote(revision, safe="")


def _remember(home: Path, revision: str, listing: _Listing) -> None:
    rows = [
        [str(file.path), file.size, file.digest and [file.digest.kind, file.digest.value]] for file in listing.files
    ]
    _write(home / f"{listing.commit}.json", json.dumps(rows))
    _write(_ref(home, revision), listing.commit)


def _remembered(home: Path, commit: str) -> _Listing | None:
    try:
        rows = json.loads((home / f"{commit}.json").read_text())
        return _Listing(commit, tuple(_checked(path, size, digest) for path, size, digest in rows))
    except (FileNotFoundError, ValueError, TypeError):  # not there, or damaged: the hub is asked again
        return None


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.{secrets.token_hex(4)}.new")  # another process may be writing it too
    beside.write_text(text)
    beside.replace(file)
