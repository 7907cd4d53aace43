"""Ray, or an error that says how to install it."""

from __future__ import annotations

from moulin.errors import EngineError
from moulin.extras import install_hint

try:
    import ray.data
except ModuleNotFoundError as error:
    raise EngineError(
        f"--executor ray needs Ray Data, and {error.name} is not installed", hint=install_hint("ray")
    ) from error

__all__ = ["ray"]
