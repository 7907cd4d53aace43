"""The location of a model's vocabulary: `tokens.txt`, or the `bpe.model` that it is made from."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import PurePosixPath

from moulin.bundle.file_names import is_checkpoint_name
from moulin.errors import BundleError

_UNIGRAM = re.compile(r"(?:unigram|bpe)_\d+\.model")


def find_vocabulary(
    paths: Collection[PurePosixPath], model: PurePosixPath, about: str, language: str | None = None
) -> tuple[PurePosixPath, PurePosixPath | None]:
    """The vocabulary of the encoder or checkpoint `model`, tokens.txt or else bpe.model, and the bpe.model if any.

    tokens.txt is beside the model, one folder up, or the only one elsewhere (`data/lang_*/`, `lang/`). Raises
    BundleError where there is none, or where several are possible.
    """
    tokens = _find(paths, model, _token_names(language), about)
    if tokens is not None:
        return tokens, _beside(paths, (tokens.parent, model.parent), language)
    bpe_model = _find(paths, model, _bpe_names(language), about) or _unigram(paths)
    if bpe_model is None:
        what = f"{language}_tokens.txt or tokens.txt" if language else "tokens.txt"
        raise BundleError(
            f"{about} has no {what}",
            hint="copy it, or the bpe.model, from the language folder the model was trained with; for a checkpoint "
            "--tokens names it",
        )
    return bpe_model, bpe_model


def _find(
    paths: Collection[PurePosixPath], model: PurePosixPath, names: Sequence[str], about: str
) -> PurePosixPath | None:
    """The file nearest to `model` with the first of `names` that occurs."""
    for name in names:
        for folder in (model.parent, model.parent.parent):
            if folder / name in paths:
                return folder / name
        elsewhere = sorted(path for path in paths if path.name == name)
        for kind in (_is_of_phones, lambda path: _holds_a_model(path.parent, paths)):
            elsewhere = [path for path in elsewhere if not kind(path)] or elsewhere
        if len(elsewhere) > 1:
            raise BundleError(
                f"{about} has {len(elsewhere)} vocabularies: {', '.join(map(str, elsewhere))}",
                hint="copy the one that the model was trained with beside it; for a checkpoint --tokens names it",
            )
        if elsewhere:
            return elsewhere[0]
    return None


def _token_names(language: str | None) -> list[str]:
    if language is None:
        return ["tokens.txt"]
    patterns = ("{}_tokens.txt", "{}-tokens.txt", "tokens_{}.txt", "tokens-{}.txt")
    return [*(pattern.format(language) for pattern in patterns), "tokens.txt"]


def _bpe_names(language: str | None) -> list[str]:
    """Names of a SentencePiece model; Icefall's recipes call a byte-level one bbpe.model."""
    return ([f"{language}_bpe.model", f"{language}-bpe.model"] if language else []) + ["bpe.model", "bbpe.model"]


def _beside(
    paths: Collection[PurePosixPath], folders: Sequence[PurePosixPath], language: str | None
) -> PurePosixPath | None:
    candidates = (folder / name for name in _bpe_names(language) for folder in folders)
    return next((path for path in candidates if path in paths), None)


def _unigram(paths: Collection[PurePosixPath]) -> PurePosixPath | None:
    """`unigram_500.model`, which Icefall's recipes copy to bpe.model."""
    found = [path for path in paths if _UNIGRAM.fullmatch(path.name)]
    return found[0] if len(found) == 1 else None


def _is_of_phones(path: PurePosixPath) -> bool:
    """Whether `path` is a phone vocabulary, which no transducer of the recipes uses."""
    return path.parent.name.startswith("lang_phone")


def _holds_a_model(folder: PurePosixPath, paths: Collection[PurePosixPath]) -> bool:
    """Whether `folder` holds a model of its own, to which its vocabulary belongs."""
    return any(
        path.parent == folder and (path.suffix == ".onnx" or is_checkpoint_name(path)) for path in paths
    ) and not folder.name.startswith("lang")
