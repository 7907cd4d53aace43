"""Pieces of audio, their pace, and the closing of the stream where they stop."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
from hypothesis import given
from hypothesis import strategies as st

from moulin import stream_audio
from moulin.arrays import Floats
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.errors import AudioError, OptionsError

from .bundles import BUNDLES
from .client.fake_triton import FakeTriton, samples
from .conftest import Recording


@given(st.integers(0, 2000), st.integers(1, 200))
def test_pieces(length: int, chunk_ms: int) -> None:
    waveform = np.arange(length, dtype=np.float32)
    pieces = list(stream_audio.cut(waveform, chunk_ms))
    assert np.array_equal(np.concatenate([*pieces, waveform[:0]]), waveform)
    assert all(len(piece) == 16 * chunk_ms for piece in pieces[:-1])
    assert all(0 < len(piece) <= 16 * chunk_ms for piece in pieces)


@given(st.lists(st.integers(0, 40_000), max_size=8), st.sampled_from([20, 100, 1500]))
def test_blocks_of_any_length_gathered(lengths: list[int], chunk_ms: int) -> None:
    waveform = np.arange(sum(lengths), dtype=np.float32)
    blocks = np.split(waveform, np.cumsum(lengths))
    chunks = list(stream_audio.gathered(blocks, chunk_ms))
    assert np.array_equal(np.concatenate([*chunks, waveform[:0]]), waveform)
    assert all(16 * chunk_ms <= len(chunk) for chunk in chunks[:-1])
    assert all(0 < len(chunk) <= max(16_000, 16 * chunk_ms) for chunk in chunks)


def test_a_chunk_does_not_wait_for_the_next_block() -> None:
    given = []

    def blocks() -> Iterator[Floats]:
        for number in range(5):
            yield np.zeros(800, np.float32)
            given.append(number)

    chunks = stream_audio.gathered(blocks(), 100)
    next(chunks)
    assert given == [0]


@dataclass
class FakeTime:
    """A clock on which only sleeping, and what a test adds, takes time."""

    now: float = 100.0
    slept: list[float] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 6))
        self.now += seconds


def test_the_pace_has_no_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeTime()
    monkeypatch.setattr(stream_audio, "time", clock)
    given_at = []
    busy = iter([0.0, 0.04, 0.15, 0.3, 0.0, 0.0, 0.0])
    for _ in stream_audio.in_real_time(stream_audio.cut(np.zeros(11200, np.float32), 100)):
        given_at.append(round(clock.now - 100, 6))
        clock.now += next(busy)
    # Late after the third and fourth, and up to date again with the seventh.
    assert given_at == [0.1, 0.2, 0.3, 0.45, 0.75, 0.75, 0.75]
    assert clock.slept == [0.1, 0.1, 0.06, 0.0, 0.0, 0.0, 0.0]


def _breaking(pieces: int) -> Iterator[Floats]:
    for _ in range(pieces):
        yield np.zeros(1600, np.float32)
    raise AudioError("The microphone stopped unexpectedly")


@pytest.fixture
def triton(monkeypatch: pytest.MonkeyPatch) -> FakeTriton:
    fake = FakeTriton()
    monkeypatch.setattr(tritonclient.grpc, "InferenceServerClient", lambda _url, **_: fake)
    return fake


@pytest.mark.parametrize("pieces", [0, 1, 5])
def test_through_a_server(triton: FakeTriton, pieces: int) -> None:
    chunks = [np.full(1600, 0.5, np.float32)] * pieces
    updates = list(stream_audio.stream_to_server(chunks, "h:1", model="transducer", options={"beam": 2}))
    heard = [round(update.duration_sec * 10) for update in updates]
    assert heard == [*range(1, pieces + 1), pieces]
    assert [update.is_final for update in updates] == [False] * pieces + [True]
    assert samples(triton.asked[-1]["inputs"]) == []
    assert triton.open == {}


def test_a_stream_that_breaks_is_ended_on_the_server(triton: FakeTriton) -> None:
    updates = stream_audio.stream_to_server(_breaking(2), "h:1", model="transducer", options={})
    with pytest.raises(AudioError, match="stopped unexpectedly"):
        list(updates)
    assert triton.open == {}


def test_a_reader_that_leaves_frees_the_slot(triton: FakeTriton) -> None:
    updates = stream_audio.stream_to_server(_breaking(9), "h:1", model="transducer", options={})
    next(updates)
    assert len(triton.open) == 1
    updates.close()
    assert triton.open == {}


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The streams that the engine was told to close."""
    streams: list[Any] = []
    usual = StreamRecognizer.close

    def close(self: StreamRecognizer, *stream: Any) -> None:
        streams.extend(stream)
        usual(self, *stream)

    monkeypatch.setattr(StreamRecognizer, "close", close)
    return streams


def test_in_process(recordings: list[Recording], closed: list[Any]) -> None:
    model = BUNDLES / "zipformer2-streaming"
    chunks = list(stream_audio.cut(recordings[0].waveform, 320))
    updates = list(stream_audio.stream_in_process(chunks, model, options={"endpoint": False}))
    assert len(updates) == len(chunks) + 1
    assert [update.is_final for update in updates] == [False] * len(chunks) + [True]
    (segment,) = updates[-1].segments
    assert segment.text
    assert updates[-1].duration_sec == recordings[0].heard.duration_sec
    assert len(closed) == 1


def test_in_process_until_something_breaks(closed: list[Any]) -> None:
    updates = stream_audio.stream_in_process(_breaking(3), BUNDLES / "zipformer2-streaming", options={})
    with pytest.raises(AudioError, match="stopped unexpectedly"):
        list(updates)
    assert len(closed) == 1


def test_bad_options_are_refused_before_the_model_is_loaded(tmp_path: Path) -> None:
    updates = stream_audio.stream_in_process([], tmp_path / "absent", options={"beams": 3})
    with pytest.raises(OptionsError, match="beams"):
        next(updates)
