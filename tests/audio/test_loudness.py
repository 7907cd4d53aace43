"""The loudness of frames, of whole recordings and of streams in pieces."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moulin.arrays import Floats
from moulin.audio.loudness import LoudnessTracks, loudness

FRAME = 640


def noise(count: int, level: float = 0.1, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(0, level, count).astype(np.float32)


@pytest.mark.parametrize("level", [0.3, 0.1, 1e-3])
def test_half_decibels_above_the_floor(level: float) -> None:
    expected = 2 * (20 * np.log10(level) + 100)
    assert loudness(noise(64_000, level), FRAME) == pytest.approx(np.full(100, expected), abs=8)


def test_an_offset_is_not_loud() -> None:
    assert loudness(np.full(6400, 0.7, np.float32), FRAME).max() == 0
    offset = loudness(noise(6400, 0.01) + np.float32(0.5), FRAME).astype(int)
    assert offset == pytest.approx(loudness(noise(6400, 0.01), FRAME).astype(int), abs=2)


@pytest.mark.parametrize("scale", [1e3, 1e25])
def test_far_too_loud(scale: float) -> None:
    assert loudness(noise(1280) * np.float32(scale), FRAME).tolist() == [255, 255]


def test_samples_of_16_bits() -> None:
    samples = (noise(6400) * 32767).astype(np.int16)
    assert loudness(samples, FRAME).tolist() == loudness(samples.astype(np.float32) / 32768, FRAME).tolist()


@pytest.mark.parametrize("count", [0, 1, 639])
def test_no_whole_frame(count: int) -> None:
    assert loudness(noise(count), FRAME).size == 0


@given(st.lists(st.integers(0, 2000), max_size=12))
def test_pieces_of_any_length(lengths: list[int]) -> None:
    audio, tracks = noise(sum(lengths)), LoudnessTracks(3, FRAME)
    tracks.open(1)
    for piece in np.split(audio, np.cumsum(lengths)):
        tracks.accept(1, piece)
    assert tracks.until(1, None) == loudness(audio, FRAME).tobytes()


def test_many_streams_that_are_not_in_step() -> None:
    """Each has its own number of samples before, and an odd number comes for all."""
    tracks, slots = LoudnessTracks(4, FRAME), np.array([3, 0, 2])
    audio = [noise(count, seed=count) for count in (100, 100, 0)]
    for slot, before in zip(slots.tolist(), audio, strict=True):
        tracks.open(slot)
        tracks.accept(slot, before)
    for number in range(5):
        rows = (np.stack([noise(1001, seed=10 * number + row) for row in range(3)]) * 32767).astype(np.int16)
        tracks.accept_many(slots, rows)
        audio = [np.concatenate([a, row.astype(np.float32) / 32768]) for a, row in zip(audio, rows, strict=True)]
    for slot, whole in zip(slots.tolist(), audio, strict=True):
        assert tracks.until(slot, None) == loudness(whole, FRAME).tobytes()


def test_what_is_forgotten() -> None:
    tracks = LoudnessTracks(1, FRAME)
    tracks.open(0)
    audio = noise(10 * FRAME) * np.repeat(np.linspace(0.1, 1, 10), FRAME).astype(np.float32)
    tracks.accept(0, audio)
    levels = loudness(audio, FRAME).tobytes()
    tracks.forget_before(0, -3)
    assert (tracks.first_frame(0), tracks.until(0, 7)) == (0, levels[:7])
    tracks.forget_before(0, 4)
    assert (tracks.first_frame(0), tracks.until(0, 7), tracks.until(0, 2)) == (4, levels[4:7], b"")
    tracks.forget_before(0, 50)
    assert (tracks.first_frame(0), tracks.until(0, None)) == (10, b"")
    tracks.open(0)
    assert (tracks.first_frame(0), tracks.until(0, None)) == (0, b"")


@given(
    st.lists(
        st.lists(st.sampled_from([0, 1, 15, 16, 17, 639, 640, 641, 5120, 700_000]), min_size=3, max_size=3), max_size=6
    ),
    st.integers(0, 3),
)
def test_runs_of_many_streams_are_as_one_by_one(rounds: list[list[int]], seed: int) -> None:
    """Also where a stream has more levels than the array holds, and some are forgotten meanwhile."""
    together, alone = LoudnessTracks(4, FRAME), LoudnessTracks(4, FRAME)
    rng = np.random.default_rng(seed)
    for number, counts in enumerate(rounds):
        slots, lengths = rng.permutation(4)[:3], np.array(counts)
        samples = rng.integers(-3000, 3000, sum(counts)).astype(np.int16)
        together.accept_runs(slots, samples, lengths)
        ends = np.cumsum(lengths)
        for slot, end, count in zip(slots.tolist(), ends.tolist(), counts, strict=True):
            alone.accept_many(np.array([slot]), samples[None, end - count : end])
        if number == 2:
            for tracks in (together, alone):
                tracks.forget_before(1, 3)
        for slot in range(4):
            assert together.until(slot, None) == alone.until(slot, None)
            assert together.first_frame(slot) == alone.first_frame(slot)


def test_a_long_segment_is_kept_and_forgotten_from_its_beginning() -> None:
    audio, tracks = noise(3000 * FRAME), LoudnessTracks(2, FRAME)
    wanted = loudness(audio, FRAME).tobytes()
    for begin in range(0, len(audio), 700 * FRAME):
        tracks.accept(1, audio[begin : begin + 700 * FRAME])
    assert tracks.until(1, None) == wanted
    assert tracks.until(1, 2500) == wanted[:2500]
    for frame in (100, 1500, 2990):
        tracks.forget_before(1, frame)
        assert (tracks.first_frame(1), tracks.until(1, None)) == (frame, wanted[frame:])
    tracks.open(1)
    assert (tracks.first_frame(1), tracks.until(1, None)) == (0, b"")
