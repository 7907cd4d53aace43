"""The files of a published model to download."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from moulin.bundle.choice import NO_WISH, Mode, Wish, choose_model
from moulin.bundle.choice import Choice as ModelChoice
from moulin.bundle.vocabulary_files import find_vocabulary
from moulin.errors import BundleError
from moulin.fetch.digest import Digest
from moulin.fetch.errors import FetchError

_HERE = PurePosixPath()
# A symbolic link in a git repository is published as a small file that holds the target's name.
_LINK_BYTES = 1024


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """A file and its path within the published model."""

    path: PurePosixPath
    size: int | None = None
    digest: Digest | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """The files of one model, which all go into one folder, and the folder's name.

    `mode` comes from the names; `notes` are lines for the user about files that were not chosen.
    """

    files: tuple[PublishedFile, ...]
    variant: str
    mode: Mode | None = None
    notes: tuple[str, ...] = ()


def choose_files(
    published: Sequence[PublishedFile],
    source: str,
    *,
    inside: PurePosixPath = _HERE,
    wish: Wish = NO_WISH,
) -> Choice:
    """The files of one ONNX model or checkpoint among `published`, by the rules of `moulin.bundle.choice`.

    `inside` is a folder in it, an encoder file or a checkpoint. Icefall's own layout (`exp/`, `data/lang_*/tokens.txt`)
    is supported. Raises FetchError, which names `source`, where there is no model, or more than one.
    """
    by_path = {file.path: file for file in _without_links(published)}
    if inside.suffix in (".onnx", ".pt", ".safetensors"):
        where = source
        if inside not in by_path:
            raise FetchError(f"There is no {inside} in {source}", hint="look at its files in a browser")
    else:
        where = f"{source}/{inside}" if inside.parts else source
    try:
        model = choose_model(by_path.keys(), inside, where, wish)
        vocabulary = _vocabulary(by_path.keys(), model, where)
    except BundleError as error:
        raise FetchError(error.message, hint=error.hint or "look at its files in a browser") from None
    weights = _external_weights(by_path.keys(), model)
    paths = [*vocabulary, *reversed(model.networks), *weights]
    variant = "-".join((*model.file.parent.parts, model.file.stem, *([model.precision] if model.precision else [])))
    return Choice(tuple(by_path[path] for path in paths), variant, model.mode, model.notes)


def is_link(path: PurePosixPath, published: Sequence[PublishedFile]) -> bool:
    """Whether `path` is a network's file that holds a link, to a larger one."""
    return any(file.path == path for file in published) and path not in {
        file.path for file in _without_links(published)
    }


def _without_links(published: Sequence[PublishedFile]) -> list[PublishedFile]:
    """`published` without the networks that are as small as a link, unless all are."""
    networks = [file for file in published if file.path.suffix in (".onnx", ".pt", ".safetensors")]
    if all(file.size is None or file.size < _LINK_BYTES for file in networks):
        return list(published)
    return [file for file in published if file not in networks or file.size is None or file.size >= _LINK_BYTES]


def _vocabulary(paths: Collection[PurePosixPath], model: ModelChoice, source: str) -> list[PurePosixPath]:
    """tokens.txt with the bpe.model beside it or beside the model, or bpe.model alone."""
    tokens, bpe_model = find_vocabulary(paths, model.file, source, model.language)
    return [tokens] if bpe_model in (None, tokens) else [tokens, bpe_model]


def _external_weights(paths: Collection[PurePosixPath], model: ModelChoice) -> list[PurePosixPath]:
    """Files beside the networks that may hold their weights."""
    beside = [path for path in paths if path.parent == model.file.parent]
    onnx = [path.name for path in beside if path.suffix == ".onnx"]
    chosen = {path.name for path in model.networks}
    if model.form == "checkpoint":
        return []
    return [
        path
        for path in beside
        if (path.suffix in (".data", ".weights") or path.name.endswith((".onnx_data", ".onnx.data")))
        and _owner(path.name, onnx) in (None, *chosen)
    ]


def _owner(weights: str, onnx: Sequence[str]) -> str | None:
    """The network whose external weights a file holds, by its name; None where the name does not show it."""
    named = [name for name in onnx if weights.startswith((name, name.removesuffix(".onnx")))]
    return max(named, key=len, default=None)
