"""Where recordings are cut, with probabilities of speech that the tests make up."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moulin.arrays import Floats
from moulin.long_audio.cutter import Cutter, Piece
from moulin.long_audio.voice_activity import FRAME_SAMPLES

FRAME_SEC = FRAME_SAMPLES / 16000
MARGIN_FRAMES = 12


def audio(*parts: tuple[float, float]) -> Floats:
    """Samples whose first in each frame is that frame's probability: (probability, seconds) one after the other."""
    frames = np.concatenate([np.full(round(seconds / FRAME_SEC), probability) for probability, seconds in parts])
    samples = np.zeros((len(frames), FRAME_SAMPLES), np.float32)
    samples[:, 0] = frames
    samples[:, 1] = np.arange(len(frames))
    return samples.ravel()


def probabilities(samples: Floats) -> Floats:
    return samples.reshape(-1, FRAME_SAMPLES)[:, 0]


def cut(samples: Floats, max_sec: float = 30.0, block: int = 4096) -> list[Piece]:
    cutter = Cutter(max_sec, probabilities)
    pieces = [piece for at in range(0, len(samples), block) for piece in cutter.accept(samples[at : at + block])]
    return [*pieces, *cutter.finish()]


def spans(pieces: list[Piece]) -> list[tuple[float, float]]:
    return [(round(piece.start_sec, 1), round(piece.end_sec, 1)) for piece in pieces]


def test_pauses_end_pieces_and_leave_silence_around_speech() -> None:
    pieces = cut(audio((0, 3), (0.9, 4), (0, 0.85), (0.9, 2), (0, 0.7), (0.9, 2), (0, 8), (0.9, 1), (0, 4)))
    assert spans(pieces) == [(2.6, 7.4), (7.5, 12.9), (20.2, 21.9)]


def test_a_breath_ends_a_piece_only_when_it_is_long() -> None:
    words = [part for _ in range(20) for part in ((0.9, 1.6), (0.1, 0.4))]
    pieces = cut(audio(*words), max_sec=20.0)
    assert all(8.0 <= piece.end_sec - piece.start_sec <= 12.5 for piece in pieces[:-1])
    for before, after in pairwise(pieces):
        assert before.end_sec == pytest.approx(after.start_sec)  # in the middle of a breath nothing is left out
        assert before.waveform[-FRAME_SAMPLES] == np.float32(0.1)
        assert after.waveform[0] == np.float32(0.1)


def test_who_never_breathes_is_cut_where_speech_is_least_probable() -> None:
    pieces = cut(audio((0.9, 7), (0.4, 0.3), (0.9, 9), (0.5, 0.2), (0.9, 4)), max_sec=10.0)
    assert spans(pieces) == [(0.0, 7.1), (7.1, 16.4), (16.4, 20.5)]


def test_silence_alone_is_no_piece() -> None:
    assert cut(audio((0, 60))) == []
    assert cut(np.zeros(0, np.float32)) == []


def test_the_last_samples_are_there() -> None:
    """Also those of a frame that is not complete."""
    samples = np.concatenate([audio((0.9, 2)), np.full(100, 0.9, np.float32)])
    (piece,) = cut(samples)
    np.testing.assert_array_equal(piece.waveform, samples)


def test_a_word_after_a_long_silence_does_not_bring_the_silence_along() -> None:
    (piece,) = cut(audio((0, 50), (0.9, 1), (0, 1)), block=1 << 30)
    assert spans([piece]) == [(49.6, 51.4)]


@settings(deadline=None)
@given(
    parts=st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.3, 0.6, 0.95]), st.floats(0.04, 6)), max_size=20),
    max_sec=st.sampled_from([0.03, 0.1, 1.0, 2.7, 10.0, 30.0]),
    block=st.integers(1, 40000),
    tail=st.integers(0, 511),
)
def test_no_speech_is_lost_and_no_piece_is_too_long(
    parts: list[tuple[float, float]], max_sec: float, block: int, tail: int
) -> None:
    samples = np.concatenate([audio(*parts) if parts else np.zeros(0, np.float32), np.zeros(tail, np.float32)])
    pieces = cut(samples, max_sec, max(block, len(samples) // 50, 1))
    covered = np.zeros(len(samples), bool)
    for piece in pieces:
        span = slice(piece.start_samples, piece.start_samples + len(piece.waveform))
        np.testing.assert_array_equal(piece.waveform, samples[span])
        assert not covered[span].any()
        covered[span] = True
        assert 0 < len(piece.waveform) <= max(round(max_sec * 16000), FRAME_SAMPLES)
    assert [piece.start_samples for piece in pieces] == sorted(piece.start_samples for piece in pieces)
    whole = len(samples) // FRAME_SAMPLES * FRAME_SAMPLES
    speech = np.repeat(probabilities(samples[:whole]) >= 0.25, FRAME_SAMPLES)
    assert covered[:whole][speech].all()


def test_blocks_do_not_matter() -> None:
    samples = audio((0, 2), (0.9, 4), (0, 1.5), (0.5, 12), (0.3, 9), (0.1, 3), (0.9, 7))
    expected = spans(cut(samples, block=len(samples)))
    for block in (1, 511, 513, 70000):
        assert spans(cut(samples if block > 1 else samples[:32000], block=block)) == (
            expected if block > 1 else spans(cut(samples[:32000]))
        )


def test_it_holds_no_more_than_a_piece_and_a_pause() -> None:
    cutter = Cutter(10.0, probabilities)
    block = audio((0.9, 0.5), (0, 0.1))
    for _ in range(200):
        cutter.accept(block)
        assert len(cutter._samples) <= 10.0 * 16000 + len(block)
    for _ in range(200):
        cutter.accept(audio((0, 1)))
    assert len(cutter._samples) <= (MARGIN_FRAMES + 1) * FRAME_SAMPLES
