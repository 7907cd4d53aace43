"""The files of a model's folder, and the vocabularies in the folders above it, where recipes keep them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from moulin.errors import BundleError

# A git clone of a published recipe has `data/lang_bpe_500/tokens.txt` and `exp/onnx/encoder.onnx`; deeper folders and
# those with very many files hold no model.
_MAX_DEPTH = 4
_MAX_FILES = 20_000
_VOCABULARIES = ("*tokens*.txt", "*.model")
_EXPERIMENTS = ("exp", "onnx", "am", "am-onnx")


def files_around(model: Path) -> tuple[frozenset[PurePosixPath], PurePosixPath]:
    """Absolute paths of the files in and below the folder `model` (or the folder of the file `model`), and of the
    vocabularies one folder up, or two for a recipe's experiment; and the absolute path of `model` itself. Raises
    BundleError where the folder cannot be read.
    """
    absolute = Path(os.path.abspath(model))  # noqa: PTH100 (resolve() would leave a hub cache's folder of links)
    top = absolute if absolute.is_dir() else absolute.parent
    try:
        found = list(_below(top, _MAX_DEPTH if top == absolute else 0))
        vocabularies = [*_vocabularies(top), *_vocabularies(top.parent)]
        if top.parent.name in _EXPERIMENTS:
            vocabularies += _vocabularies(top.parent.parent)
        elif not vocabularies and top.name.startswith("exp"):  # zipformer/exp beside data/lang_bpe_500
            vocabularies += _of_languages(top.parent.parent)
        found += vocabularies
    except OSError as error:
        raise BundleError(f"{model} cannot be read: {error.strerror or error}") from None
    return frozenset(map(PurePosixPath, found)), PurePosixPath(absolute)


def _below(top: Path, depth: int) -> Iterator[Path]:
    count = 0
    seen: set[Path] = set()
    for folder, folders, files in os.walk(top, followlinks=True):
        real = Path(folder).resolve()
        if real in seen:  # reached before through a symbolic link
            folders.clear()
            continue
        seen.add(real)
        level = len(Path(folder).relative_to(top).parts)
        # A folder called *.onnx is listed as a file, so that `read_onnx_graph` refuses it with a message.
        files += [name for name in folders if name.endswith(".onnx")]
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if level < depth else []
        for name in files:
            count += 1
            if count > _MAX_FILES:
                return
            yield Path(folder, name)


def _vocabularies(folder: Path) -> list[Path]:
    """`tokens.txt` and `bpe.model` in `folder` and its `data/`, `data/lang_*/` and `lang*/`."""
    beside = [file for pattern in _VOCABULARIES for file in _matching(folder, pattern)]
    return [*beside, *_of_languages(folder)]


def _of_languages(folder: Path) -> list[Path]:
    places = [folder / "data", *_matching(folder, "lang*"), *_matching(folder / "data", "lang*")]
    return [file for place in places for pattern in _VOCABULARIES for file in _matching(place, pattern)]


def _matching(folder: Path, pattern: str) -> list[Path]:
    try:
        return sorted(folder.glob(pattern))
    except PermissionError:  # a folder above the model may belong to another user
        return []
