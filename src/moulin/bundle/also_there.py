"""The models beside a chosen one, in the same folder, and what takes each of them instead."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

from moulin.bundle.choice import Wish, choose_model, is_aside
from moulin.bundle.file_names import (
    checkpoint_rank,
    is_checkpoint_name,
    parse_ctc_name,
    parse_onnx_name,
    training_rank,
)
from moulin.bundle.folder_files import files_around
from moulin.bundle.precision import PRECISIONS
from moulin.errors import BundleError

ITS_PATH = "its path"
_OF_TRAINING = re.compile(r"(?P<kind>epoch|checkpoint)-(?P<number>\d+)\.pt")
_FLAGS = {"epoch": "--epoch", "checkpoint": "--iter"}


def also_there(model: Path, chosen: Collection[Path]) -> dict[str, str]:
    """By its path in the folder each encoder, CTC model and checkpoint at `model` that is not among `chosen`, with the
    flag of `moulin serve` that takes it; `ITS_PATH` where it has to be named instead of the folder.

    Those with a flag come first, then the others, the last of a training first. Raises BundleError where the folder
    cannot be read.
    """
    paths, inside = files_around(model)
    top = inside if model.is_dir() else inside.parent
    taken = {PurePosixPath(os.path.abspath(path)) for path in chosen}  # noqa: PTH100 (as `files_around` has them)
    there = {path for path in paths if path.is_relative_to(top) and not is_aside(path, top) and _is_model(path)} - taken
    by_flag: dict[PurePosixPath, str] = {}
    for flag, wish in _wishes(there):
        with suppress(BundleError):  # the rules cannot fulfil it
            by_flag.setdefault(choose_model(paths, inside, str(top), wish).file, flag)
    first = [path for path in by_flag if path in there]
    rest = sorted(there.difference(first), key=lambda path: (_age(path), path))
    return {str(path.relative_to(top)): by_flag.get(path) or _by_number(path, top) for path in (*first, *rest)}


def _is_model(path: PurePosixPath) -> bool:
    """Whether the file is one by which a model can be named."""
    name = parse_onnx_name(path)
    return name.role == "encoder" if name else parse_ctc_name(path) is not None or is_checkpoint_name(path)


def _wishes(there: Collection[PurePosixPath]) -> Iterator[tuple[str, Wish]]:
    for precision in PRECISIONS:
        yield f"--precision {precision}", Wish(precision)
    yield "--head ctc", Wish(head="ctc")
    yield "--offline", Wish(mode="offline")
    yield "--streaming", Wish(mode="streaming")
    for language in sorted({name.language for path in there if (name := parse_onnx_name(path)) and name.language}):
        yield f"--language {language}", Wish(language=language)
    yield "--engine torch", Wish(form="checkpoint")


def _age(path: PurePosixPath) -> tuple[int, ...]:
    """A sort key: exports before checkpoints, and the last of a training first."""
    if name := parse_onnx_name(path) or parse_ctc_name(path):
        return 0, *(-number for number in training_rank(name.label))
    return 1, *(-number for number in checkpoint_rank(path) or (0,))


def _by_number(path: PurePosixPath, top: PurePosixPath) -> str:
    training = _OF_TRAINING.fullmatch(path.name)
    return f"{_FLAGS[training['kind']]} {training['number']}" if training and path.parent == top else ITS_PATH
