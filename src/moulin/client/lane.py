"""The protocol of one lane, a Triton sequence of many streams, without a connection: bundles out, news in.

    while True:
        result = client.infer(model, **lane.request())
        for stream in lane.reply(result): ...

A lane has one bundle under way; rows that come meanwhile go with the next. Needs numpy, msgspec and tritonclient.
"""

from __future__ import annotations

import json
import secrets
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferInput, InferRequestedOutput

from moulin.client.replay import Replay
from moulin.client.stream_session import MAX_SEQUENCE_ID
from moulin.errors import ClientError, RequestRefused, ServerBusy, ServerUnavailable
from moulin.live_transcript import LiveTranscript, Segment, StreamUpdate
from moulin.quoting import quoted

SAMPLE_RATE = 16_000

MAX_ROWS = 200
MAX_SAMPLES = 1 << 19
"""The most audio in a bundle, 1 MiB; what is more waits for the next."""
MAX_AHEAD_SAMPLES = 60 * SAMPLE_RATE
"""The audio of a stream that the server has and has not decoded, behind which more waits here: it refuses ten minutes.
"""
_PIECE_SAMPLES = MAX_SAMPLES // 4
"""The most audio in a row."""

_PAUSE_SAMPLES = int(0.4 * SAMPLE_RATE)
"""Of a pause behind a final segment: the part that belongs to its last word."""
_LEAD_SAMPLES = SAMPLE_RATE
"""Audio before a word that is enough to hear it."""
_LATE_SAMPLES = 2 * SAMPLE_RATE
"""Decoded audio without words that may still turn out to have one: a word is known some time after its sound."""

START, END, OPTIONS, DROP, FINALIZE = 1, 2, 4, 8, 16
"""Bits of EVENTS."""
_LAST = END | DROP | FINALIZE
"""Those behind which a row gets no more audio."""
_TEXT, _FINAL, _CLOSED, _FAILED, _REFUSED = range(5)
"""UPDATE_KINDS."""

NOTHING = np.zeros(0, np.int16)
_FULL = frozenset({"full", "busy"})
_read = msgspec.json.Decoder(StreamUpdate).decode
"""As `StreamUpdate.from_dict` of the JSON, in a seventh of its time."""


@dataclass(slots=True)
class Row:
    """What a stream sends with one bundle."""

    event: int = 0
    options: Mapping[str, Any] | None = None
    pieces: list[NDArray[np.int16]] = field(default_factory=list)
    num_samples: int = 0

    def add(self, piece: NDArray[np.int16]) -> None:
        self.pieces.append(piece)
        self.num_samples += len(piece)


@dataclass(slots=True, eq=False)
class LaneStream:
    """A stream's rows that wait, and what is known of it."""

    options: Mapping[str, Any] | None = None
    number: int = 0
    live: LiveTranscript = field(default_factory=LiveTranscript)
    rows: deque[Row] = field(default_factory=deque)
    """Rows that no bundle has taken yet."""
    under_way: Row | None = None
    sent: int = 0
    """Samples pushed so far."""
    taken: int = 0
    """Samples that bundles have taken so far."""
    decoded: int = 0
    """Samples decoded so far, as far as they go."""
    ending: bool = False
    """Whether the last samples have been pushed."""
    ended: bool = False
    """Whether the server has no such stream any more."""
    refused: set[str] = field(default_factory=set)
    """Instances that had no place for it."""
    error: ClientError | None = None
    """Why the stream has ended, or why its last row was refused; cleared when it was told."""
    replay: Replay | None = None
    """What is to be said again on another lane, where the stream may move."""
    moves: int = 0
    """How often it has gone on with another lane."""
    lost_at: float | None = None
    """When its lane was lost; None when another has decoded what that had."""
    _first_number: int = 0
    _begin: int = 0
    """The first number of a segment, and of a sample, on the present lane."""
    _known: int = 0
    """Samples that the lost lane had decoded. Until they are decoded again, its open segment is shown."""
    _heard: Segment | None = None
    _hides: bool = False
    _closed: list[Segment] = field(default_factory=list)
    _endpoint: bool = False

    @property
    def is_settled(self) -> bool:
        """Whether nothing is to come of what has been pushed."""
        if self.ended or self.error is not None:
            return True
        return not (self.rows or self.under_way or self.ending or self.decoded < self.sent)

    @property
    def is_ahead(self) -> bool:
        """Whether more audio is to wait until the server has decoded more."""
        return self.taken - self.decoded >= MAX_AHEAD_SAMPLES

    @property
    def is_catching_up(self) -> bool:
        """Whether less has been decoded on this lane than on the one that was lost."""
        return self.lost_at is not None and self.decoded < self._known and not self.ended

    def push(
        self, samples: NDArray[np.int16] = NOTHING, event: int = 0, options: Mapping[str, Any] | None = None
    ) -> None:
        """Put samples behind those that wait, and an event behind them; options hold from these samples on."""
        self._queue(samples, event, options)
        self.sent += len(samples)
        self.ending |= bool(event & END)
        if self.replay is not None:
            self.replay.add(samples, event & (END | FINALIZE), options)

    def _queue(self, samples: NDArray[np.int16], event: int, options: Mapping[str, Any] | None) -> None:
        if options is not None:
            # In a row without audio, which would be refused with them.
            self.rows.append(Row(OPTIONS, options))
        for begin in range(0, max(len(samples), 1), _PIECE_SAMPLES):
            piece = samples[begin : begin + _PIECE_SAMPLES]
            if not self._takes(len(piece)):
                self.rows.append(Row())
            if len(piece):
                self.rows[-1].add(piece)
        self.rows[-1].event |= event

    def _takes(self, count: int) -> bool:
        """Whether the last row that waits may have so many samples more."""
        if not self.rows:
            return False
        last = self.rows[-1]
        alone = last.event & _LAST or (last.event & (START | OPTIONS) == OPTIONS and count)
        return not alone and last.num_samples + count <= _PIECE_SAMPLES

    def start_row(self) -> None:
        """Put the row in front that opens the stream."""
        options = self.options if self.replay is None else dict(self.replay.options) or None
        self.rows.appendleft(Row(START | OPTIONS if options else START, options))

    def say_again(self) -> None:
        """Be as a stream that no lane has taken, with everything that is not final yet. Its replay must be whole."""
        assert self.replay is not None
        self.moves += 1
        self._known = max(self._known, self.decoded)
        self._hides, self._heard = True, None
        self._first_number = self.live.final[-1].number + 1 if self.live.final else 0
        self._begin = self.taken = self.decoded = self.replay.begin
        self.rows.clear()
        self.refused.clear()
        self.under_way = None
        self.start_row()
        for part in self.replay:
            self._queue(part.samples, part.event, part.options)

    def apply(self, update: StreamUpdate) -> None:
        if self._begin:
            update = update.placed(self._first_number, self._begin / SAMPLE_RATE)
        shown = self.live.open
        self.live.apply(update)
        closed = [segment for segment in update.segments if segment.is_final]
        self._closed += closed
        self._endpoint |= update.endpoint
        if update.is_final:
            self.decoded = self.sent
            self.end()
        elif self._hides and not closed:
            self._heard, self.live.open = self.live.open, shown
        else:
            self._hides = False

    def note_decoded(self, count: int) -> None:
        """The lane has decoded `count` samples of what it got."""
        self.decoded = self._begin + count
        if self.lost_at is not None and self.decoded >= self._known:
            self.lost_at = None
            if self._hides:
                self._hides, self.live.open = False, self._heard
        if self.replay is not None:
            self.replay.forget_before(self._final_until())

    def end(self, error: ClientError | None = None) -> None:
        """The stream is over, because of `error` if there is one."""
        self.ended = True
        self.error = error or self.error
        if self.replay is not None:
            self.replay.close()

    def _final_until(self) -> int:
        """The sample before which nothing has to be said again: behind the last word of the last final segment, and
        otherwise shortly before the next word, or before where one may still be found."""
        last = self.live.final[-1] if self.live.final else None
        said = round(last.end_sec * SAMPLE_RATE) if last else 0
        pause = _PAUSE_SAMPLES if last and last.ends_in_pause else 0
        if self.live.open is not None and self.live.open.words and not self._hides:
            word = round(self.live.open.start_sec * SAMPLE_RATE)
            return max(min(said + pause, (said + word) // 2), word - _LEAD_SAMPLES)
        if self._hides:
            return 0
        return min(max(said + pause, self.decoded - _LATE_SAMPLES), self.decoded)

    def take_update(self) -> StreamUpdate:
        """What has become known since the last call, with the open segment, as the unary contract's RESULT."""
        closed, self._closed = self._closed, []
        endpoint, self._endpoint = self._endpoint, False
        segments = (*closed, *([self.live.open] if self.live.open else []))
        return StreamUpdate(segments, endpoint, self.ended, round(self.sent / SAMPLE_RATE, 3))


class Lane:
    """One lane. After a failed request it is unknown what the server has done and said: the lane is lost then, and its
    streams are to be said again on another, or end (`lose`)."""

    def __init__(self) -> None:
        self.sequence_id = 1 + secrets.randbelow(MAX_SEQUENCE_ID)
        self.streams: dict[int, LaneStream] = {}
        self.instance = ""
        self.capacity = self.open = 0
        """Streams of the instance, of all lanes."""
        self.is_draining = False
        """Whether the server is about to end, and takes no new streams."""
        self._bundle = 0
        self._numbers = 0
        self._waiting: dict[int, LaneStream] = {}
        self._sent: list[LaneStream] = []
        self._starting: set[LaneStream] = set()
        self._unsettled: set[LaneStream] = set()

    @property
    def num_under_way(self) -> int:
        """Rows of the last bundle."""
        return len(self._sent)

    @property
    def has_rows(self) -> bool:
        return bool(self._waiting)

    @property
    def is_full(self) -> bool:
        """Whether a bundle has as many rows as it should."""
        return len(self._waiting) >= MAX_ROWS

    @property
    def is_behind(self) -> bool:
        """Whether audio is not decoded yet, or an end not answered: a bundle asks for it."""
        return bool(self._unsettled)

    @property
    def room(self) -> int:
        """Free places of the instance, as far as this lane knows."""
        return 0 if self.is_draining else self.capacity - self.open - len(self._starting)

    def start(self, stream: LaneStream) -> None:
        """Give `stream` a place on this lane; the server learns of it with its first samples (`wake`)."""
        self._numbers += 1
        self._starting.add(stream)
        stream.number = self._numbers
        self.streams[stream.number] = stream
        if not stream.rows:  # else it comes from another lane
            stream.start_row()

    def wake(self, stream: LaneStream) -> None:
        """`stream` has rows that are to be sent."""
        if stream.number in self.streams:
            self._waiting[stream.number] = stream
            self._unsettled.add(stream)

    def request(self, *, end: bool = False) -> dict[str, Any]:
        """The keyword arguments of tritonclient's `infer` that send the next bundle."""
        self._sent, total = [], 0
        for stream in list(self._waiting.values()):
            count = stream.rows[0].num_samples
            if len(self._sent) == MAX_ROWS or total + count > MAX_SAMPLES:
                break
            del self._waiting[stream.number]
            if count and stream.is_ahead:
                continue  # until more is decoded
            stream.under_way = stream.rows.popleft()
            total += count
            stream.taken += count
            self._sent.append(stream)
            if stream.rows:
                self._waiting[stream.number] = stream  # behind the others
        self._bundle += 1
        return {
            "inputs": _inputs(self._bundle, self._sent),
            "outputs": _OUTPUTS,
            "sequence_id": self.sequence_id,
            "sequence_start": self._bundle == 1,
            "sequence_end": end,
        }

    def reply(self, result: Any) -> tuple[list[LaneStream], list[LaneStream]]:
        """Apply an `InferResult`. Returns the streams with news, and those that found no place: they may start on
        another lane. Raises ClientError where the reply is none of a lane; the lane is lost then."""
        facts = _array(result, "LANE", np.uint8).tobytes()
        if not facts:
            raise ClientError("The server sent no LANE", hint="its model is not a streaming one of this moulin")
        lane = json.loads(facts)
        got, own = (lane["lane"], lane["bundle"]), (str(self.sequence_id), self._bundle)
        if got != own:
            raise ServerUnavailable(
                f"The server mixed up replies: expected that to lane {own[0]}, bundle {own[1]}, got that to lane "
                f"{quoted(got[0])}, bundle {quoted(got[1])}",
                hint="open another stream",
            )
        self.instance, self.capacity, self.open = lane["instance"], lane["capacity"], lane["open"]
        self.is_draining = lane.get("draining", False)
        changed, homeless = {id(stream): stream for stream in self._sent}, []
        at, content = 0, _array(result, "UPDATES", np.uint8).tobytes()
        for number, kind, size in zip(
            _array(result, "UPDATE_STREAMS", np.uint64).tolist(),
            _array(result, "UPDATE_KINDS", np.uint8).tolist(),
            _array(result, "UPDATE_LENS", np.int32).tolist(),
            strict=True,
        ):
            news, at = content[at : at + size], at + size
            if (stream := self.streams.get(number)) is None:
                continue  # it was dropped
            changed[id(stream)] = stream
            if kind not in (_FAILED, _REFUSED):
                stream.apply(_read(news))
            elif kind == _REFUSED and (fields := json.loads(news))["code"] in _FULL and stream.under_way:
                del changed[id(stream)]
                homeless.append(self._take_back(stream, fields))
                continue
            else:
                self._fail(stream, json.loads(news), refused=kind == _REFUSED)
            if stream.ended:
                self._forget(stream)
        decoded = _array(result, "DECODED", np.uint64).tolist()
        for number, count in zip(_array(result, "DECODED_STREAMS", np.uint64).tolist(), decoded, strict=True):
            if (stream := self.streams.get(number)) is not None:
                stream.note_decoded(count)
                changed[id(stream)] = stream
                if stream.rows:
                    self._waiting[number] = stream
        for stream in self._sent:
            if stream.under_way is not None and stream.under_way.event & DROP:
                self._forget(stream)
            stream.under_way = None
        self._starting.difference_update(self._sent)
        self._unsettled.difference_update(stream for stream in changed.values() if stream.is_settled)
        return list(changed.values()), homeless

    def refused(self, error: RequestRefused) -> ClientError:
        """What streams are to be told where a bundle was refused as a whole."""
        if self._bundle == 1:
            return error
        return ServerUnavailable(
            f"The server has closed the lane of this stream: {error.message}",
            hint="open another stream; a lane is closed when the server or its client is held up for some seconds",
        )

    def lose(self) -> list[LaneStream]:
        """The lane is lost. Returns the streams that it had."""
        lost = list(self.streams.values())
        self.streams.clear()
        self._waiting.clear()
        self._unsettled.clear()
        return lost

    def _take_back(self, stream: LaneStream, fields: dict[str, Any]) -> LaneStream:
        """A stream that was not opened, as it was before."""
        assert stream.under_way is not None
        stream.rows.appendleft(stream.under_way)
        stream.taken -= stream.under_way.num_samples
        stream.under_way = None
        stream.error = _error(fields)
        self._forget(stream)
        return stream

    def _fail(self, stream: LaneStream, fields: dict[str, Any], *, refused: bool) -> None:
        stream.error = _error(fields)
        row = stream.under_way
        if not refused or fields["code"] == "not_open" or (row and row.event & START):
            stream.end()
        elif row is not None:
            stream.sent -= row.num_samples
            stream.taken -= row.num_samples
            if stream.replay is not None:
                stream.replay.take_back(row.options, row.num_samples)

    def _forget(self, stream: LaneStream) -> None:
        self.streams.pop(stream.number, None)
        self._waiting.pop(stream.number, None)
        self._unsettled.discard(stream)
        self._starting.discard(stream)


def _error(fields: dict[str, Any]) -> ClientError:
    kinds: dict[str, type[ClientError]] = {"full": ServerBusy, "busy": ServerBusy, "invalid": RequestRefused}
    return kinds.get(fields["code"], ClientError)(fields["error"], hint=fields["hint"])


_OUTPUTS = [
    InferRequestedOutput(name)
    for name in ("LANE", "UPDATE_STREAMS", "UPDATE_KINDS", "UPDATE_LENS", "UPDATES", "DECODED_STREAMS", "DECODED")
]


def _array(result: Any, name: str, dtype: type) -> NDArray[Any]:
    """An output as an array [n]; outputs without elements are left out of a reply."""
    array = result.as_numpy(name)
    return np.zeros(0, dtype) if array is None else array.reshape(-1)


def _inputs(number: int, streams: list[LaneStream]) -> list[InferInput]:
    rows = [stream.under_way for stream in streams if stream.under_way is not None]
    pieces = [piece for row in rows for piece in row.pieces]
    tensors: dict[str, tuple[str, NDArray[Any]]] = {"BUNDLE": ("UINT64", np.array([number], np.uint64))}
    if rows:
        tensors["STREAMS"] = "UINT64", np.array([stream.number for stream in streams], np.uint64)
    if pieces:
        tensors["CHUNK_LENS"] = "INT32", np.array([row.num_samples for row in rows], np.int32)
        tensors["CHUNKS"] = "INT16", np.concatenate(pieces)
    if any(row.event for row in rows):
        tensors["EVENTS"] = "UINT8", np.array([row.event for row in rows], np.uint8)
    options = [json.dumps(dict(row.options)).encode() for row in rows if row.options is not None]
    if options:
        tensors["STREAM_OPTIONS"] = "BYTES", np.array(options, np.object_)
    inputs = []
    for name, (datatype, tensor) in tensors.items():
        item = InferInput(name, [1, len(tensor)], datatype)
        item.set_data_from_numpy(tensor[None])
        inputs.append(item)
    return inputs
