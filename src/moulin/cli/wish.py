"""From options on the command line to which of a model's forms they mean."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moulin.bundle.choice import Form, Mode, Wish
    from moulin.bundle.precision import Precision
    from moulin.models.engines import Engine


def mode_of(streaming: bool | None) -> Mode | None:
    """What `--streaming/--offline` asks for; None where neither was given."""
    if streaming is None:
        return None
    return "streaming" if streaming else "offline"


def wish_of(
    *,
    precision: Precision | None,
    device: str,
    engine: Engine | None = None,
    mode: Mode | None = None,
    language: str | None = None,
    onnx_only: bool = False,
) -> Wish:
    """On a GPU with PyTorch a checkpoint is taken before ONNX files, unless the engine or `onnx_only` says otherwise.

    Raises OptionsError where `device` is no device.
    """
    from moulin.bundle.choice import Wish

    form: Form | None = None
    if onnx_only or engine in ("onnxruntime", "tensorrt"):
        form = "onnx"
    elif engine == "torch" or _runs_checkpoints(device):
        form = "checkpoint"
    return Wish(precision, mode, language, form)


def _runs_checkpoints(device: str) -> bool:
    from moulin.engine.device import gpu_index

    return gpu_index(device) is not None and importlib.util.find_spec("torch") is not None
