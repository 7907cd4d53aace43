"""The same audio in pieces, as a client may send it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hypothesis import strategies as st

from moulin.arrays import Floats

EVERYTHING_AT_ONCE = (10**9,)

SPLITS = st.lists(
    st.integers(0, 12_000) | st.sampled_from([0, 1, 2, 159, 160, 161, 5119, 5120, 5121]), min_size=1, max_size=8
).filter(lambda split: sum(split) >= 1000)
"""Numbers of samples of pieces, repeated until the audio is used up. (Pieces of single samples would take long, and
need no random search.)"""


def pieces(audio: Floats, split: Sequence[int]) -> Iterator[Floats]:
    """`audio` in pieces of these sizes, repeated."""
    first = 0
    while True:
        for size in split:
            yield audio[first : first + size]
            first += size
            if first >= len(audio):
                return
