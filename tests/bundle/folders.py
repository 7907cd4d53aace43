"""Folders with empty files of given names."""

from __future__ import annotations

from pathlib import Path

MODEL = ("encoder.onnx", "decoder.onnx", "joiner.onnx")


def touch(folder: Path, *names: str) -> None:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
