"""The streaming service without Triton: requests that belong to sequences in, replies out."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from moulin.arrays import Floats
from moulin.audio.waveform import SAMPLE_RATE, check_waveform
from moulin.engine.step_scheduler import StepScheduler
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.errors import AudioError, EngineError, MoulinError, OptionsError, StreamError, StreamsFull, first_line
from moulin.live_transcript import StreamUpdate
from moulin.quoting import cut
from moulin.streaming.stream import Stream
from moulin.triton_repo import contract
from moulin.triton_repo.streaming_options import IDLE_TIMEOUT_SEC, TAKEOVER_SEC

logger = logging.getLogger(__name__)

MAX_CHUNK_SEC = 600.0
"""Limit of the audio in one request, which waits in memory until it is decoded."""

StreamId = int | str

_SWEEP_SEC = 0.5
_MISSED_CHUNKS = 3
"""After as many chunks' times without a request, and TAKEOVER_SEC, a stream's client is taken to have gone."""
_LATE_SEC = 1.0
"""The wait of a request after which the service asks whether its client has gone."""


@dataclass(slots=True)
class StreamRequest:
    """The tensors of one request, and the place of the request in its sequence.

    `wav` float32 [1, N] or `wav_int16` int16 [1, N], `wav_lens` int32 [1, 1]: Triton's memory, which is read before
    `submit` returns and never after. `options` is JSON for the stream, or a sequence of that one item, given with its
    first request. `chunk_index` uint64 [1, 1] is the number of the request in its stream.
    `stream_id` is the client's `sequence_id`, a number or a string; 5 and "5" are different streams.
    `is_cancelled` tells whether the client has gone; it is called seldom and may take a while.
    """

    stream_id: StreamId
    start: bool
    end: bool
    wav: Floats | None
    wav_lens: NDArray[np.int32] | None
    options: bytes | Sequence[bytes] | None = None
    wants_update: bool = False
    is_cancelled: Callable[[], bool] = lambda: False
    wav_int16: NDArray[np.int16] | None = None
    chunk_index: NDArray[np.uint64] | None = None

    @property
    def num_bytes(self) -> int:
        """The size of the samples."""
        return sum(wav.nbytes for wav in (self.wav, self.wav_int16) if wav is not None)


@dataclass(slots=True)
class StreamReply:
    """`text` is the text since the stream's start; `update` is None where the request wants none."""

    text: str
    update: StreamUpdate | None


Respond = Callable[[StreamReply | MoulinError], None]
"""A callback for the reply or error, called exactly once a request, on any thread."""


@dataclass(slots=True)
class StreamingCounters:
    """Counts since the service was started, for metrics."""

    opened: int = 0
    refused: int = 0  # because no slot was free
    refused_for_load: int = 0  # because steps take too long
    timed_out: int = 0
    taken_over: int = 0  # by another start of the same id
    replies: int = 0
    waited_sec: float = 0.0  # from each request's arrival to its reply, all together
    audio_sec: float = 0.0
    steps: int = 0  # encoder calls
    step_streams: int = 0  # streams in those calls
    step_sec: float = 0.0  # all steps together
    step_wait_sec: float = 0.0  # waits of all streams until their steps began, together
    step_stream_sec: float = 0.0  # of all streams together, from when each was ready to its step's end
    step_latencies: tuple[int, ...] = ()
    """As of `StepScheduler.latencies`."""


@dataclass(slots=True)
class _Pending:
    request: StreamRequest
    samples: Floats | None
    """None once the recognizer has it."""
    respond: Respond
    since: float
    num_samples: int


@dataclass(slots=True, eq=False)
class _Open:
    """An open stream and its unanswered requests; the first is being worked on, and the others wait for it."""

    stream: Stream
    options: bytes | None
    last_heard: float
    next_index: int | None
    """The number of the next request; None where the client does not number them."""
    chunk_sec: float = 0.0
    """The longest time between two requests so far; after the first alone, its audio."""
    num_requests: int = 0
    pending: deque[_Pending] = field(default_factory=deque)
    abandoned: bool = False

    def note_request(self, now: float, audio_sec: float) -> None:
        """Note when a request has come, with how much audio."""
        if self.num_requests == 0:
            self.chunk_sec = audio_sec
        else:
            gap = now - self.last_heard
            self.chunk_sec = gap if self.num_requests == 1 else max(self.chunk_sec, gap)
        self.num_requests += 1
        self.last_heard = now


class StreamingService:
    """Serves the streams of many clients. An error of one request or client never affects another client.

    A stream is open from a request with `start` until one with `end`, until `idle_timeout_sec` seconds pass without a
    request, until a client is found to have gone, or until its id starts again after `takeover_sec` without a request.
    Requests of one stream are answered in their order.
    """

    def __init__(
        self,
        recognizer: StreamRecognizer,
        *,
        idle_timeout_sec: float = IDLE_TIMEOUT_SEC,
        takeover_sec: float = TAKEOVER_SEC,
        max_step_sec: float | None = None,
        instances: int = 1,
        is_draining: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """New streams are refused while a chunk takes longer than `max_step_sec`, its wait included, with None never;
        and where `is_draining` says that the server is about to end.

        `instances` such services share the streams of the model, which the refusal mentions.
        """
        self._recognizer = recognizer
        self._max_step_sec = max_step_sec
        self._instances, self._is_draining = instances, is_draining
        self._idle_timeout_sec, self._takeover_sec = idle_timeout_sec, takeover_sec
        self._clock = clock
        self.scheduler = StepScheduler(recognizer)
        # Streams that take further requests, by id. One whose `end` has come is not among them, so that its id may
        # start again at once; it is in `_all` until that request is answered.
        self._accepting: dict[StreamId, _Open] = {}
        self._all: set[_Open] = set()
        self._lock = threading.Lock()
        self._counters = StreamingCounters()
        self._closing = threading.Event()
        self._sweeper = threading.Thread(target=self._sweep_now_and_then, name="moulin-sweeper", daemon=True)
        self._sweeper.start()

    @property
    def num_open(self) -> int:
        """The number of streams that hold a slot."""
        return self._recognizer.num_open

    @property
    def capacity(self) -> int:
        """The number of slots."""
        return self._recognizer.limits.capacity

    @property
    def step_threads(self) -> int:
        """The number of threads that run steps, and so of steps at once."""
        return self._recognizer.limits.num_workers

    def counters(self) -> StreamingCounters:
        """The counts so far."""
        scheduler = self.scheduler
        return replace(
            self._counters,
            steps=scheduler.num_steps,
            step_streams=scheduler.num_stepped,
            step_sec=scheduler.step_sec,
            step_wait_sec=scheduler.wait_sec,
            step_stream_sec=scheduler.stream_sec,
            step_latencies=tuple(scheduler.latencies),
        )

    def submit(self, request: StreamRequest, respond: Respond) -> None:
        """Take one request; `respond` gets its reply or error."""
        try:
            self._submit(request, respond)
        except Exception as error:  # whatever a request makes fail must stay its own failure
            if request.end and not request.start:
                self._end(request.stream_id)
            if not isinstance(error, MoulinError):
                error = EngineError(
                    f"The request cannot be read: {type(error).__name__}: {cut(first_line(error), 200)}"
                )
            # The traceback's frames hold the request's tensors, and would be held by the reply.
            error.__traceback__ = error.__context__ = error.__cause__ = None
            _tell(respond, error)

    def sweep(self) -> None:
        """Close the streams that have been idle for too long or whose clients have gone."""
        now = self._clock()
        with self._lock:
            idle = [
                number
                for number, opened in self._accepting.items()
                if not opened.pending and now - opened.last_heard > self._idle_timeout_sec
            ]
            for number in idle:
                self._close(self._accepting.pop(number))
                self._counters.timed_out += 1
            late = [opened for opened in self._all if opened.pending and now - opened.pending[0].since > _LATE_SEC]
            heads = [(opened, opened.pending[0].request) for opened in late if not opened.abandoned]
        for opened, head in heads:
            if _has_gone(head):
                self._abandon(opened, head)

    def close(self) -> None:
        """Stop the service; waiting requests get an error. No `submit` may be under way."""
        self._closing.set()
        self._sweeper.join()
        self.scheduler.close()
        with self._lock:
            waiting = [pending for opened in self._all for pending in opened.pending]
            self._accepting.clear()
            for opened in list(self._all):
                self._close(opened)
        for pending in waiting:
            _tell(pending.respond, StreamError("The server is shutting down"))

    def _submit(self, request: StreamRequest, respond: Respond) -> None:
        samples = _samples(request)
        index, options = _chunk_index(request), _options(request)
        request.wav = request.wav_int16 = request.wav_lens = request.chunk_index = (
            None  # Triton may have its memory back
        )
        if self._closing.is_set():
            raise StreamError("The server is shutting down")
        with self._lock:
            now = self._clock()
            if request.start:
                opened = self._start(request.stream_id, options, index, now)
            else:
                opened = self._continue(request.stream_id, options, index)
            opened.note_request(now, len(samples) / SAMPLE_RATE)
            pending = _Pending(request, samples, respond, now, len(samples))
            opened.pending.append(pending)
            if request.end:
                del self._accepting[request.stream_id]
            if len(opened.pending) > 1:
                # Waiting samples need memory of their own; others are copied by the recognizer at once.
                pending.samples = samples.copy()
                return
        self._work_on(opened)

    def _start(self, stream_id: StreamId, changes: bytes | None, index: int | None, now: float) -> _Open:
        before = self._accepting.get(stream_id)
        if before is not None:
            self._check_quiet(stream_id, before, now)
        if index:
            raise StreamError(
                f"Expected {contract.CHUNK_INDEX} 0 with the first request of a stream, got {index}",
                hint="number the requests of each stream from 0",
            )
        options = self._recognizer.options
        if changes is not None:
            options = options.updated_from_json(changes)
        if before is None:
            self.check_load()
        else:
            self._close(self._accepting.pop(stream_id))
            self._counters.taken_over += 1
        try:
            stream = self._recognizer.open(options)
        except StreamsFull as full:
            self._counters.refused += 1
            raise self._all_in_use(full) from None
        self._counters.opened += 1
        opened = _Open(stream, changes, now, None if index is None else 1)
        self._accepting[stream_id] = opened
        self._all.add(opened)
        return opened

    def _check_quiet(self, stream_id: StreamId, opened: _Open, now: float) -> None:
        """Refuse to start an id again whose stream is alive. Raises StreamError."""
        quiet_sec = max(self._takeover_sec, _MISSED_CHUNKS * opened.chunk_sec)
        if opened.pending or now - opened.last_heard < quiet_sec:
            raise StreamError(
                f"Stream {_named(stream_id)} is open: it was started before and has not ended",
                hint=f"use another sequence_id, end it first, or wait until {quiet_sec:g} s "
                "have passed without a request for it",
            )

    def check_load(self) -> None:
        """Refuse a new stream where it would slow open ones down too much, or keep the server from ending. Raises
        StreamsFull."""
        if self._is_draining():
            raise StreamsFull(f"Too {StreamsFull.BUSY}: the server is stopping", hint="open it on another server")
        if self._max_step_sec is not None and (latency := self.scheduler.latency_sec()) > self._max_step_sec:
            self._counters.refused_for_load += 1
            raise StreamsFull(
                f"Too {StreamsFull.BUSY}: a chunk takes {latency * 1000:.0f} ms, "
                f"more than the {self._max_step_sec * 1000:.0f} ms that it may",
                hint="try again later, serve with more --instances or GPUs, or raise --max-step-ms",
            )

    def _all_in_use(self, full: StreamsFull) -> StreamsFull:
        """The error for a full instance: Triton chose the instance, and others may have room."""
        if self._instances == 1:
            return full
        return StreamsFull(
            f"All {self.capacity} {StreamsFull.IN_USE} of the instance that Triton chose among {self._instances}",
            hint=full.hint,
        )

    def _continue(self, stream_id: StreamId, options: bytes | None, index: int | None) -> _Open:
        opened = self._accepting.get(stream_id)
        if opened is None:
            raise StreamError(
                f"Stream {_named(stream_id)} is not open",
                hint="the first request of a stream must have sequence_start; a stream is closed by sequence_end, by "
                f"a failure, and when {self._idle_timeout_sec:g} s pass without a request",
            )
        if options is not None and options != opened.options:
            raise OptionsError("The options of a stream cannot change", hint="give them with its first request")
        if index != opened.next_index:
            self._stop_accepting(stream_id)
            raise StreamError(
                f"Expected {contract.CHUNK_INDEX} {_or_none(opened.next_index)} of stream {_named(stream_id)}, got "
                f"{_or_none(index)}: a request is missing, repeated or out of order, and the stream is closed",
                hint="send each request when the one before is answered: Triton keeps no order among others",
            )
        if index is not None:
            opened.next_index = index + 1
        return opened

    def _work_on(self, opened: _Open) -> None:
        """Work on the first of the stream's pending requests, and on those behind it that need no step."""
        more = True
        while more:
            error = self._feed(opened.stream, opened.pending[0])
            if error is None and self._recognizer.is_ready(opened.stream):
                self.scheduler.submit(opened.stream, partial(self._stepped, opened))
                return
            more = self._answer(opened, error)

    def _feed(self, stream: Stream, pending: _Pending) -> Exception | None:
        """Give the stream the audio of a request. Returns the error, if any."""
        try:
            assert pending.samples is not None
            self._recognizer.accept(stream, pending.samples)
            pending.samples = None
            if pending.request.end:
                self._recognizer.finish(stream)
        except Exception as error:  # must not stop the worker that calls us
            return error
        return None

    def _stepped(self, opened: _Open, error: Exception | None) -> None:
        if self._answer(opened, error):
            self._work_on(opened)

    def _answer(self, opened: _Open, error: Exception | None) -> bool:
        """Answer the first of the stream's pending requests. Returns whether another is to be worked on."""
        request, respond = opened.pending[0].request, opened.pending[0].respond
        reply = self._reply(opened, request, error)
        with self._lock:
            if opened.abandoned:
                reply = StreamError("The client has gone")
            failed = isinstance(reply, MoulinError)
            done = opened.pending.popleft()
            opened.last_heard = self._clock()
            self._counters.replies += 1
            self._counters.waited_sec += opened.last_heard - done.since
            self._counters.audio_sec += done.num_samples / SAMPLE_RATE
            unanswered = list(opened.pending) if failed else []
            more = bool(opened.pending) and not failed
            accepting = self._accepting.get(request.stream_id) is opened
            if failed and accepting:
                del self._accepting[request.stream_id]
            # A stream that was removed from `_accepting` is closed by the last of its requests.
            if failed or not (more or accepting):
                self._close(opened)
        _tell(respond, reply)
        for other in unanswered:
            _tell(other.respond, StreamError(f"Stream {_named(other.request.stream_id)} failed before this request"))
        return more

    def _reply(self, opened: _Open, request: StreamRequest, error: Exception | None) -> StreamReply | MoulinError:
        try:
            if error is not None:
                raise error
            update = self._recognizer.update(opened.stream) if request.wants_update else None
            return StreamReply(self._recognizer.text(opened.stream), update)
        except Exception as problem:  # must not stop the worker that calls us
            return EngineError(f"Recognition failed, and the stream is closed: {cut(str(problem), 500)}")

    def _end(self, stream_id: StreamId) -> None:
        """End a stream whose last request was refused: the request before it is the last."""
        with self._lock:
            self._stop_accepting(stream_id)

    def _stop_accepting(self, stream_id: StreamId) -> None:
        """Take no more requests for the stream, which ends with the last of those that wait. The lock is held."""
        opened = self._accepting.pop(stream_id, None)
        if opened is not None and not opened.pending:
            self._close(opened)

    def _abandon(self, opened: _Open, head: StreamRequest) -> None:
        """Discard the stream's remaining audio, because the client that sent `head` has gone."""
        with self._lock:
            if opened.pending and opened.pending[0].request is head:
                opened.abandoned = True
                self._recognizer.discard(opened.stream)

    def _close(self, opened: _Open) -> None:
        """Give the slot back. The lock is held."""
        self._all.remove(opened)
        self._recognizer.close(opened.stream)

    def _sweep_now_and_then(self) -> None:
        while not self._closing.wait(_SWEEP_SEC):
            self.sweep()


def _tell(respond: Respond, reply: StreamReply | MoulinError) -> None:
    try:
        respond(reply)
    except Exception:  # must not stop the thread, which has other replies to give
        logger.exception("A reply could not be delivered")


def _has_gone(request: StreamRequest) -> bool:
    try:
        return request.is_cancelled()
    except Exception:  # must not stop the sweeper
        return False


def _named(stream_id: StreamId) -> str:
    """A stream's id in messages; text is of any length."""
    return cut(str(stream_id))


def _or_none(index: int | None) -> str:
    return "none" if index is None else str(index)


def _chunk_index(request: StreamRequest) -> int | None:
    """The number of the request in its stream. Raises StreamError."""
    if request.chunk_index is None:
        return None
    if request.chunk_index.size != 1:
        raise StreamError(f"Expected {contract.CHUNK_INDEX} [1, 1], got {list(request.chunk_index.shape)}")
    return int(request.chunk_index.item())


def _options(request: StreamRequest) -> bytes | None:
    """The JSON of the stream's options. Raises OptionsError."""
    if request.options is None or isinstance(request.options, bytes):
        return request.options
    if len(request.options) != 1:
        raise OptionsError(f"Expected {contract.OPTIONS} [1, 1], got {len(request.options)} items")
    return request.options[0]


def _samples(request: StreamRequest) -> Floats:
    """The audio of the request. Raises AudioError."""
    name, wav = ("WAV", request.wav) if request.wav_int16 is None else ("WAV_INT16", request.wav_int16)
    lengths = request.wav_lens
    if wav is None or (request.wav is not None and request.wav_int16 is not None):
        raise AudioError(f"Expected either WAV or WAV_INT16, got {'neither' if wav is None else 'both'}")
    if lengths is None:
        raise AudioError("Expected WAV_LENS, got none", hint="it says how many samples are audio")
    if wav.ndim != 2 or len(wav) != 1 or lengths.size != 1:
        raise AudioError(f"Expected {name} [1, N] and WAV_LENS [1, 1], got {list(wav.shape)} and {list(lengths.shape)}")
    length = int(lengths.item())
    if not 0 <= length <= wav.shape[1]:
        raise AudioError(
            f"Expected WAV_LENS of 0 to {wav.shape[1]}, the samples in {name}, got {length}",
            hint="WAV_LENS counts samples, not bytes or seconds",
        )
    if wav.shape[1] > MAX_CHUNK_SEC * SAMPLE_RATE:  # padding counts: it takes memory too
        raise AudioError(
            f"Expected at most {MAX_CHUNK_SEC:g} s of audio in one request, got {wav.shape[1] / SAMPLE_RATE:.1f} s",
            hint="send it in pieces",
        )
    return check_waveform(wav[0, :length], what=name)
