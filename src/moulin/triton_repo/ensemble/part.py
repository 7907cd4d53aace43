"""What a component does, without Triton: tensors of several requests in, tensors or errors out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from moulin.errors import MoulinError

Tensors = Mapping[str, NDArray[Any]]
"""By name, each with the rows of one request first; an optional input that was not given is not there."""

Ask = Callable[[str, Tensors, Sequence[str]], Sequence[NDArray[Any]]]
"""(model, inputs, names of outputs) to these outputs of another model of the repository. Raises EngineError."""


class Part(Protocol):
    def answer(self, requests: Sequence[Tensors]) -> list[Tensors | MoulinError]:
        """The outputs for each request, or what is wrong with it, which touches no other."""

    def close(self) -> None:
        """Stop the part's threads."""
