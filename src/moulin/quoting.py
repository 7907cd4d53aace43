"""Text of clients and files in messages: quoted and cut.

A message ends up in a terminal, a log line, an HTTP body, a gRPC trailer (8 kB with everything else in it) or the
reason of a WebSocket's close. What somebody else wrote may be of any length and of any characters, so it goes through
`quoted`; `cut` is for text that is shown without quotes, and for whole messages.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

MOST_QUOTED = 100
"""Characters of one value in a message."""

MOST_MESSAGE_BYTES = 2000
"""Bytes of a whole message. gRPC sends bytes beyond ASCII as three, and both sides refuse more than 8 kB."""

_MOST_BITS, _MOST_DIGITS = 10_000, 500
_MOST_ITEMS = 4
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def quoted(value: object, most: int = MOST_QUOTED) -> str:
    """`repr(value)` with at most about `most` characters, on one line, in time and memory that do not grow with
    `value`. Lone surrogates come out as escapes."""
    match value:
        case str() | bytes() | bytearray():
            if len(value) <= most:
                return repr(value)
            unit = "characters" if isinstance(value, str) else "bytes"
            return f"{value[: most - most // 5]!r}… ({len(value):,} {unit})"
        case None | bool() | float() | complex():
            return repr(value)
        case int():
            if value.bit_length() > _MOST_BITS:  # Python writes no more than 4,300 digits, and slowly
                return f"a number of {value.bit_length():,} bits"
            digits = repr(value)
            return digits if len(digits) <= _MOST_DIGITS else f"{digits[:_MOST_DIGITS]}… ({len(digits):,} digits)"
        case list() | tuple() if len(value) <= _MOST_ITEMS and most >= _MOST_ITEMS:
            inside = ", ".join(quoted(item, most // (len(value) + 1)) for item in value)
            return f"[{inside}]" if isinstance(value, list) else f"({inside}{',' if len(value) == 1 else ''})"
        case dict() if len(value) <= _MOST_ITEMS and most >= _MOST_ITEMS:
            share = most // (2 * len(value) + 1)
            return "{" + ", ".join(f"{quoted(k, share)}: {quoted(v, share)}" for k, v in value.items()) + "}"
        case list() | tuple() | dict() | set() | frozenset():
            return f"a {type(value).__name__} of {len(value):,}"
    return f"a {type(value).__name__}"


def listed(names: Iterable[object], most: int = 6) -> str:
    """The first `most` of `names`, cut and joined by commas, with the number of those left out; `none` for none."""
    every = list(names)
    shown = [cut(str(name), MOST_QUOTED) for name in every[:most]]
    more = [f"{len(every) - most:,} more"] if len(every) > most else []
    return ", ".join([*shown, *more]) or "none"


def cut(text: str, most: int = MOST_QUOTED) -> str:
    """`text` on one line: at most `most` characters, all printable. Others are written as escapes."""
    short = text if len(text) <= most else f"{text[: max(0, most - 1)]}…"
    return short if short.isprintable() else "".join(_shown(char) for char in short)[:most]


def bounded(text: str, most_bytes: int = MOST_MESSAGE_BYTES) -> str:
    """`text` in at most `most_bytes` bytes of UTF-8, lone surrogates replaced; line breaks stay."""
    data = text[:most_bytes].encode("utf-8", "replace")
    if len(data) <= most_bytes and len(text) <= most_bytes:
        return data.decode()
    return data[: max(0, most_bytes - 3)].decode("utf-8", "ignore") + "…"


def _shown(char: str) -> str:
    return char if char.isprintable() else char.encode("unicode_escape").decode("ascii")


def without_controls(text: str) -> str:
    """`text` with escapes for line ends, tabs and other control characters: a field of a line. All else stays, lone
    surrogates too, which are bytes of a file's name."""
    return _CONTROLS.sub(lambda found: _shown(found[0]), text)
