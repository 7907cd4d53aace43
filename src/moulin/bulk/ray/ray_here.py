"""Ray, or an error that says how to install it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from moulin.errors import EngineError
from moulin.extras import install_hint

try:
    ray: Any = import_module("ray")
    import_module("ray.data")
except ModuleNotFoundError as error:
    raise EngineError(
        f"--executor ray needs Ray Data, and {error.name} is not installed", hint=install_hint("ray")
    ) from error
