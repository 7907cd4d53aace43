"""Lanes: Triton sequences that carry many streams each. Audio goes into the rings at once, and the reply says what has
become known since the lane's last one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from moulin.arrays import Bools, Ints
from moulin.audio.waveform import SAMPLE_RATE
from moulin.engine.step_scheduler import StepScheduler
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.errors import EngineError, MoulinError, OptionsError, StreamError, StreamsFull
from moulin.live_transcript import StreamUpdate
from moulin.quoting import cut
from moulin.streaming.options import StreamOptions
from moulin.streaming.stream import Stream
from moulin.triton_repo import contract
from moulin.triton_repo.contract import Event, Kind
from moulin.triton_repo.json_text import json_text
from moulin.triton_repo.lane_tensors import Array, Bundle, LaneReply, error_json, unknown_events
from moulin.triton_repo.streaming_options import IDLE_TIMEOUT_SEC, LANE_TIMEOUT_SEC

MAX_AHEAD_SEC = 600.0
"""Limit of the audio of one stream that waits in memory until it is decoded."""

_SWEEP_SEC = 0.5
_NOT_OPEN = -1

LaneId = int | str


@dataclass(slots=True)
class LaneRequest:
    """A request of a lane, the sequence `lane_id`, whose first has `start` and whose last has `end`. `tensors` are its
    inputs by name: Triton's memory, which is not used after `submit`."""

    lane_id: LaneId
    start: bool
    end: bool
    tensors: dict[str, Array]


@dataclass(slots=True)
class LaneCounters:
    """Counts since the service was started, for metrics."""

    bundles: int = 0
    chunks: int = 0
    audio_sec: float = 0.0
    timed_out: int = 0  # lanes
    opened: int = 0  # streams
    refused: int = 0
    refused_for_load: int = 0
    streams_timed_out: int = 0


@dataclass(slots=True, eq=False)
class _Lane:
    """The streams of a lane: their numbers, sorted, and their slots."""

    next_bundle: int
    last_heard: float
    ids: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    slots: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    news: list[tuple[int, Kind, bytes]] = field(default_factory=list)
    """Failures and refusals that no reply has carried yet."""

    def find(self, ids: NDArray[np.uint64]) -> Ints:
        """The slots of `ids` [M], `_NOT_OPEN` for others."""
        if not len(self.ids):
            return np.full(len(ids), _NOT_OPEN)
        at = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return np.where(self.ids[at] == ids, self.slots[at], _NOT_OPEN)

    def add(self, ids: NDArray[np.uint64], slots: Ints) -> None:
        both, of_both = np.concatenate([self.ids, ids]), np.concatenate([self.slots, slots])
        order = np.argsort(both)
        self.ids, self.slots = both[order], of_both[order]

    def remove(self, slots: Ints) -> None:
        kept = ~np.isin(self.slots, slots)
        self.ids, self.slots = self.ids[kept], self.slots[kept]


class LaneService:
    """Serves the streams of many lanes beside `StreamingService`, with its recognizer and scheduler.

    The work of a bundle is on arrays of its rows and of the lane's streams; only streams that start, end, fail, change
    their options or have news are handled singly. What is wrong with a row is told of its stream, and touches no other.
    A lane without a bundle for `lane_timeout_sec` is closed, and a stream without a row for `idle_timeout_sec`.
    """

    def __init__(
        self,
        recognizer: StreamRecognizer,
        scheduler: StepScheduler,
        *,
        instance: str = "",
        check_load: Callable[[], None] = lambda: None,
        is_draining: Callable[[], bool] = lambda: False,
        lane_timeout_sec: float = LANE_TIMEOUT_SEC,
        idle_timeout_sec: float = IDLE_TIMEOUT_SEC,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`instance` names this service among others of the model. `check_load` raises StreamsFull where new streams
        are to be refused, and `is_draining` says that they are for good: the server is about to end."""
        self._recognizer, self._scheduler = recognizer, scheduler
        self._instance, self._check_load, self._is_draining = instance, check_load, is_draining
        self._lane_timeout_sec, self._idle_timeout_sec = lane_timeout_sec, idle_timeout_sec
        self._clock = clock
        capacity = recognizer.limits.capacity
        self._lanes: dict[LaneId, _Lane] = {}
        # By slot, for streams of lanes.
        self._streams: list[Stream | None] = [None] * capacity
        self._ids = np.zeros(capacity, np.uint64)
        self._queued = np.zeros(capacity, np.bool_)  # the scheduler has it
        self._ending = np.zeros(capacity, np.bool_)  # its last audio has come
        self._left = np.zeros(capacity, np.bool_)  # no lane has it; to be closed when the scheduler is done with it
        self._reported = np.zeros(capacity, np.int64)  # `DECODED` of the last reply
        self._last_row = np.zeros(capacity)
        self._errors: dict[int, Exception] = {}
        self._counters = LaneCounters()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._sweeper = threading.Thread(target=self._sweep_now_and_then, name="moulin-lane-sweeper", daemon=True)
        self._sweeper.start()

    @property
    def num_lanes(self) -> int:
        """The number of open lanes."""
        return len(self._lanes)

    @property
    def counters(self) -> LaneCounters:
        return self._counters

    def submit(self, request: LaneRequest) -> LaneReply:
        """Take a bundle. Raises StreamError for one that is refused as a whole, which has changed nothing."""
        bundle = Bundle.read(request.tensors)
        with self._lock:
            now = self._clock()
            lane = self._lane(request, bundle.number)
            lane.next_bundle, lane.last_heard = bundle.number + 1, now
            self._take(lane, bundle, now)
            reply = self._reply(lane, request.lane_id, bundle.number)
            if request.end:
                self._close(self._lanes.pop(request.lane_id))
            return reply

    def sweep(self) -> None:
        """Close the lanes and streams that have been silent for too long."""
        with self._lock:
            now = self._clock()
            for number, lane in list(self._lanes.items()):
                if now - lane.last_heard > self._lane_timeout_sec:
                    self._close(self._lanes.pop(number))
                    self._counters.timed_out += 1
                    continue
                quiet = now - self._last_row[lane.slots] > self._idle_timeout_sec
                idle = lane.slots[quiet & ~self._queued[lane.slots] & ~self._ending[lane.slots]]
                if len(idle):
                    self._fail_idle(lane, idle)

    def excuse(self, seconds: float) -> None:
        """Do not count the last `seconds` as silence of lanes or streams: this process could not hear them."""
        with self._lock:
            for lane in self._lanes.values():
                lane.last_heard += seconds
                self._last_row[lane.slots] += seconds

    def close(self) -> None:
        """Close all lanes. The scheduler must have been closed, and no `submit` be under way."""
        self._closing.set()
        self._sweeper.join()
        with self._lock:
            self._queued[:] = False
            for lane in self._lanes.values():
                self._close(lane)
            self._lanes.clear()
            for slot in np.flatnonzero(self._left).tolist():
                self._release(slot)

    # ---------------------------------------------------------------------------------------------------------- bundles

    def _lane(self, request: LaneRequest, number: int) -> _Lane:
        """The lane of a request. Raises StreamError."""
        lane, name = self._lanes.get(request.lane_id), cut(str(request.lane_id))
        if self._closing.is_set():
            raise StreamError("The server is shutting down")
        if request.start and lane is not None:
            raise StreamError(f"Lane {name} is open", hint="use another sequence_id: a random one")
        if not request.start and lane is None:
            raise StreamError(
                f"Lane {name} is not open",
                hint="its first request must have sequence_start; a lane is closed by sequence_end, and when "
                f"{self._lane_timeout_sec:g} s pass without a bundle",
            )
        expected = 1 if lane is None else lane.next_bundle
        if number != expected:
            raise StreamError(
                f"Expected {contract.BUNDLE} {expected} of lane {name}, got {number}: a bundle is missing, repeated or "
                "out of order",
                hint="open another lane, and its streams again: what this one's replies said may be lost",
            )
        if lane is None:
            lane = self._lanes[request.lane_id] = _Lane(1, self._clock())
        return lane

    def _take(self, lane: _Lane, bundle: Bundle, now: float) -> None:
        """Give each stream what its row has."""
        slots, events = lane.find(bundle.streams), bundle.events
        if (bundle.events != 0).any():
            slots, events = self._begin(lane, bundle, slots)
        heard = slots != _NOT_OPEN
        for row in np.flatnonzero(~heard & (events >= 0) & (events & Event.DROP == 0)).tolist():
            self._refuse(lane, bundle.streams[row], "not_open", _not_open(bundle.streams[row], self._idle_timeout_sec))
        heard &= self._has_room(lane, bundle, slots, heard)
        rows = np.flatnonzero(heard)
        taken = slots[rows]
        self._last_row[taken] = now
        if len(bundle.samples):
            self._recognizer.accept_runs(taken, bundle.samples_of(heard), bundle.lengths[rows])
        for row in np.flatnonzero(heard & (events & (Event.END | Event.FINALIZE) != 0)).tolist():
            stream = self._at(int(slots[row]))
            if events[row] & Event.END:
                self._ending[stream.slot] = True
                self._recognizer.finish(stream)
            else:
                self._recognizer.finalize(stream)
        self._schedule(taken)
        self._counters.bundles += 1
        self._counters.chunks += int(np.count_nonzero(bundle.lengths[rows]))
        self._counters.audio_sec += int(bundle.lengths[rows].sum()) / SAMPLE_RATE

    def _begin(self, lane: _Lane, bundle: Bundle, slots: Ints) -> tuple[Ints, Ints]:
        """What rows do before their audio: start, drop, change options. Returns the slots, `_NOT_OPEN` where the rest
        of the row is not to be done, and the events, -1 where nothing more is to be said of that."""
        slots, events, options = slots.copy(), bundle.events.copy(), bundle.options_of_rows()
        started = []
        ways = Event.START | Event.DROP | Event.OPTIONS
        for row in np.flatnonzero((events & ways != 0) | unknown_events(events)).tolist():
            number, slot = bundle.streams[row], int(slots[row])
            try:
                if unknown_events(events[row : row + 1]).any():
                    raise OptionsError(f"There is no event {events[row] & ~int(~Event(0))}")
                if events[row] & Event.DROP:
                    if slot != _NOT_OPEN:
                        self._leave(lane, np.array([slot]))
                    slots[row], events[row] = _NOT_OPEN, -1
                elif events[row] & Event.START:
                    if slot != _NOT_OPEN:
                        raise StreamError(f"Stream {number} is open: it was started before and has not ended")
                    slots[row] = self._start(int(number), options.get(row))
                    started.append(row)
                elif slot != _NOT_OPEN and not self._ending[slot]:
                    stream = self._at(slot)
                    self._recognizer.change_options(stream, stream.options.updated_from_json(options[row]))
            except MoulinError as error:
                self._refuse(lane, number, _code(error), error)
                slots[row], events[row] = _NOT_OPEN, -1
        lane.add(bundle.streams[started], slots[started])
        return slots, events

    def _start(self, number: int, changes: bytes | None) -> int:
        """Open a stream. Returns its slot. Raises OptionsError and StreamsFull."""
        options: StreamOptions = self._recognizer.options
        if changes is not None:
            options = options.updated_from_json(changes)
        try:
            self._check_load()
        except StreamsFull:
            self._counters.refused_for_load += 1
            raise
        try:
            stream = self._recognizer.open(options)
        except StreamsFull:
            self._counters.refused += 1
            raise
        slot = stream.slot
        self._streams[slot], self._ids[slot] = stream, number
        self._queued[slot] = self._ending[slot] = self._left[slot] = False
        self._reported[slot] = 0
        self._counters.opened += 1
        return slot

    def _has_room(self, lane: _Lane, bundle: Bundle, slots: Ints, heard: Bools) -> Bools:
        """Whether each row's stream may get its audio; others are refused."""
        rows = np.flatnonzero(heard)
        taken, lengths = slots[rows], bundle.lengths[rows]
        waiting = self._recognizer.received_samples(taken) - self._recognizer.decoded_samples(taken)
        over, ended = waiting + lengths > MAX_AHEAD_SEC * SAMPLE_RATE, self._ending[taken]
        may = np.ones(len(heard), np.bool_)
        for row in rows[over | ended].tolist():
            may[row] = False
            number = bundle.streams[row]
            if self._ending[slots[row]]:
                self._refuse(lane, number, "not_open", StreamError(f"Stream {number} has had its end"))
            else:
                ahead = StreamError(
                    f"Expected at most {MAX_AHEAD_SEC:g} s of audio of stream {number} that is not decoded",
                    hint="wait for DECODED",
                )
                self._refuse(lane, number, "ahead", ahead)
        return may

    def _schedule(self, slots: Ints) -> None:
        """Submit those of `slots` that can step. The lock is held."""
        ready = slots[self._recognizer.are_ready(slots) & ~self._queued[slots]]
        if len(ready):
            self._queued[ready] = True
            self._scheduler.submit_slots(ready, self._stepped)

    def _stepped(self, slots: Ints, error: Exception | None) -> None:
        """Called by the scheduler for streams that have no full window left, or whose step failed."""
        with self._lock:
            self._queued[slots] = False
            if error is not None:
                self._errors.update(dict.fromkeys(slots.tolist(), error))
            else:
                self._schedule(slots[~self._left[slots]])  # audio may have come meanwhile
            for slot in slots[self._left[slots]].tolist():
                self._release(slot)

    # ---------------------------------------------------------------------------------------------------------- replies

    def _reply(self, lane: _Lane, lane_id: LaneId, number: int) -> LaneReply:
        slots = lane.slots
        decoded, updates = self._recognizer.news(slots)
        more = decoded != self._reported[slots]
        self._reported[slots] = decoded
        reply = LaneReply(b"", self._ids[slots[more]], decoded[more])
        over = self._failed(lane, slots) if self._errors else []
        for slot, update in updates:
            if slot in over:
                continue
            kind = _kind(update)
            if kind in (Kind.CLOSED, Kind.FAILED):
                over.append(slot)
            lane.news.append((int(self._ids[slot]), kind, _json(update)))
        for stream, kind, content in lane.news:
            reply.streams.append(stream)
            reply.kinds.append(kind)
            reply.updates.append(content)
        lane.news.clear()
        if over:
            self._leave(lane, np.array(over))
        facts = {
            "instance": self._instance,
            "capacity": len(self._streams),
            "open": self._recognizer.num_open,
            "lane": str(lane_id),  # as text: 63 bits are more than a number of JavaScript has
            "bundle": number,
            **({"draining": True} if self._is_draining() else {}),
        }
        reply.lane = json_text(facts)
        return reply

    def _failed(self, lane: _Lane, slots: Ints) -> list[int]:
        """Tell of the streams whose steps have failed. Returns their slots."""
        failed = [slot for slot in self._errors.keys() & set(slots.tolist()) if not self._queued[slot]]
        for slot in failed:
            text = cut(str(self._errors.pop(slot)), 500)
            error = EngineError(f"Recognition failed, and the stream is closed: {text}")
            lane.news.append((int(self._ids[slot]), Kind.FAILED, error_json("failed", error)))
        return failed

    def _fail_idle(self, lane: _Lane, slots: Ints) -> None:
        for slot in slots.tolist():
            idle = StreamError(f"No audio has come for {self._idle_timeout_sec:g} s, and the stream is closed")
            lane.news.append((int(self._ids[slot]), Kind.FAILED, error_json("idle", idle)))
        self._counters.streams_timed_out += len(slots)
        self._leave(lane, slots)

    @staticmethod
    def _refuse(lane: _Lane, number: np.uint64, code: str, error: MoulinError) -> None:
        lane.news.append((int(number), Kind.REFUSED, error_json(code, error)))

    # ------------------------------------------------------------------------------------------------------- their ends

    def _leave(self, lane: _Lane, slots: Ints) -> None:
        """Take `slots` out of the lane, and give them back, those under way when their step is done."""
        lane.remove(slots)
        for slot in slots.tolist():
            if self._queued[slot]:
                self._left[slot] = True
                self._recognizer.discard(self._at(slot))
            else:
                self._release(slot)

    def _close(self, lane: _Lane) -> None:
        self._leave(lane, lane.slots)

    def _release(self, slot: int) -> None:
        stream, self._streams[slot] = self._at(slot), None
        self._left[slot] = False
        self._errors.pop(slot, None)
        self._recognizer.close(stream)

    def _at(self, slot: int) -> Stream:
        stream = self._streams[slot]
        assert stream is not None
        return stream

    def _sweep_now_and_then(self) -> None:
        last = time.monotonic()
        while not self._closing.wait(_SWEEP_SEC):
            now = time.monotonic()
            if (late_sec := now - last - _SWEEP_SEC) > _SWEEP_SEC:  # paused, as containers are, or short of a core
                self.excuse(late_sec)
            last = now
            self.sweep()


def _kind(update: StreamUpdate | EngineError) -> Kind:
    if isinstance(update, EngineError):
        return Kind.FAILED
    if update.is_final:
        return Kind.CLOSED
    closes = update.endpoint or any(segment.is_final for segment in update.segments)
    return Kind.FINAL if closes else Kind.TEXT


def _json(update: StreamUpdate | EngineError) -> bytes:
    if isinstance(update, EngineError):
        return error_json("failed", update)
    return json_text(update.to_dict())


def _code(error: MoulinError) -> str:
    if isinstance(error, StreamsFull):
        return "busy" if StreamsFull.BUSY in error.message else "full"
    return "open" if isinstance(error, StreamError) else "invalid"


def _not_open(number: np.uint64, idle_timeout_sec: float) -> StreamError:
    return StreamError(
        f"Stream {number} is not open",
        hint=f"its first row must have the event {Event.START.value}; a stream is closed by its end, by a failure, and "
        f"when {idle_timeout_sec:g} s pass without a row",
    )
