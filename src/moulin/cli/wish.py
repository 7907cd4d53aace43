"""The form of a model that options of the command line ask for."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moulin.bundle.choice import Form, Mode, Wish
    from moulin.models.engine_choice import EngineChoice


def mode_of(streaming: bool | None) -> Mode | None:
    """The mode of `--streaming/--offline`; None where neither was given."""
    if streaming is None:
        return None
    return "streaming" if streaming else "offline"


def wish_of(
    engine: EngineChoice, *, mode: Mode | None = None, language: str | None = None, onnx_only: bool = False
) -> Wish:
    """The wish by flags. On a GPU with PyTorch it prefers a checkpoint, unless `engine` or `onnx_only` differs."""
    from moulin.bundle.choice import Wish
    from moulin.models.engines import RUNTIMES

    form: Form | None = None
    if onnx_only:
        form = "onnx"
    elif engine.named is not None:
        form = RUNTIMES[engine.named].form
    elif engine.gpu is not None and importlib.util.find_spec("torch") is not None:
        form = "checkpoint"
    return Wish(engine.file_precision, mode, language, form, engine.head)
