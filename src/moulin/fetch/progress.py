"""Progress callbacks of a fetch."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called before the first bytes of `name` and after each piece, with the bytes done and the total if known."""

    def __call__(self, name: str, done: int, total: int | None, /) -> None: ...


def silent(_name: str, _done: int, _total: int | None) -> None:
    """The default: no progress."""
