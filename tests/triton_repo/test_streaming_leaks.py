"""Whatever clients do, every request is answered once and only streams that are open hold a slot."""

from __future__ import annotations

import gc
import itertools
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from moulin.arrays import Floats
from moulin.engine.host_stepper import HostStepper
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.errors import AudioError, EngineError, MoulinError, OptionsError, StreamError, StreamsFull
from moulin.streaming.stream import Stream
from moulin.triton_repo.streaming_service import StreamId, StreamingService, StreamReply

from .fake_stream_runner import SPEC, Answer, Clock, FakeStreamRunner, heard_alone, send, stream_request

AUDIO = np.random.default_rng(5).normal(0, 0.1, 16000).astype(np.float32)
CAPACITY = 3
IDS: tuple[StreamId, ...] = (1, 2, 3, "1", "two")


@dataclass(eq=False)
class _Speaker:
    """An open stream and all its audio so far."""

    audio: Floats


@dataclass
class _Sent:
    """A request, the stream that takes it (if one does), and the text or error that must come."""

    answer: Answer
    speaker: _Speaker | None
    expected: str | type[MoulinError]


class Interleavings(RuleBasedStateMachine):
    """Requests of several streams in any order, some of them wrong, answered while others are sent.

    From `hold` to `settle` requests that need a step wait, so that others pile up behind them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.runner = FakeStreamRunner(CAPACITY, max_batch=2)
        self.clock = Clock()
        self.service = StreamingService(StreamRecognizer(SPEC, HostStepper(SPEC, self.runner)), clock=self.clock)
        self.reference = StreamRecognizer(SPEC, HostStepper(SPEC, FakeStreamRunner(1)))
        self.open: dict[StreamId, _Speaker] = {}
        self.sent: list[_Sent] = []
        self.answered: list[int] = []
        """Numbers of requests in `sent`, as the answers came."""
        self.ending = 0
        """Streams whose end may still be worked on, so that they may still hold a slot."""

    def teardown(self) -> None:
        self.runner.release()
        self.service.close()
        assert self.service.num_open == 0

    @rule(
        stream_id=st.sampled_from(IDS),
        first=st.integers(0, 12_000),
        length=st.sampled_from([0, 1, 159, 640, 1559, 1560, 4000]),
        start=st.booleans(),
        end=st.booleans(),
        flaw=st.sampled_from([None, None, None, None, "nan", "length", "options"]),
    )
    def send_a_request(
        self, stream_id: StreamId, first: int, length: int, start: bool, end: bool, flaw: str | None
    ) -> None:
        # Whether a start finds a slot that is just being freed depends on chance.
        opens = start and stream_id not in self.open and flaw is None
        assume(not opens or len(self.open) == CAPACITY or len(self.open) + self.ending < CAPACITY)

        samples, error = AUDIO[first : first + length], self._error(stream_id, start, flaw)
        speaker = None if error else self.open.setdefault(stream_id, _Speaker(AUDIO[:0]))
        if end and (speaker or not start) and stream_id in self.open:
            del self.open[stream_id]
            self.ending += 1
        answer, number = Answer(), len(self.sent)
        if speaker:
            speaker.audio = np.concatenate([speaker.audio, samples])
            self.sent.append(_Sent(answer, speaker, heard_alone(self.reference, speaker.audio, finish=end)))
        elif error:
            self.sent.append(_Sent(answer, None, error))

        def respond(reply: StreamReply | MoulinError) -> None:
            self.answered.append(number)
            answer.respond(reply)

        fields = {**_flawed(samples, flaw), "start": start, "end": end, "wants_update": first % 2 == 0}
        self.service.submit(stream_request(stream_id, samples, **fields), respond)

    def _error(self, stream_id: StreamId, start: bool, flaw: str | None) -> type[MoulinError] | None:
        if flaw in ("nan", "length"):
            return AudioError
        if start == (stream_id in self.open):
            return StreamError
        if flaw == "options":
            return OptionsError
        return StreamsFull if start and len(self.open) == CAPACITY else None

    @rule()
    def hold(self) -> None:
        self.runner.hold()

    @rule()
    def settle(self) -> None:
        """Wait for all answers and compare them."""
        self.runner.release()
        for sent in self.sent:
            reply = sent.answer.wait()
            found = reply.text if isinstance(reply, StreamReply) else type(reply)
            assert found == sent.expected, reply
        assert sorted(self.answered) == list(range(len(self.sent)))
        for speaker in {sent.speaker for sent in self.sent if sent.speaker}:
            order = [number for number in self.answered if self.sent[number].speaker is speaker]
            assert order == sorted(order), "the requests of a stream were answered in another order"
        self.sent.clear()
        self.answered.clear()
        self.ending = 0

    @precondition(lambda self: self.open)
    @rule()
    def everybody_stays_away_for_long(self) -> None:
        self.settle()
        self.clock.now += 16
        self.service.sweep()
        self.open.clear()

    @precondition(lambda self: self.open)
    @rule(data=st.data(), end=st.booleans())
    def a_step_fails(self, data: st.DataObject, end: bool) -> None:
        self.settle()
        stream_id = data.draw(st.sampled_from(sorted(self.open, key=str)))
        self.runner.failure = "out of memory"
        assert isinstance(send(self.service, stream_id, AUDIO, end=end).error, EngineError)
        self.runner.failure = None
        del self.open[stream_id]

    @precondition(lambda self: self.open)
    @rule(data=st.data(), end=st.booleans())
    def a_client_vanishes(self, data: st.DataObject, end: bool) -> None:
        self.settle()
        stream_id = data.draw(st.sampled_from(sorted(self.open, key=str)))
        with self.runner.held():
            answer = send(self.service, stream_id, np.tile(AUDIO, 5), end=end, is_cancelled=lambda: True)
            self.clock.now += 2
            self.service.sweep()
        assert isinstance(answer.error, StreamError)
        del self.open[stream_id]

    @invariant()
    def only_open_streams_hold_slots(self) -> None:
        assert len(self.open) <= self.service.num_open <= len(self.open) + self.ending


def _flawed(samples: Floats, flaw: str | None) -> dict[str, Any]:
    match flaw:
        case "nan":
            return {"wav": np.append(samples, np.float32(np.nan))[None], "wav_lens": [[len(samples) + 1]]}
        case "length":
            return {"wav_lens": [[len(samples) + 1]]}
        case "options":
            return {"options": b'{"bean": 4}'}
    return {}


Interleavings.TestCase.settings = settings(
    max_examples=100, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestInterleavings = Interleavings.TestCase


@pytest.mark.parametrize("fate", ["end", "idle", "fail", "never start"])
def test_short_streams_leave_nothing_behind(fate: str) -> None:
    """Each has its own id, so that whatever is kept by id would grow."""
    runner, clock = FakeStreamRunner(256, max_batch=4), Clock()
    service = StreamingService(StreamRecognizer(SPEC, HostStepper(SPEC, runner), tail_padding_sec=0), clock=clock)
    runner.failure = "out of memory" if fate == "fail" else None
    numbers = itertools.count(1)

    def run(count: int) -> tuple[int, int]:
        for _ in range(count // 250):
            start, end = fate != "never start", fate == "end"
            answers = [send(service, next(numbers), AUDIO[:1600], start=start, end=end) for _ in range(250)]
            for answer in answers:
                assert isinstance(answer.wait(), StreamReply) == (fate in ("end", "idle"))
            clock.now += 16
            service.sweep()
            assert service.num_open == 0
        del answers, answer
        gc.collect()
        return sum(type(found) is Stream for found in gc.get_objects()), sys.getallocatedblocks()

    try:
        _, blocks = run(500)
        streams, blocks_later = run(3000)
    finally:
        service.close()
    # Each thread may hold on to its last batch.
    assert streams <= runner.limits.max_batch * runner.limits.num_workers
    assert blocks_later - blocks < 1500, "less than one object for every second stream"
