"""Which checkpoint of a folder is meant. Imports no torch, so that asking costs nothing."""

from __future__ import annotations

import re
from pathlib import Path

from moulin.errors import BundleError, EngineError
from moulin.extras import install_hint

STORED_NAME = "model.safetensors"
_SUFFIXES = (".pt", ".safetensors")
_NUMBERED = re.compile(r"(?P<kind>epoch|checkpoint)-(?P<number>\d+)\.pt")


def is_checkpoint(path: Path, *, preferred: bool = False) -> bool:
    """Whether `path` is a checkpoint, or a folder that has one and no ONNX encoder. Where checkpoints are `preferred`
    the folder may have both."""
    if path.is_dir():
        return bool(_checkpoints(path)) and (preferred or not any(path.glob("encoder*.onnx")))
    return path.suffix in _SUFFIXES


def find_checkpoint(path: Path) -> Path:
    """The checkpoint that `path` names: itself, or in a folder `model.safetensors`, else `pretrained.pt`, else the last
    epoch, else the last `checkpoint-N.pt`, else the only one. Raises BundleError."""
    if not path.is_dir():
        if not path.exists():
            raise BundleError(f"There is no checkpoint at {path}")
        return path
    files = _checkpoints(path)
    named = {file.name: file for file in files}
    for name in (STORED_NAME, "pretrained.pt"):
        if name in named:
            return named[name]
    numbered = [(match["kind"] == "epoch", int(match["number"]), file) for file in files if (match := _match(file))]
    if numbered:
        return max(numbered)[2]
    if len(files) != 1:
        found = ", ".join(named) or "none"
        raise BundleError(f"Expected one checkpoint (*.pt) in {path}, found {found}", hint="name the file")
    return files[0]


def require_torch() -> None:
    """Raise EngineError where PyTorch, which reads checkpoints, is not installed."""
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError as error:
        raise EngineError(
            "Reading checkpoints needs PyTorch, which is not installed", hint=install_hint("engine,torch")
        ) from error


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix in _SUFFIXES)


def _match(file: Path) -> re.Match[str] | None:
    return _NUMBERED.fullmatch(file.name)
