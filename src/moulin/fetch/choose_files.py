"""Which files of a published model are worth bringing here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from moulin.bundle.checkpoint_files import find_checkpoint
from moulin.bundle.files import Precision, find_bundle_files
from moulin.errors import BundleError
from moulin.fetch.digest import Digest
from moulin.fetch.errors import FetchError

_HERE = PurePosixPath()
# More than these would bring what is no checkpoint of Icefall's, like jit_script.pt.
_CHECKPOINT = re.compile(r"pretrained(-[\w-]+)?\.pt|(epoch|checkpoint)-\d+\.pt|model\.safetensors")


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """A file and where it is in what is published."""

    path: PurePosixPath
    size: int | None = None
    digest: Digest | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """The files of one model, which all go into one folder, and a word for which model it is."""

    files: tuple[PublishedFile, ...]
    variant: str


def choose_files(
    published: Sequence[PublishedFile],
    source: str,
    *,
    inside: PurePosixPath = _HERE,
    precision: Precision | None = None,
) -> Choice:
    """What is needed of `published` by the rules of `find_bundle_files`: one ONNX model, else one checkpoint.

    `inside` is a folder of it, an encoder file or a checkpoint. Icefall's own layout (`exp/`,
    `data/lang_*/tokens.txt`) is understood. FetchError, about `source`, where there is no model, or more than one.
    """
    if named := [file for file in published if file.path == inside and inside.suffix == ".pt"]:
        return _checkpoint_choice(published, named[0], source)
    encoder = inside if inside.suffix == ".onnx" else None
    top = encoder.parent if encoder else inside
    below = [file for file in published if file.path.is_relative_to(top)]
    encoders = [file for file in below if fnmatch(file.path.name, "encoder*.onnx")]
    if encoders and (encoder is None or any(file.path == encoder for file in encoders)):
        folder = _one_folder(encoders, top, source)
        return _onnx_choice(published, folder, source, encoder, precision)
    checkpoints = [file for file in below if _CHECKPOINT.fullmatch(file.path.name)]
    if checkpoints and encoder is None:
        folder = _one_folder(checkpoints, top, source)
        best = _best_checkpoint([file for file in checkpoints if file.path.parent == folder], source)
        return _checkpoint_choice(published, best, source)
    where = f"{source}/{inside}" if inside.parts else source
    raise FetchError(
        f"There is no transducer in {where}: expected encoder*.onnx, decoder*.onnx and joiner*.onnx, or a checkpoint",
        hint="look at its files in a browser; a CTC or attention model is another kind of model",
    )


def _checkpoint_choice(published: Sequence[PublishedFile], checkpoint: PublishedFile, source: str) -> Choice:
    folder = checkpoint.path.parent
    files = (*_vocabulary(published, folder, source), checkpoint)
    return Choice(files, "-".join((*folder.parts, checkpoint.path.stem)))


def _onnx_choice(
    published: Sequence[PublishedFile],
    folder: PurePosixPath,
    source: str,
    encoder: PurePosixPath | None,
    precision: Precision | None,
) -> Choice:
    vocabulary = _vocabulary(published, folder, source)
    onnx = {file.path.name: file for file in published if file.path.parent == folder and file.path.suffix == ".onnx"}
    with _stand_in([*onnx, *(file.path.name for file in vocabulary)]) as folder_of_names:
        try:
            chosen = find_bundle_files(folder_of_names / encoder.name if encoder else folder_of_names, precision)
        except BundleError as error:
            several = " models: " in error.message
            raise FetchError(
                error.message.replace(str(folder_of_names), source),
                hint=f"name one: {source}/ENCODER.onnx" if several else error.hint or "look at its files in a browser",
            ) from None
    parts = {file.name: onnx[file.name] for file in (chosen.decoder, chosen.joiner, chosen.encoder)}
    weights = [
        file
        for file in published
        if file.path.parent == folder
        and file.path.suffix in (".data", ".weights")
        and _owner(file.path.name, onnx) in (None, *parts)
    ]
    variant = "-".join((*folder.parts, *([encoder.stem] if encoder else []), chosen.precision))
    return Choice((*vocabulary, *parts.values(), *weights), variant)


def _one_folder(files: Sequence[PublishedFile], top: PurePosixPath, source: str) -> PurePosixPath:
    """The folder that holds the model: `top` or its `exp`, or the only one."""
    folders = sorted({file.path.parent for file in files})
    for usual in (top, top / "exp"):
        if usual in folders:
            return usual
    if len(folders) == 1:
        return folders[0]
    raise FetchError(
        f"{source} holds {len(folders)} models: {', '.join(map(str, folders))}", hint=f"name one: {source}/{folders[0]}"
    )


def _vocabulary(published: Sequence[PublishedFile], folder: PurePosixPath, source: str) -> list[PublishedFile]:
    """tokens.txt and, beside it or beside the model, bpe.model."""
    by_path = {file.path: file for file in published}
    everywhere = sorted(path for path in by_path if path.name == "tokens.txt")
    usual = [folder / "tokens.txt", folder.parent / "tokens.txt"]
    tokens = next((path for path in usual if path in by_path), everywhere[0] if len(everywhere) == 1 else None)
    if tokens is None and everywhere:
        raise FetchError(
            f"{source} has {len(everywhere)} vocabularies: {', '.join(map(str, everywhere))}",
            hint="fetch it by hand, with the tokens.txt that the model was trained with",
        )
    if tokens is None:
        raise FetchError(f"{source} has no tokens.txt", hint="without it nothing says what the model's outputs mean")
    bpe_models = (by_path.get(where / "bpe.model") for where in (tokens.parent, folder))
    return [by_path[tokens], *[file for file in bpe_models if file][:1]]


def _owner(weights: str, onnx: Sequence[str] | dict[str, PublishedFile]) -> str | None:
    """Whose external weights a file holds, by its name; None where the name does not say."""
    named = [name for name in onnx if weights.startswith((name, name.removesuffix(".onnx")))]
    return max(named, key=len, default=None)


def _best_checkpoint(checkpoints: Sequence[PublishedFile], source: str) -> PublishedFile:
    with _stand_in([file.path.name for file in checkpoints]) as folder:
        try:
            best = find_checkpoint(folder).name
        except BundleError:
            found = ", ".join(sorted(str(file.path) for file in checkpoints))
            raise FetchError(
                f"{source} holds {len(checkpoints)} checkpoints: {found}",
                hint=f"name one: {source}/{checkpoints[0].path}",
            ) from None
    return next(file for file in checkpoints if file.path.name == best)


@contextmanager
def _stand_in(names: Sequence[str]) -> Iterator[Path]:
    """Empty files of these names: the rules that choose on disk look at names alone, so they choose here as well."""
    with TemporaryDirectory(prefix="moulin-") as folder:
        for name in names:
            (Path(folder) / name).touch()
        yield Path(folder)
