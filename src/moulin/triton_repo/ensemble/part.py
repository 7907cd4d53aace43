"""The seam between a component's shim and its work without Triton: tensors of requests in, tensors or errors out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from moulin.errors import MoulinError

Tensors = Mapping[str, NDArray[Any]]
"""Tensors of one request by name, whose first axis is its rows; an optional input that was not given is missing."""

Ask = Callable[[str, Tensors, Sequence[str]], Sequence[NDArray[Any]]]
"""A call of another model of the repository: (model, inputs, names of outputs) to these outputs. Raises
EngineError."""


class Part(Protocol):
    def answer(self, requests: Sequence[Tensors]) -> list[Tensors | MoulinError]:
        """The outputs for each request, or its error, which does not affect the others."""

    def close(self) -> None:
        """Stop the part's threads."""
