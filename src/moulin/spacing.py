"""Spaces between words, which some scripts do not have."""

from __future__ import annotations


def is_cjk(char: str) -> bool:
    """Whether `char` is of a script written without spaces between words (Han, Kana; Korean has spaces)."""
    code = ord(char)
    return (
        0x3040 <= code <= 0x30FF
        or 0x3400 <= code <= 0x4DBF
        or 0x4E00 <= code <= 0x9FFF
        or 0xF900 <= code <= 0xFAFF
        or 0x20000 <= code <= 0x3FFFF
    )


def join_texts(left: str, right: str) -> str:
    """Two pieces of a transcript joined, with a space between them unless both sides are of a script without spaces."""
    if not left or not right:
        return left or right
    return f"{left}{right}" if is_cjk(left[-1]) and is_cjk(right[0]) else f"{left} {right}"
