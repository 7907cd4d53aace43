"""Resolution of a published model's name to a folder with its files."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from moulin.bundle.choice import NO_WISH, Wish
from moulin.errors import OptionsError
from moulin.fetch.archive import ArchiveUrl, fetch_archive, parse_archive_url
from moulin.fetch.errors import FetchError
from moulin.fetch.fetched import Fetched
from moulin.fetch.hub import HubModel, fetch_from_hub
from moulin.fetch.known_models import KNOWN_MODELS, known_model
from moulin.fetch.progress import Progress, silent
from moulin.fetch.published_path import is_plain
from moulin.quoting import cut, quoted

_MOST_ADDRESS = 2000

# Arguments that went through pathlib have one slash where two were.
_HUB = re.compile(r"(?a)hf:/{1,2}(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^/@]+))?(?P<inside>/[^@]*)?")
_URL = re.compile(r"(?P<scheme>https?):/{1,2}(?P<rest>[^/].*)")
_HUB_PAGE = re.compile(
    r"(?a)https?://(?:huggingface\.co|hf\.co)/(?P<repository>[\w.-]+/[\w.-]+)(?:/tree/(?P<revision>[^/]+)(?P<inside>/.*)?)?/?"
)

Source = HubModel | ArchiveUrl


def parse_source(text: str, revision: str | None = None) -> Source | None:
    """The place where the model `text` is published: `hf://…`, a URL, or a known name. None for any other text.

    Raises OptionsError or FetchError for a malformed one.
    """
    if len(text) > _MOST_ADDRESS or not text.isprintable():
        raise FetchError(f"Expected the name or address of a model, got {quoted(text)}")
    if known := known_model(text):
        return parse_source(known.source.partition("@")[0] if revision else known.source, revision)
    if text.startswith("hf:/"):
        match = _HUB.fullmatch(text)
        if match is None:
            raise FetchError(
                f"Expected hf://owner/name[@revision][/folder], got {cut(text, 200)}",
                hint="as in the model's address there",
            )
        return _hub_model(match, revision)
    url = _URL.fullmatch(text)
    if url is None:
        return None
    address = f"{url['scheme']}://{url['rest']}"
    if page := _HUB_PAGE.fullmatch(address):
        return _hub_model(page, revision)
    if revision is not None:
        raise OptionsError("--revision is for models on the Hugging Face hub, not for an archive")
    return parse_archive_url(address)


def fetch_model(
    text: str,
    cache: Path,
    *,
    revision: str | None = None,
    wish: Wish = NO_WISH,
    progress: Progress = silent,
) -> Fetched:
    """Fetch the model `text` into `cache`, unless it is there."""
    source = parse_source(text, revision)
    try:
        if isinstance(source, HubModel):
            return fetch_from_hub(source, cache, wish=wish, progress=progress)
        if isinstance(source, ArchiveUrl):
            return fetch_archive(source, cache, wish=wish, progress=progress)
    except OSError as error:
        raise FetchError(
            f"Cannot keep {text} in {cache}: {error.strerror or error}",
            hint="make room there, or set XDG_CACHE_HOME to another folder",
        ) from error
    looks_like_hub = re.fullmatch(r"[\w.-]+/[\w.-]+", text)
    raise FetchError(
        f"Expected a known name, hf://owner/name or an address (https://…), got {quoted(text, 200)}",
        hint=f"hf://{text}?"
        if looks_like_hub
        else f"known names are {', '.join(model.name for model in KNOWN_MODELS)}",
    )


def _hub_model(match: re.Match[str], revision: str | None) -> HubModel:
    named = match["revision"]
    if {".", ".."}.intersection(match["repository"].split("/")):  # it becomes a folder of the cache
        raise FetchError(f"Expected hf://owner/name, got {match['repository']}")
    if revision is not None and named is not None:
        raise OptionsError(f"Expected one revision, got {named} and {revision}")
    inside = PurePosixPath((match["inside"] or "").strip("/"))
    if inside.parts and not is_plain(inside):
        raise FetchError(f"Expected a folder or file of {match['repository']}, got {quoted(str(inside))}")
    return HubModel(match["repository"], unquote(revision or named or "main"), inside)
