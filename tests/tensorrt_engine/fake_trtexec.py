"""A program in place of trtexec."""

from __future__ import annotations

import stat
from pathlib import Path

from moulin.tensorrt_engine.profiles import Range
from tests.bundles import BUNDLES

PROFILES = [
    {"x": Range((1, 9, 80), (4, 50, 80), (8, 100, 80)), "x_lens": Range((1,), (4,), (8,))},
    {"x": Range((1, 100, 80), (4, 200, 80), (8, 400, 80)), "x_lens": Range((1,), (4,), (8,))},
]


CONFORMER = BUNDLES / "conformer-offline"


def trtexec(folder: Path, *, banner: str = "&&&& RUNNING TensorRT.trtexec [TensorRT v100300]", ends: str = "") -> Path:
    """A trtexec that writes down what it was told, and a plan with a copy of the graph."""
    file = folder / "trtexec"
    file.write_text(
        f"""#!/bin/sh
echo '{banner} # trtexec'
[ "$1" = --help ] && exit 0
for argument in "$@"; do
  echo "$argument" >> {folder}/told
  case "$argument" in --onnx=*) onnx="${{argument#*=}}";; --saveEngine=*) plan="${{argument#*=}}";; esac
done
{ends or 'cp "$onnx" "$plan"'}
"""
    )
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return file
