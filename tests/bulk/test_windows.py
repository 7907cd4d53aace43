"""Windows of one pass through a recording, against slices of all of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from moulin.arrays import Floats
from moulin.audio.timeline import Skip
from moulin.bulk.windows import Window, Windows
from moulin.errors import AudioError

ALL = np.arange(100_000, dtype=np.float32)


class Blocks:
    """`ALL` in blocks of uneven lengths, which counts how far it was read."""

    warnings = ("of the recording",)

    def __init__(self, lengths: Sequence[int] = (1, 4097, 800, 16_000), failure: AudioError | None = None) -> None:
        self.read = 0
        self._blocks = self._made(lengths, failure)

    def _made(self, lengths: Sequence[int], failure: AudioError | None) -> Iterator[Floats | Skip]:
        for length in itertools.cycle(lengths):
            block = ALL[self.read : self.read + length]
            self.read += len(block)
            if not len(block):
                break
            yield block
        if failure:
            raise failure

    def __iter__(self) -> Iterator[Floats | Skip]:
        return self

    def __next__(self) -> Floats | Skip:
        return next(self._blocks)


def taken(blocks: Blocks, windows: Sequence[Window]) -> list[Floats]:
    one_pass = Windows(blocks, windows)
    return [
        np.concatenate([np.zeros(0, np.float32), *one_pass.take(number, "a.wav")]) for number in range(len(windows))
    ]


@pytest.mark.parametrize(
    "windows",
    [
        [(0.0, 1.0)],
        [(1.0, 0.5), (2.0, 0.5), (4.0, None)],
        [(0.0, None), (0.0, None)],
        [(0.0, 3.0), (0.5, 0.25), (0.5, 4.0), (1.0, 0.1), (6.0, 0.25)],
        [(0.0, 1 / 16000), (1 / 16000, 1 / 16000), (4097 / 16000, 1.0)],
    ],
)
@pytest.mark.parametrize("lengths", [(1, 4097, 800, 16_000), (100_000,), (7,)])
def test_windows_are_slices(windows: list[Window], lengths: Sequence[int]) -> None:
    for (offset, window), samples in zip(windows, taken(Blocks(lengths), windows), strict=True):
        begin = round(offset * 16000)
        end = len(ALL) if window is None else begin + round(window * 16000)
        assert np.array_equal(samples, ALL[begin:end]), (offset, window)


def test_nothing_is_read_behind_the_last_window() -> None:
    blocks = Blocks((800,))
    taken(blocks, [(0.5, 0.5), (1.0, 0.25)])
    assert blocks.read == 1.25 * 16000


def test_only_what_the_next_window_needs_is_kept() -> None:
    one_pass = Windows(Blocks((800,)), [(0.0, 2.0), (3.0, 1.0)])
    list(one_pass.take(0, "a.wav"))
    assert len(one_pass._kept) == 0


def test_a_part_without_audio_stays_one() -> None:
    class Skipping(Blocks):
        def _made(self, *_given: object) -> Iterator[Floats | Skip]:
            yield ALL[:16000]
            yield Skip(1_600_000)
            yield ALL[16000:32000]

    first, second = (list(Windows(Skipping(), [window]).take(0, "a.wav")) for window in [(0.5, 3.0), (100.5, 1.0)])
    assert isinstance(first[1], Skip)
    assert first[1].samples == 40_000
    assert isinstance(second[0], Skip)
    assert second[0].samples == 8000
    assert np.array_equal(np.asarray(second[1]), ALL[16000:24000])


def test_windows_beyond_the_end() -> None:
    window = Windows(Blocks(), [(6.0, 3.0)]).take(0, "a.wav")
    assert sum(len(block) for block in window if not isinstance(block, Skip)) == 4000
    assert window.warnings == ("of the recording", "the recording ends 2.8 s before the window does")
    rounded = Windows(Blocks(), [(6.0, 0.3)]).take(0, "a.wav")
    list(rounded)
    assert rounded.warnings == ("of the recording",)
    with pytest.raises(AudioError, match=r"a\.wav is 6\.25 s long, expected audio from 6\.5 s on"):
        list(Windows(Blocks(), [(6.5, 1.0)]).take(0, "a.wav"))


def test_a_failure_is_that_of_every_window_that_needs_what_comes_after() -> None:
    one_pass = Windows(Blocks(failure=AudioError("damaged")), [(0.0, 1.0), (6.0, None), (6.1, 5.0)])
    assert sum(len(block) for block in one_pass.take(0, "a.wav") if not isinstance(block, Skip)) == 16000
    for number in (1, 2):
        with pytest.raises(AudioError, match="damaged"):
            list(one_pass.take(number, "a.wav"))
