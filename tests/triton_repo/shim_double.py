"""A shim outside Triton, with a double of `triton_python_backend_utils`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Literal

import pytest


@contextmanager
def imported_shim(monkeypatch: pytest.MonkeyPatch, kind: Literal["offline", "streaming"], **more: Any) -> Iterator[Any]:
    """The module of a shim, new; `more` is what its double has beside responses and tensors."""
    utils = SimpleNamespace(
        TRITONSERVER_RESPONSE_COMPLETE_FINAL=1,
        InferenceResponse=lambda outputs=(), error=None: SimpleNamespace(outputs=outputs, error=error),
        Tensor=lambda name, array: (name, array.shape, array.tolist()),
        **more,
    )
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", utils)
    needs_triton = [
        f"moulin.triton_repo.{name}" for name in (f"{kind}_shim", f"{kind}_metrics", "published", "reply_delivery")
    ]
    for name in needs_triton:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module(needs_triton[0])
    for name in needs_triton:
        sys.modules.pop(name, None)
