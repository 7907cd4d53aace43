"""What goes wrong between here and where a model is published."""

from __future__ import annotations

from moulin.errors import MoulinError


class FetchError(MoulinError):
    """A model cannot be fetched, or what came is not what was promised."""


class Unreachable(FetchError):
    """Nobody answers; a model that was fetched before can still be used."""


def size_text(size: int) -> str:
    """`size` in bytes for people: 950 kB, 262.0 MB."""
    return f"{size / 1e6:,.1f} MB" if size >= 1_000_000 else f"{(size + 999) // 1000} kB"
