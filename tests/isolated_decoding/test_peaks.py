"""Peaks against a plain count, however the audio comes in blocks."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import numpy as np
import pytest

from moulin.arrays import Floats
from moulin.audio.timeline import Skip
from moulin.isolated_decoding.peaks import PEAKS_A_SEC, PeaksOf

FRAME = 16_000 // PEAKS_A_SEC


class Blocks:
    def __init__(self, blocks: list[Floats | Skip]) -> None:
        self._blocks = iter(blocks)

    def __iter__(self) -> Iterator[Floats | Skip]:
        return self

    def __next__(self) -> Floats | Skip:
        return next(self._blocks)

    @property
    def warnings(self) -> tuple[str, ...]:
        return ("cut",)


def values(recording: PeaksOf) -> tuple[int, list[int]]:
    found = recording.taken()
    assert found is not None
    return found["first"], list(base64.b64decode(found["values"]))


def plain(samples: Floats) -> list[int]:
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    return [round(255 * min(1.0, float(np.abs(frame).max())) ** 0.5) for frame in frames]


@pytest.mark.parametrize("lengths", [[16_000], [1, 319, 320, 321, 640, 15_000], [7] * 500, [100, 5_000, 0, 3]])
def test_any_blocks(lengths: list[int]) -> None:
    random = np.random.default_rng(0)
    samples = (random.normal(size=sum(lengths)) * np.linspace(0, 1, sum(lengths))).astype(np.float32)
    blocks = np.split(samples, np.cumsum(lengths)[:-1])
    recording = PeaksOf(Blocks(list(blocks)))
    passed = [block for block in recording if not isinstance(block, Skip)]
    np.testing.assert_array_equal(np.concatenate(passed), samples)
    assert values(recording) == (0, plain(samples))
    assert recording.warnings == ("cut",)


def test_they_are_taken_as_they_come() -> None:
    loud = np.ones(FRAME, np.float32)
    recording = PeaksOf(Blocks([loud, loud / 4, loud[:10]]))
    assert recording.taken() is None
    next(recording)
    assert values(recording) == (0, [255])
    next(recording)
    next(recording)
    assert values(recording) == (1, [128])
    assert recording.taken() is None


def test_what_is_skipped_is_silent() -> None:
    loud = np.ones(FRAME + 10, np.float32)
    recording = PeaksOf(Blocks([loud, Skip(2 * FRAME), loud]))
    assert len(list(recording)) == 3
    assert values(recording) == (0, [255, 255, 0, 255])
