"""icefall/byte_utils.py as documented: byte b is written as the b-th of these code points."""

from __future__ import annotations

import re

# 256 characters from U+0100 and the printable ASCII range on, without those that NFKC normalisation would change.
_CODE_POINTS = [
    *range(0x100, 0x120),
    *range(0x20, 0x7F),
    *range(0x120, 0x132),
    *range(0x134, 0x13F),
    *range(0x141, 0x149),
    *range(0x14A, 0x17F),
    *range(0x180, 0x1A7),
]
BYTE_CHARS = "".join(map(chr, _CODE_POINTS))
assert len(BYTE_CHARS) == 256


def byte_encode(text: str) -> str:
    """`text` with whitespace as single spaces and every byte of its UTF-8 as one printable character."""
    return "".join(BYTE_CHARS[byte] for byte in re.sub(r"\s+", " ", text).encode("utf-8"))
