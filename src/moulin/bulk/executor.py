"""The seam between a run and what does its work: processes of this machine (`local/`), or Ray's cluster (`ray/`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Output(Protocol):
    """Where transcripts go."""

    def add(self, transcribed: Any) -> None: ...
    def write_if_old(self) -> None: ...


class Executor(Protocol):
    """Transcribes rows once."""

    def start(self) -> None:
        """Begin to load the model; rows may come later."""

    def stop(self) -> None:
        """Take up no more work: `run` returns soon."""

    def run(self, pending: Any, output: Output, on_look: Callable[[], None] = lambda: None) -> bool:
        """Transcribe the rows of a table of the schema RECORDINGS; returns whether all are done.

        `on_look` is called several times a second, and may call `stop`. Raises EngineError where the model cannot be
        used, and what the output raises.
        """

    def close(self) -> None:
        """Give everything back."""
