"""The checkpoint that a path or a folder stands for. Imports no torch, so that checking is fast."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from moulin.bundle.choice import Wish
from moulin.bundle.file_names import STORED_NAME as STORED_NAME
from moulin.bundle.file_names import is_checkpoint_name
from moulin.bundle.files import choose_on_disk
from moulin.bundle.folder_files import files_around
from moulin.bundle.untrusted_file import errors_of
from moulin.errors import BundleError, EngineError
from moulin.extras import install_hint

_SUFFIXES = (".pt", ".safetensors")


def is_checkpoint(path: Path, *, preferred: bool = False) -> bool:
    """Whether `path` is a checkpoint, or a folder with a checkpoint and no ONNX encoder; with `preferred` it may also
    have both."""
    with errors_of(path):
        is_folder = path.is_dir()
    if not is_folder:
        return path.suffix in _SUFFIXES
    try:
        return choose_on_disk(path, Wish(form="checkpoint" if preferred else "onnx")).form == "checkpoint"
    except BundleError:  # reading the folder will raise it again
        return False


def find_checkpoint(path: Path) -> Path:
    """The checkpoint at `path`, or the one that the rules of `choice` select in the folder. Raises BundleError."""
    with errors_of(path):
        is_folder, exists = path.is_dir(), path.exists()
    if not is_folder:
        if not exists:
            raise BundleError(f"There is no checkpoint at {path}")
        return path
    try:
        choice = choose_on_disk(path, Wish(form="checkpoint"))
    except BundleError as error:
        raise BundleError(f"Expected one checkpoint (*.pt) in {path}, found {_names(path)}", hint=error.hint) from None
    if choice.form != "checkpoint":
        raise BundleError(f"Expected one checkpoint (*.pt) in {path}, found none", hint="name the file")
    return Path(choice.file)


def _names(folder: Path) -> str:
    paths, top = files_around(folder)
    names = [str(path.relative_to(top)) for path in sorted(paths) if path.is_relative_to(top)]
    return ", ".join(name for name in names if is_checkpoint_name(PurePosixPath(name))) or "none"


def require_torch() -> None:
    """Raise EngineError where PyTorch, which reads checkpoints, is not installed."""
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError as error:
        raise EngineError(
            "Reading checkpoints needs PyTorch, which is not installed", hint=install_hint("engine,torch")
        ) from error
