"""Where words begin and end: levels written by hand, and digits with silence between them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moulin.arrays import Floats
from moulin.demo.files import DEMO_MODEL, DEMO_STREAMING_MODEL
from moulin.engine.recognizer import Recognizer
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.engine.word_times import Sound, word_spans
from moulin.live_transcript import LiveTranscript
from moulin.models.open_recognizer import open_recognizer
from moulin.models.open_stream_recognizer import open_stream_recognizer
from moulin.streaming.endpoint_rules import EndpointRules
from moulin.streaming.options import StreamOptions
from moulin.transcript import Word
from tests.conftest import Recording
from tests.isolated_words import Digit, found_among, isolated

SPOKEN, SILENT = 140, 40


def levels(text: str) -> bytes:
    """A level for every character: # is speech, + 12 dB softer, . silence."""
    return bytes({"#": SPOKEN, "+": SPOKEN - 24, ".": SILENT}[char] for char in text)


def test_a_word_between_silences() -> None:
    assert word_spans([(8, 8)], Sound(levels("....." + "#" * 12 + "." * 20))) == [(5, 17)]


def test_two_words_with_a_pause_between() -> None:
    sound = Sound(levels(".." + "#" * 8 + "." * 10 + "#" * 8 + "." * 5))
    assert word_spans([(4, 5), (22, 26)], sound) == [(2, 10), (20, 28)]


def test_words_without_a_pause_meet_at_the_next_token() -> None:
    assert word_spans([(2, 2), (9, 9)], Sound(levels(".." + "#" * 14 + "." * 9))) == [(2, 9), (9, 16)]


def test_a_stop_within_a_word_is_no_end() -> None:
    assert word_spans([(3, 3)], Sound(levels("..####...###" + "." * 9))) == [(2, 12)]


def test_a_soft_end_belongs_to_the_word() -> None:
    assert word_spans([(3, 3)], Sound(levels("..####++++" + "." * 9))) == [(2, 10)]


def test_noise_as_loud_as_speech_says_nothing() -> None:
    assert word_spans([(10, 11), (60, 60)], Sound(bytes([SPOKEN] * 90))) == [(10, 18), (60, 67)]


def test_nothing_is_known() -> None:
    assert word_spans([(10, 11), (14, 14), (60, 60)], Sound()) == [(10, 14), (14, 21), (60, 67)]


def test_a_stream_of_which_more_will_come() -> None:
    """A word is not longer than what has been searched, and its end does not move when it has been found."""
    spoken = levels(".." + "#" * 8 + "." * 30)
    spans = [word_spans([(4, 4)], Sound(spoken[:known], is_whole=False)) for known in range(5, 40)]
    assert spans[:3] == [[(2, 5)], [(2, 6)], [(2, 7)]]
    assert spans[9:] == [[(2, 10)]] * 26


def test_levels_from_a_later_frame_on() -> None:
    spoken = levels("....." + "#" * 12 + "." * 20)
    assert word_spans([(108, 108)], Sound(spoken, first_frame=100)) == [(105, 117)]
    assert word_spans([(108, 108)], Sound(spoken, first_frame=100, not_before=103)) == [(105, 117)]


def test_words_of_one_token_share_its_time() -> None:
    """Two Chinese characters in one piece of a BPE vocabulary."""
    assert word_spans([(4, 4), (4, 4), (20, 20)], Sound(levels(".." + "#" * 8 + "." * 30))) == [
        (2, 6),
        (6, 10),
        (20, 27),
    ]


@given(
    st.binary(max_size=60),
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 6)), max_size=12),
    st.integers(0, 9),
    st.booleans(),
)
def test_any_words_in_any_sound(heard: bytes, drawn: list[tuple[int, int]], first_frame: int, is_whole: bool) -> None:
    """Words are in order, never overlap, and contain their first token."""
    emitted, at = [], first_frame
    for gap, length in drawn:
        emitted.append((at + gap, at + gap + length))
        at += gap + length + 1
    spans = word_spans(emitted, Sound(heard, first_frame, is_whole=is_whole))
    for (begin, end), (first, last) in zip(spans, emitted, strict=True):
        assert begin <= first <= last < end
    for (_, end), (begin, _) in itertools.pairwise(spans):
        assert end <= begin


@pytest.fixture(scope="module")
def digits(recordings: list[Recording]) -> list[tuple[Floats, list[Digit]]]:
    return [isolated(recording.waveform, recording.heard.words) for recording in recordings]


@pytest.fixture(scope="module")
def offline() -> Recognizer:
    return open_recognizer(DEMO_MODEL)


@pytest.fixture(scope="module")
def streaming() -> StreamRecognizer:
    return open_stream_recognizer(DEMO_STREAMING_MODEL, max_streams=2)


def live_words(
    streaming: StreamRecognizer, audio: Floats, chunk: int, options: StreamOptions | None = None
) -> list[Word]:
    stream, live = streaming.open(options), LiveTranscript()
    for first in range(0, len(audio), chunk):
        streaming.accept(stream, audio[first : first + chunk])
        live.apply(streaming.advance(stream))
    streaming.finish(stream)
    live.apply(streaming.advance(stream))
    streaming.close(stream)
    return list(live.transcript().words)


def check_times(pairs: list[tuple[Digit, Word]]) -> None:
    starts = [abs(word.start_sec - digit.start_sec) for digit, word in pairs]
    ends = [abs(word.end_sec - digit.end_sec) for digit, word in pairs]
    assert np.percentile(starts, 95) < 0.15
    assert np.percentile(ends, 95) < 0.1
    assert np.median(ends) < 0.03


@pytest.mark.parametrize("added", [0.0, 0.003], ids=["clean", "noise"])
def test_isolated_digits_offline(offline: Recognizer, digits: list[tuple[Floats, list[Digit]]], added: float) -> None:
    """Also with white noise about 25 dB below the speech."""
    pairs = []
    for audio, expected in digits:
        noise = np.random.default_rng(0).normal(0, added, len(audio)).astype(np.float32)
        pairs += found_among(expected, offline.transcribe([audio + noise])[0].words)
    assert len(pairs) > 100
    check_times(pairs)


def test_isolated_digits_in_a_stream(streaming: StreamRecognizer, digits: list[tuple[Floats, list[Digit]]]) -> None:
    """With endpoints in some of the gaps."""
    options = StreamOptions(rules=EndpointRules(2.4, 0.7, 20))
    pairs = []
    for audio, expected in digits:
        pairs += found_among(expected, live_words(streaming, audio, 5120, options))
    assert len(pairs) > 100
    check_times(pairs)


def test_times_do_not_depend_on_the_pieces(
    streaming: StreamRecognizer, digits: list[tuple[Floats, list[Digit]]]
) -> None:
    audio = digits[0][0]
    options = StreamOptions(rules=EndpointRules(2.4, 0.5, 3))
    at_once = live_words(streaming, audio, len(audio), options)
    assert len(at_once) > 8
    for chunk in (777, 5120, 40_000):
        assert live_words(streaming, audio, chunk, options) == at_once
    for word, following in itertools.pairwise(at_once):
        assert word.start_sec < word.end_sec <= following.start_sec


def test_a_long_silence_is_not_kept(streaming: StreamRecognizer) -> None:
    stream = streaming.open()
    for _ in range(20):
        streaming.accept(stream, np.zeros(16000, np.float32))
        streaming.advance(stream)
    assert len(streaming._loudness.until(stream.slot, None)) < 120
    streaming.close(stream)
