"""Streams of the load generator to a Triton server: a sequence each, a request a chunk, in order, one at a time.
Whole recordings are a request each, without a sequence.

Generator and server share a machine, so requests are serialised before the load starts. Only the sequence's id is put
into each; HTTP takes it in the middle of its JSON, gRPC anywhere (protobuf messages concatenate).
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from moulin.audio.waveform import in_16_bits
from moulin.evaluate.connection import Record
from moulin.evaluate.streaming_clips import Clip
from moulin.triton_repo import contract

_CLOSE_SEC = 2.0


@dataclass(frozen=True, slots=True)
class Request:
    """A serialised request but for the sequence's id."""

    before: bytes
    after: bytes


Done = Callable[[bytes, str | None], None]
"""A callback for the body of a reply, and for the reason of a failure."""


class Wire(Protocol):
    """A transport of requests."""

    def serialize(
        self, samples: NDArray[np.float32], *, valid: int, start: bool, end: bool, options: str = ""
    ) -> Request:
        """A request with `samples` [n], of which `valid` are audio. `options` (JSON) go with the start."""

    def serialize_whole(self, samples: NDArray[np.float32], options: str = "") -> bytes:
        """The request for a whole recording, without a sequence."""

    def serialize_id(self, sequence_id: int) -> bytes: ...

    def request(self, message: bytes, done: Done) -> None:
        """Send `message`; return at once. Failures go to `done`, too."""

    def text(self, body: bytes) -> str:
        """The transcript in a reply."""

    async def close(self) -> None: ...


class TritonConnection:
    """A `Connection` for streams. Ids of generators that run beside each other begin far from each other."""

    def __init__(self, wire: Wire, clips: Sequence[Clip], generator: int = 0, options: str = "") -> None:
        self._wire = wire
        self.num_requests = 0
        self._requests = {id(clip): list(_requests(wire, clip, options)) for clip in clips}
        self._ids = itertools.count(1 + (generator << 32))
        self._ending: list[TritonStream] = []
        # Triton takes no tensor without elements, so an end without audio is sent with one invalid sample.
        self._end = wire.serialize(np.zeros(1, dtype=np.float32), valid=0, start=False, end=True)

    def open(self, record: Record) -> TritonStream:
        requests = [*self._requests[id(record.clip)], self._end]
        return TritonStream(self._request, self._wire, record, requests, next(self._ids), self._ending)

    def _request(self, message: bytes, done: Done) -> None:
        self.num_requests += 1
        self._wire.request(message, done)

    async def close(self) -> None:
        """Wait until abandoned sequences have ended, so that they hold no slot in the server, and close."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _CLOSE_SEC
        while any(stream.busy for stream in self._ending) and loop.time() < deadline:
            await asyncio.sleep(0.02)
        await self._wire.close()


class TritonRequests:
    """A `Connection` for whole recordings."""

    def __init__(self, wire: Wire, clips: Sequence[Clip], options: str = "") -> None:
        self._wire = wire
        self.num_requests = 0
        self._requests = {id(clip): wire.serialize_whole(clip.chunks[0], options) for clip in clips}

    def open(self, record: Record) -> WholeRequest:
        self.num_requests += 1
        return WholeRequest(self._wire, record, self._requests[id(record.clip)])

    async def close(self) -> None:
        await self._wire.close()


class WholeRequest:
    """One recording."""

    def __init__(self, wire: Wire, record: Record, message: bytes) -> None:
        self._wire, self._record, self._message = wire, record, message
        self._loop = asyncio.get_running_loop()

    def send(self, index: int) -> None:
        self._record.sent[index] = self._loop.time()
        self._wire.request(self._message, self._done)

    def abandon(self) -> None:
        """Do nothing: a request under way cannot be taken back; its connection is closed with the others."""

    def _done(self, body: bytes, failure: str | None) -> None:
        if failure is not None:
            self._record.fail(failure)
            return
        self._record.replied[0] = self._loop.time()
        self._record.finish(self._wire.text(body))


class TritonStream:
    """One sequence."""

    def __init__(
        self,
        request: Callable[[bytes, Done], None],
        wire: Wire,
        record: Record,
        requests: Sequence[Request],
        number: int,
        ending: list[TritonStream],
    ) -> None:
        self._request, self._wire, self._record = request, wire, record
        self._requests, self._ending = requests, ending
        self._id = wire.serialize_id(number)
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[int] = deque()
        self._under_way: int | None = None
        self._started = False

    @property
    def busy(self) -> bool:
        return self._under_way is not None

    def send(self, index: int) -> None:
        self._waiting.append(index)
        if self._under_way is None:
            self._next()

    def abandon(self) -> None:
        self._waiting.clear()
        if self._started:
            self._ending.append(self)
            self.send(len(self._requests) - 1)

    def _next(self) -> None:
        index = self._waiting.popleft()
        self._under_way, self._started = index, True
        if index < len(self._record.sent):
            self._record.sent[index] = self._loop.time()
        request = self._requests[index]
        self._request(b"".join((request.before, self._id, request.after)), self._done)

    def _done(self, body: bytes, failure: str | None) -> None:
        now, index = self._loop.time(), self._under_way
        assert index is not None
        self._under_way = None
        record, last = self._record, len(self._record.replied) - 1
        if index > last:
            return
        if failure is not None:
            record.fail(failure)
            return
        record.replied[index] = now
        text = self._wire.text(body)
        record.heard(text, now)
        if index == last:
            record.finish(text)
        elif self._waiting:
            self._next()


def serialize_audio(samples: NDArray[np.float32], *, int16: bool) -> tuple[str, str, bytes]:
    """The name, datatype and content of the tensor for `samples` [n]."""
    if int16:
        return contract.WAV_INT16, "INT16", in_16_bits(samples).astype("<i2").tobytes()
    return contract.WAV, "FP32", samples.astype("<f4").tobytes()


def _requests(wire: Wire, clip: Clip, options: str) -> Iterator[Request]:
    last = len(clip.chunks) - 1
    for index, chunk in enumerate(clip.chunks):
        yield wire.serialize(chunk, valid=len(chunk), start=index == 0, end=index == last, options=options)


def triton_connection(
    wire: Wire, clips: Sequence[Clip], generator: int, options: str
) -> TritonConnection | TritonRequests:
    """A connection with sequences for chunks, or without for whole recordings (clips of `whole_clips`)."""
    if all(clip.whole for clip in clips):
        return TritonRequests(wire, clips, options)
    return TritonConnection(wire, clips, generator, options)
