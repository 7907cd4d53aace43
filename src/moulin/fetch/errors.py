"""Errors of fetching a published model."""

from __future__ import annotations

from moulin.errors import MoulinError


class FetchError(MoulinError):
    """A model cannot be fetched, or the received files are not as published."""


class Unreachable(FetchError):
    """The server does not answer; a model fetched before can still be used."""


def size_text(size: int) -> str:
    """`size` in bytes for display: 950 kB, 262.0 MB."""
    return f"{size / 1e6:,.1f} MB" if size >= 1_000_000 else f"{(size + 999) // 1000} kB"
