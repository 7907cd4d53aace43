"""`LaneService` without Triton: streams of many lanes, refusals, ends, and what a reply says."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from moulin.arrays import Floats
from moulin.audio.waveform import as_floats, in_16_bits
from moulin.engine.host_stepper import HostStepper
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.errors import StreamError
from moulin.live_transcript import LiveTranscript, StreamUpdate
from moulin.triton_repo.contract import Event, Kind
from moulin.triton_repo.lane_service import LaneRequest, LaneService
from moulin.triton_repo.lane_tensors import LaneReply
from moulin.triton_repo.streaming_service import StreamingService

from .fake_stream_runner import CHUNK_SAMPLES, SPEC, WINDOW_SAMPLES, Clock, FakeStreamRunner, heard_alone, send

AUDIO = in_16_bits(np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32))
NOTHING = AUDIO[:0]
CAPACITY = 32
_PATIENCE_SEC = 300


@dataclass
class Lane:
    """A client of one lane: its bundles, and what it has been told."""

    service: LaneService
    name: int = 1
    number: int = 0
    texts: dict[int, LiveTranscript] = field(default_factory=dict)
    told: list[tuple[int, Kind, dict[str, Any]]] = field(default_factory=list)
    decoded: dict[int, int] = field(default_factory=dict)
    lane: dict[str, Any] = field(default_factory=dict)

    def tensors(
        self, rows: Mapping[int, Any], events: Mapping[int, int] | None = None, options: Mapping[int, Any] | None = None
    ) -> dict[str, Any]:
        events, options = dict(events or {}), options or {}
        for stream in options:
            events[stream] = events.get(stream, 0) | Event.OPTIONS
        texts = [json.dumps(options[stream]).encode() for stream in rows if stream in options]
        return {
            "BUNDLE": np.array([[self.number + 1]], np.uint64),
            "STREAMS": np.array([list(rows)], np.uint64),
            "EVENTS": np.array([[events.get(stream, 0) for stream in rows]], np.uint8),
            "STREAM_OPTIONS": np.array([texts], np.object_),
            "CHUNK_LENS": np.array([[len(samples) for samples in rows.values()]], np.int32),
            "CHUNKS": np.concatenate([NOTHING, *rows.values()])[None],
        }

    def send(
        self,
        rows: Mapping[int, Any] | None = None,
        events: Mapping[int, int] | None = None,
        options: Mapping[int, Any] | None = None,
        *,
        end: bool = False,
    ) -> LaneReply:
        return self.submit(self.tensors(rows or {}, events, options), end=end)

    def submit(self, tensors: dict[str, Any], *, end: bool = False) -> LaneReply:
        reply = self.service.submit(LaneRequest(self.name, self.number == 0, end, tensors))
        self.number += 1
        self.lane = json.loads(reply.lane)
        for stream, kind, update in zip(reply.streams, reply.kinds, reply.updates, strict=True):
            fields = json.loads(update)
            self.told.append((stream, kind, fields))
            if kind <= Kind.CLOSED:
                self.texts.setdefault(stream, LiveTranscript()).apply(StreamUpdate.from_dict(fields))
        self.decoded.update(zip(reply.decoded_streams.tolist(), reply.decoded.tolist(), strict=True))
        return reply

    def start(self, *streams: int) -> None:
        self.send(dict.fromkeys(streams, NOTHING), dict.fromkeys(streams, Event.START))

    def kinds(self, stream: int) -> list[Kind]:
        return [kind for number, kind, _ in self.told if number == stream]

    def wait_for(self, stream: int, kind: Kind) -> dict[str, Any]:
        """Ask until `stream` is told something of `kind`."""
        deadline = time.monotonic() + _PATIENCE_SEC
        while time.monotonic() < deadline:
            for number, of, fields in self.told:
                if (number, of) == (stream, kind):
                    return fields
            self.send()
            time.sleep(0.001)
        raise AssertionError(f"{stream} was not told {kind.name}")

    def wait_until_decoded(self, stream: int, samples: int) -> None:
        deadline = time.monotonic() + _PATIENCE_SEC
        while self.decoded.get(stream, 0) < samples:
            assert time.monotonic() < deadline
            self.send()
            time.sleep(0.001)


@pytest.fixture
def runner() -> FakeStreamRunner:
    return FakeStreamRunner(CAPACITY)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def unary(runner: FakeStreamRunner, clock: Clock) -> Iterator[StreamingService]:
    service = StreamingService(StreamRecognizer(SPEC, HostStepper(SPEC, runner)), clock=clock)
    yield service
    service.close()


@pytest.fixture
def lanes(unary: StreamingService, clock: Clock) -> Iterator[LaneService]:
    service = LaneService(
        unary.scheduler.recognizer, unary.scheduler, instance="a", check_load=unary.check_load, clock=clock
    )
    yield service
    unary.scheduler.close()
    service.close()
    assert unary.num_open == 0


@pytest.fixture
def lane(lanes: LaneService) -> Lane:
    return Lane(lanes)


def alone(samples: Any) -> str:
    recognizer = StreamRecognizer(SPEC, HostStepper(SPEC, FakeStreamRunner(1)))
    audio: Floats = as_floats(samples)
    return heard_alone(recognizer, audio)


# ----------------------------------------------------------------------------------------------------------- streams


def test_a_stream_is_heard_as_alone_and_gives_its_place_back(lane: Lane, unary: StreamingService) -> None:
    lane.start(7)
    assert lane.lane == {"instance": "a", "capacity": CAPACITY, "open": 1, "lane": "1", "bundle": 1}
    for begin in range(0, len(AUDIO), 1000):
        lane.send({7: AUDIO[begin : begin + 1000]})
    lane.send({7: NOTHING}, {7: Event.END})
    lane.wait_for(7, Kind.CLOSED)
    assert lane.texts[7].text == alone(AUDIO)
    assert lane.decoded[7] == len(AUDIO)
    lane.send()
    assert (unary.num_open, lane.lane["open"]) == (0, 0)
    lane.send({7: NOTHING}, {7: Event.START})
    assert lane.kinds(7)[-1] == Kind.CLOSED  # the number may be used again


def test_a_whole_stream_in_one_row(lane: Lane) -> None:
    lane.send({3: AUDIO}, {3: Event.START | Event.END})
    lane.wait_for(3, Kind.CLOSED)
    assert lane.texts[3].text == alone(AUDIO)


@pytest.mark.parametrize("seed", range(4))
def test_many_streams_of_two_lanes_and_of_unary_requests(
    lanes: LaneService, unary: StreamingService, seed: int
) -> None:
    """Chunks of all lengths, some rows without audio, streams that begin and end among others."""
    rng = random.Random(seed)
    both = Lane(lanes, 1), Lane(lanes, 2)
    audios = {number: AUDIO[rng.randrange(8000) :][: rng.randrange(8000)] for number in range(1, 25)}
    waiting = {lane.name: [number for number in audios if number % 2 == lane.name % 2] for lane in both}
    at: dict[int, int] = {}
    answers = [send(unary, 99, as_floats(AUDIO[:4000]), start=True)]
    for _ in range(2000):
        for lane in both:
            numbers = waiting[lane.name]
            running = [number for number in numbers if number in at and at[number] <= len(audios[number])]
            rows: dict[int, Any] = {}
            events: dict[int, int] = {}
            if len(running) < 3 and (new := next((number for number in numbers if number not in at), None)):
                at[new], events[new] = 0, Event.START
                running.append(new)
            for number in running:
                if rng.random() < 0.2 and number not in events:
                    continue
                count = rng.choice((0, 1, 160, 640, 999, 3000))
                rows[number] = audios[number][at[number] : at[number] + count]
                at[number] += count
                if at[number] > len(audios[number]):
                    events[number] = events.get(number, 0) | Event.END
            lane.send(rows, events)
        if rng.random() < 0.01 and len(answers) < 3:
            answers.append(send(unary, 99, as_floats(AUDIO[4000 * len(answers) :][:4000])))
        if len(at) == len(audios) and all(at[number] > len(audios[number]) for number in audios):
            break
    for lane in both:
        for number in waiting[lane.name]:
            lane.wait_for(number, Kind.CLOSED)
            assert lane.texts[number].text == alone(audios[number])
            assert lane.decoded.get(number, 0) == len(audios[number])
            assert not {Kind.FAILED, Kind.REFUSED} & set(lane.kinds(number))
    while len(answers) < 3:
        answers.append(send(unary, 99, as_floats(AUDIO[4000 * len(answers) :][:4000])))
    last = send(unary, 99, as_floats(AUDIO[12000:]), end=True)
    assert last.text == alone(AUDIO)


def test_the_reply_does_not_wait_for_the_step(lane: Lane, runner: FakeStreamRunner) -> None:
    with runner.held():
        reply = None
        lane.start(1)
        reply = lane.send({1: AUDIO[:WINDOW_SAMPLES]})
        assert reply.decoded.tolist() == [WINDOW_SAMPLES - 1]
        assert runner.entered.acquire(timeout=_PATIENCE_SEC)
        # Audio that comes during the step is decoded after it.
        lane.send({1: AUDIO[WINDOW_SAMPLES : WINDOW_SAMPLES + 3 * CHUNK_SAMPLES]})
        assert not lane.texts
    lane.wait_until_decoded(1, WINDOW_SAMPLES + 3 * CHUNK_SAMPLES)
    assert runner.num_chunks == 4
    lane.send({1: NOTHING}, {1: Event.DROP})


def test_a_reply_says_only_what_is_new(lane: Lane) -> None:
    lane.start(1, 2)
    lane.send({1: AUDIO[:WINDOW_SAMPLES]})
    lane.wait_until_decoded(1, WINDOW_SAMPLES)
    told = len(lane.told)
    reply = lane.send({2: AUDIO[:100]})
    assert (reply.streams, reply.decoded_streams.tolist(), reply.decoded.tolist()) == ([], [2], [100])
    assert len(lane.told) == told == 1
    assert set(lane.send().tensors()) == {"LANE"}
    lane.send({1: NOTHING, 2: NOTHING}, {1: Event.DROP, 2: Event.DROP})


def test_a_segment_is_closed_on_request(lane: Lane) -> None:
    lane.start(1)
    lane.send({1: AUDIO[: WINDOW_SAMPLES + CHUNK_SAMPLES]}, {1: Event.FINALIZE})
    fields = lane.wait_for(1, Kind.FINAL)
    assert [segment["is_final"] for segment in fields["segments"]] == [True]
    lane.send({1: AUDIO[WINDOW_SAMPLES + CHUNK_SAMPLES :]}, {1: Event.END})
    lane.wait_for(1, Kind.CLOSED)
    assert lane.texts[1].text.replace(" ", "") == alone(AUDIO).replace(" ", "")
    assert len(lane.texts[1].final) == 2


def test_options_at_the_start_and_later(lane: Lane) -> None:
    rules = {"rule1_min_trailing_silence_sec": 9, "rule3_min_utterance_length_sec": 0.2}
    lane.send({1: AUDIO[:6000], 2: AUDIO[:6000]}, {1: Event.START, 2: Event.START}, {1: rules})
    lane.send({1: NOTHING, 2: NOTHING}, {1: Event.END}, {2: {"endpoint": False}})
    lane.send({2: AUDIO[6000:]}, {2: Event.END})
    lane.wait_for(1, Kind.CLOSED)
    lane.wait_for(2, Kind.CLOSED)
    assert len(lane.texts[1].final) > 1
    assert lane.texts[2].text == alone(AUDIO)


# ---------------------------------------------------------------------------------------------------------- refusals


def refusal(lane: Lane, stream: int) -> dict[str, Any]:
    assert lane.kinds(stream)[-1:] == [Kind.REFUSED], lane.kinds(stream)
    return next(fields for number, _, fields in reversed(lane.told) if number == stream)


def test_a_row_that_is_refused_changes_nothing_and_touches_no_other(lane: Lane) -> None:
    lane.start(1, 2)
    for rows, events, options, code, part in (
        ({1: AUDIO[:100], 9: AUDIO[:500]}, {}, {}, "not_open", "Stream 9 is not open"),
        ({1: AUDIO[100:200], 9: AUDIO[:500]}, {9: Event.START}, {9: {"beam": 0}}, "invalid", "beam"),
        ({1: AUDIO[200:300], 9: AUDIO[:500]}, {9: Event.START | 32}, {}, "invalid", "no event 32"),
    ):
        lane.send(rows, events, options)
        fields = refusal(lane, 9)
        assert fields["code"] == code
        assert part in fields["error"]
        assert lane.decoded[1] == 100 * (len(lane.told))
    for event, options, code in (
        (Event.START, {}, "open"),
        (0, {2: {"nonsense": 1}}, "invalid"),
        (64, {}, "invalid"),
    ):
        lane.send({1: NOTHING, 2: AUDIO[:500]}, {2: event}, options)
        assert refusal(lane, 2)["code"] == code
    lane.send({1: AUDIO[300:], 2: AUDIO}, {1: Event.END, 2: Event.END})
    lane.send({1: AUDIO[:5]})
    for stream in (1, 2):
        lane.wait_for(stream, Kind.CLOSED)
        assert lane.texts[stream].text == alone(AUDIO)


def test_more_streams_than_there_are_places(lanes: LaneService, lane: Lane) -> None:
    numbers = list(range(10, 10 + CAPACITY + 3))
    lane.start(*numbers)
    refused = [number for number in numbers if Kind.REFUSED in lane.kinds(number)]
    assert refused == numbers[CAPACITY:]
    assert refusal(lane, refused[0])["code"] == "full"
    assert lane.lane["open"] == lane.lane["capacity"] == CAPACITY
    lane.send({numbers[0]: NOTHING}, {numbers[0]: Event.DROP})
    lane.send({99: AUDIO}, {99: Event.START | Event.END})
    lane.wait_for(99, Kind.CLOSED)
    assert lane.texts[99].text == alone(AUDIO)
    assert lanes.counters.refused == 3


def test_audio_far_ahead_is_refused(lane: Lane, runner: FakeStreamRunner) -> None:
    minutes = np.zeros(9 * 60 * 16000, np.int16)
    with runner.held():
        lane.start(1)
        lane.send({1: minutes})
        lane.send({1: minutes})
        assert refusal(lane, 1)["code"] == "ahead"
        lane.send({1: AUDIO[:100]})
        assert lane.kinds(1) == [Kind.REFUSED]
        lane.send({1: NOTHING}, {1: Event.DROP})


Change = tuple[str, Any]


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (("BUNDLE", None), "BUNDLE"),
        (("BUNDLE", np.zeros((1, 2), np.uint64)), "BUNDLE"),
        (("BUNDLE", np.array([[3]], np.uint64)), "Expected BUNDLE 2"),
        (("BUNDLE", np.array([[1]], np.uint64)), "Expected BUNDLE 2"),
        (("BUNDLE", np.array([[2**64 - 1]], np.uint64)), "Expected BUNDLE 2"),
        (("STREAMS", np.array([[1, 1]], np.uint64)), "twice"),
        (("STREAMS", np.array([[1], [2]], np.uint64)), "STREAMS \\[1, N\\]"),
        (("STREAMS", np.array([[1, 2, 3]], np.uint64)), "EVENTS"),
        (("EVENTS", np.array([[0]], np.uint8)), "EVENTS"),
        (("EVENTS", np.array([[4, 0]], np.uint8)), "STREAM_OPTIONS"),
        (("STREAM_OPTIONS", np.array([[b"{}"]], np.object_)), "STREAM_OPTIONS"),
        (("CHUNK_LENS", np.array([[50, 51]], np.int32)), "add up"),
        (("CHUNK_LENS", np.array([[-50, 150]], np.int32)), "add up"),
        (("CHUNK_LENS", np.array([[2**31 - 1, 2**31 - 1]], np.int32)), "add up"),
        (("CHUNK_LENS", None), "add up"),
        (("CHUNKS", None), "add up"),
        (("CHUNKS", np.zeros((2, 50), np.int16)), "CHUNKS"),
    ],
)
def test_a_bundle_that_contradicts_itself_changes_nothing(lane: Lane, change: Change, part: str) -> None:
    lane.start(1, 2)
    tensors = lane.tensors({1: AUDIO[:50], 2: AUDIO[:50]}) | dict([change])
    with pytest.raises(StreamError, match=part):
        lane.submit({name: tensor for name, tensor in tensors.items() if tensor is not None})
    assert lane.send().decoded.tolist() == []
    lane.send({1: AUDIO, 2: NOTHING}, {1: Event.END, 2: Event.DROP})
    lane.wait_for(1, Kind.CLOSED)
    assert lane.texts[1].text == alone(AUDIO)


def test_a_lane_is_opened_once_and_from_its_first_bundle(lanes: LaneService) -> None:
    one = Lane(lanes)
    one.send()
    with pytest.raises(StreamError, match="is open"):
        lanes.submit(LaneRequest(1, True, False, Lane(lanes).tensors({})))
    with pytest.raises(StreamError, match="is not open"):
        lanes.submit(LaneRequest(2, False, False, Lane(lanes).tensors({})))
    with pytest.raises(StreamError, match="Expected BUNDLE 1"):
        lanes.submit(LaneRequest(2, True, False, Lane(lanes, number=1).tensors({})))
    assert lanes.num_lanes == 1
    one.send()


# -------------------------------------------------------------------------------------------------------------- ends


def test_the_end_of_a_lane_frees_its_streams(lanes: LaneService, unary: StreamingService) -> None:
    one, other = Lane(lanes, 1), Lane(lanes, 2)
    one.start(1, 2, 3)
    other.start(1)
    one.send({1: AUDIO}, end=True)
    assert lanes.num_lanes == 1
    other.send({1: AUDIO}, {1: Event.END})
    other.wait_for(1, Kind.CLOSED)
    assert other.texts[1].text == alone(AUDIO)
    other.send()
    unary.scheduler.close()
    assert unary.num_open == 0


def test_a_silent_lane_is_closed_with_its_streams_also_during_a_step(
    lanes: LaneService, unary: StreamingService, clock: Clock, runner: FakeStreamRunner
) -> None:
    gone, there = Lane(lanes, 1), Lane(lanes, 2)
    there.start(1)
    with runner.held():
        gone.start(1, 2)
        gone.send({1: AUDIO})
        assert runner.entered.acquire(timeout=_PATIENCE_SEC)
        clock.now += 2.9
        there.send()
        lanes.sweep()
        assert lanes.num_lanes == 2
        clock.now += 0.2
        lanes.sweep()
        assert lanes.num_lanes == 1
        assert unary.num_open == 2  # one is being stepped
        with pytest.raises(StreamError, match="is not open"):
            gone.send()
    deadline = time.monotonic() + _PATIENCE_SEC
    while unary.num_open > 1 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert unary.num_open == 1
    there.send({1: AUDIO}, {1: Event.END})
    there.wait_for(1, Kind.CLOSED)
    assert there.texts[1].text == alone(AUDIO)


def test_a_pause_of_the_service_is_no_silence_of_a_lane(lanes: LaneService, clock: Clock) -> None:
    lane = Lane(lanes)
    lane.start(1)
    clock.now += 20
    lanes.excuse(18)
    lanes.sweep()
    lane.send({1: AUDIO}, {1: Event.END})
    lane.wait_for(1, Kind.CLOSED)
    clock.now += 4
    lanes.sweep()
    assert lanes.num_lanes == 0


def test_a_stream_without_audio_is_closed_on_a_lane_that_lives(lanes: LaneService, clock: Clock) -> None:
    lane = Lane(lanes)
    lane.start(1, 2)
    for _ in range(8):
        clock.now += 2
        lane.send({2: NOTHING})
        lanes.sweep()
    assert lane.wait_for(1, Kind.FAILED)["code"] == "idle"
    assert lane.lane["open"] == 1
    lane.send({1: AUDIO[:10], 2: AUDIO}, {2: Event.END})
    assert refusal(lane, 1)["code"] == "not_open"
    lane.wait_for(2, Kind.CLOSED)


def test_a_step_that_fails_ends_its_streams_and_no_others(
    lane: Lane, runner: FakeStreamRunner, unary: StreamingService
) -> None:
    lane.start(1, 2)
    runner.failure = "out of memory"
    lane.send({1: AUDIO, 2: AUDIO[:100]})
    fields = lane.wait_for(1, Kind.FAILED)
    assert fields["code"] == "failed"
    assert "out of memory" in fields["error"]
    runner.failure = None
    lane.send({2: AUDIO[100:]}, {2: Event.END})
    lane.wait_for(2, Kind.CLOSED)
    assert lane.texts[2].text == alone(AUDIO)
    lane.send()
    assert unary.num_open == 0


def test_numbers_of_any_size(lane: Lane) -> None:
    numbers = (0, 1, 2**63, 2**64 - 1)
    lane.send(dict.fromkeys(numbers, AUDIO), dict.fromkeys(numbers, Event.START | Event.END))
    for number in numbers:
        lane.wait_for(number, Kind.CLOSED)
        assert lane.texts[number].text == alone(AUDIO)
