from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import ArrayLike

from moulin.engine.host_stepper import HostStepper
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.errors import StreamsFull
from moulin.evaluate.stream_capacity import Audio, PacedStreams, _Dues, largest_load
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
    run = streams.run(CAPACITY, seconds=0.4, warmup_sec=0.2)
    assert run.holds(2000)
    assert 0 < len(run.chunk) <= CAPACITY * 11  # ten are due, less those of a machine that others use
    assert abs(len(run.chunk) - run.batches.sum()) <= CAPACITY  # some were due before the measured time began
    assert run.batches.max() <= recognizer.limits.max_batch
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
        streams.run(count, seconds=0.1, warmup_sec=0.0)
    chunks = AUDIO[: 20 * CHUNK_SAMPLES].reshape(20, CHUNK_SAMPLES)
    for number, stream in enumerate(streams.streams):
        first, second, *others = recognizer.heard[stream]
        assert len(first) + len(second) == WINDOW_SAMPLES - CHUNK_SAMPLES
        wanted = [chunks[(number + turn) % 20] for turn in range(len(others))]
        if number >= 2:  # those of the first run have had a second beginning
            np.testing.assert_array_equal(others, wanted)


def test_a_slow_engine_does_not_hold() -> None:
    streams = PacedStreams(Together(step_sec=0.1), AUDIO)
    run = streams.run(CAPACITY, seconds=1.0, warmup_sec=0.0)
    assert not run.holds(160)
    assert run.to_dict()["step_share"] > 0.9
    with pytest.raises(StreamsFull):
        streams.run(CAPACITY + 1, seconds=0.1)


@pytest.mark.parametrize("limit", [0, 900, 2000, 2001, 17_000, 41_234, 59_999, 60_000, 80_000])
def test_the_largest_load_is_found(limit: int) -> None:
    tried = list(largest_load(lambda load: load <= limit, 2000, 60_000))
    found = max((load for load, held in tried if held), default=0)
    assert len({load for load, _ in tried}) == len(tried) <= 11
    assert all(load <= 60_000 for load, _ in tried)
    if limit >= 60_000:
        assert found == 60_000
    elif limit:
        assert 0.96 * limit <= found <= limit
    else:
        assert found == 0


def test_whose_turn_it_is() -> None:
    dues = _Dues(np.array([0.0, 0.1, 0.2, 0.3]), 0.4, max_batch=3)
    first = dues.take(0.15)
    assert first is not None
    assert (first.round, first.first, first.last) == (0, 0, 2)
    assert dues.take(0.15) is None
    assert dues.wait_sec(0.15) == pytest.approx(0.05)
    # Late: the rest of the round, then those of the next whose step is not under way any more.
    rest = dues.take(0.75)
    assert rest is not None
    assert (rest.round, rest.first, rest.last) == (0, 2, 4)
    assert dues.take(0.75) is None
    dues.have_stepped(first)
    again = dues.take(0.75)
    assert again is not None
    assert (again.round, again.first, again.last) == (1, 0, 2)
    np.testing.assert_allclose(again.sec, [0.4, 0.5])
    dues.have_stepped(rest)
    dues.have_stepped(again)
    much_later = dues.take(3.0)
    assert much_later is not None
    assert (much_later.round, much_later.first, much_later.last) == (1, 2, 4)
    dues.have_stepped(much_later)
    as_many_as_may_be = dues.take(3.0)
    assert as_many_as_may_be is not None
    assert (as_many_as_may_be.round, as_many_as_may_be.first, as_many_as_may_be.last) == (2, 0, 3)
