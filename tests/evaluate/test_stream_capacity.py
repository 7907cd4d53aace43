from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import ArrayLike

from moulin.engine.host_stepper import HostStepper
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.errors import StreamsFull
from moulin.evaluate.stream_capacity import PacedStreams
from moulin.evaluate.stream_engines import Audio
from moulin.streaming.stream import Stream
from tests.triton_repo.fake_stream_runner import CHUNK_SAMPLES, SPEC, WINDOW_SAMPLES, FakeStreamRunner

AUDIO = np.random.default_rng(0).integers(-3000, 3000, 20 * CHUNK_SAMPLES + 7, dtype=np.int16)
CAPACITY = 6


class Together(StreamRecognizer):
    """Takes the audio of many streams at once, and remembers what it was given."""

    def __init__(self, *, step_sec: float = 0.0) -> None:
        super().__init__(SPEC, HostStepper(SPEC, FakeStreamRunner(CAPACITY)))
        self.step_sec = step_sec
        self.heard: dict[Stream, list[Audio]] = {}

    def accept_many(self, streams: Sequence[Stream], samples: ArrayLike) -> None:
        for stream, its in zip(streams, np.asarray(samples), strict=True):
            self.heard.setdefault(stream, []).append(its)
            self.accept(stream, its)

    def step(self, streams: Sequence[Stream]) -> None:
        time.sleep(self.step_sec)
        super().step(streams)


def test_every_chunk_is_a_step_of_its_stream() -> None:
    recognizer = StreamRecognizer(SPEC, HostStepper(SPEC, FakeStreamRunner(CAPACITY)))
    streams = PacedStreams(recognizer, AUDIO)
    run = streams.run(CAPACITY, p95_ms=2000, seconds=0.4, warmup_sec=0.2)
    assert run.held
    assert 0 < run.chunks <= CAPACITY * 11  # ten are due, less those of a machine that others use
    assert run.mean_batch is not None
    # Some were due before the measured time began; and the mean is rounded.
    assert abs(run.chunks - run.mean_batch * run.steps) <= CAPACITY + 0.05 * run.steps
    assert run.largest_batch <= recognizer.limits.max_batch
    for stream in streams.streams:
        assert not recognizer.is_ready(stream)
        assert recognizer.text(stream)
    streams.close()
    assert recognizer.num_open == 0


def test_streams_go_on_with_what_they_say() -> None:
    """Each hears all chunks in turn, from another on than its neighbours."""
    recognizer = Together()
    streams = PacedStreams(recognizer, AUDIO)
    for count in (2, 5):
        streams.run(count, p95_ms=160, seconds=0.1, warmup_sec=0.0)
    chunks = AUDIO[: 20 * CHUNK_SAMPLES].reshape(20, CHUNK_SAMPLES)
    for number, stream in enumerate(streams.streams):
        first, second, *others = recognizer.heard[stream]
        assert len(first) + len(second) == WINDOW_SAMPLES - CHUNK_SAMPLES
        wanted = [chunks[(number + turn) % 20] for turn in range(len(others))]
        if number >= 2:  # those of the first run have had a second beginning
            np.testing.assert_array_equal(others, wanted)


def test_a_slow_engine_does_not_hold() -> None:
    streams = PacedStreams(Together(step_sec=0.1), AUDIO)
    run = streams.run(CAPACITY, p95_ms=160, seconds=1.0, warmup_sec=0.0)
    assert not run.held
    assert run.step_share is not None
    assert run.step_share > 0.9
    with pytest.raises(StreamsFull):
        streams.run(CAPACITY + 1, p95_ms=160, seconds=0.1)


def test_what_a_step_raises_ends_the_run_at_once() -> None:
    """Ctrl-C too: the other threads do not go on to the end of the time."""

    class Interrupted(Together):
        def step(self, streams: Sequence[Stream]) -> None:
            super().step(streams)
            raise KeyboardInterrupt

    streams = PacedStreams(Interrupted(), AUDIO)
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        streams.run(CAPACITY, seconds=60.0, p95_ms=160.0, warmup_sec=0.0)
    assert time.monotonic() - begin < 30
