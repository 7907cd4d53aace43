"""How a caller follows a fetch; nobody has to."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called before the first bytes of `name` and after each piece, with what is there and what there will be."""

    def __call__(self, name: str, done: int, total: int | None, /) -> None: ...


def silent(_name: str, _done: int, _total: int | None) -> None:
    """For callers who do not follow."""
