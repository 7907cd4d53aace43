"""PyArrow, or an error that says how to install it."""

from __future__ import annotations

from typing import Any

from moulin.errors import EngineError
from moulin.extras import install_hint

try:
    import pyarrow
except ModuleNotFoundError as error:
    raise EngineError("moulin bulk needs PyArrow, which is not installed", hint=install_hint("bulk")) from error

pa: Any = pyarrow
