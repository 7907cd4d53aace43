"""Whether checkpoints can be read here."""

from __future__ import annotations

from moulin.errors import EngineError


def need_torch() -> None:
    """Raise EngineError where PyTorch is not installed."""
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError as error:
        raise EngineError(
            "Reading checkpoints needs PyTorch, which is not installed", hint="pip install 'moulin[engine,torch]'"
        ) from error
