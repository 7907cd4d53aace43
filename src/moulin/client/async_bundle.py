"""Many streams of speech to one server in few requests, for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moulin.audio.waveform import check_waveform, in_16_bits
from moulin.client.lane import DROP, END, FINALIZE, NOTHING, Lane, LaneStream
from moulin.client.replay import Replay, ReplayMemory
from moulin.errors import ClientError, RequestRefused, ServerBusy, ServerUnavailable
from moulin.live_transcript import LiveTranscript, StreamUpdate
from moulin.transcript import Transcript

GATHER_SEC = 0.01
"""The longest wait of a chunk for others to go with, and the time between questions for news."""

_ALIVE_SEC = 0.4
"""The time between bundles of a lane that has nothing to say: the server closes one that is silent for 3 s."""
_MOST_TRIES = 4
"""Lanes that are opened for each instance until every instance has one."""
_LOST_SEC = 1.0
"""The time after a failure before lanes are opened again."""
_CLOSE_SEC = 5.0


class AsyncBundledStream:
    """`AsyncLiveStream` over an `AsyncStreamBundle`, made by its `open`: one call of `send` at a time."""

    def __init__(self, bundle: AsyncStreamBundle, stream: LaneStream, lane: Lane) -> None:
        self._bundle, self.lane_stream, self.lane = bundle, stream, lane
        self.opened_at = asyncio.get_running_loop().time()
        self._settled: asyncio.Future[None] | None = None
        self.on_news: Callable[[], None] | None = None
        """Called in the event loop when there is news of the stream, for users of `push`; it must not raise."""

    @property
    def live(self) -> LiveTranscript:
        """The transcript so far."""
        return self.lane_stream.live

    @property
    def decoded_samples(self) -> int:
        """The samples that have been decoded as far as they go."""
        return self.lane_stream.decoded

    @property
    def moves(self) -> int:
        """How often the stream has lost its lane and gone on with another."""
        return self.lane_stream.moves

    @property
    def ended(self) -> bool:
        """Whether the stream is over, with its result or an error."""
        return self.lane_stream.ended

    @property
    def error(self) -> ClientError | None:
        """Why the stream is over, if it has failed."""
        return self.lane_stream.error if self.lane_stream.ended else None

    def push(self, samples: ArrayLike, *, end: bool = False) -> None:
        """Send the next samples, float or int16 [N], 16 kHz mono, and return at once; `end` marks the last ones. Raises
        AudioError and, where the stream has ended, ClientError."""
        self._push(_int16(samples), END if end else 0)

    async def send(self, samples: ArrayLike, *, end: bool = False) -> StreamUpdate:
        """Send the next samples; `end` marks the last ones. Returns when all that has been sent is decoded as far as
        it goes, with what is new since the last call. Raises as `push`, and ServerBusy where there is no place."""
        self.push(samples, end=end)
        return await self.settled()

    async def settled(self) -> StreamUpdate:
        """Wait until all that has been sent is decoded as far as it goes. Returns what is new since the last call."""
        stream = self.lane_stream
        if not stream.is_settled:
            self._settled = asyncio.get_running_loop().create_future()
            await self._settled
        if stream.error is not None:
            error, stream.error = stream.error, stream.error if stream.ended else None
            raise error
        return stream.take_update()

    async def finish(self, samples: ArrayLike = ()) -> Transcript:
        """Send the last samples, if any, and return the whole transcript."""
        await self.send(samples, end=True)
        return self.live.transcript()

    async def finalize(self) -> StreamUpdate:
        """Close the segment when what has been sent is decoded as far as it goes; the stream goes on."""
        self._push(event=FINALIZE)
        return await self.settled()

    def change_options(self, **options: Any) -> None:
        """Change options of the stream, from the samples that are sent next on."""
        self._push(options=options)

    async def close(self) -> None:
        """Forget the stream if it has not ended."""
        if not self.lane_stream.ended:
            self.lane_stream.rows.clear()
            self._push(event=DROP)
            self.lane_stream.end()

    def _push(
        self, samples: NDArray[np.int16] = NOTHING, event: int = 0, options: Mapping[str, Any] | None = None
    ) -> None:
        stream = self.lane_stream
        if stream.ended:
            raise stream.error or ClientError("The stream has ended", hint="open another one")
        stream.push(samples, event, options)
        self._bundle._wake(self.lane, stream)

    def fail(self, error: ClientError) -> None:
        """End the stream, which is on no lane any more, with `error`."""
        self.lane_stream.end(error)
        self.tell()

    def tell(self) -> None:
        """Called when there is news of the stream."""
        if self._settled is not None and self.lane_stream.is_settled and not self._settled.done():
            self._settled.set_result(None)
        if self.on_news is not None:
            self.on_news()


class Rescue(Protocol):
    """Who finds other places for streams that have lost theirs."""

    memory: ReplayMemory

    def take(self, stream: AsyncBundledStream, refused_by: AsyncStreamBundle, error: ClientError) -> bool:
        """Take over a stream that found no place at `refused_by`. Returns False where it cannot; the stream then ends
        with `error`."""

    def take_lost(self, stream: AsyncBundledStream, error: ClientError) -> bool:
        """Take over a stream that lost its lane because of `error`. Returns False where it cannot; the stream then ends
        with that error."""


class AsyncStreamBundle:
    """Streams that share lanes to one server: a lane for each instance of its model, and one request under way on each.

        async with AsyncClient("localhost:8001") as client, client.bundle() as bundle:
            stream = await bundle.open()
            async for samples in microphone:
                print(await stream.send(samples))
            print((await stream.finish()).text)

    Chunks wait up to `gather_sec` for others to go with. After a request that failed its lane is lost: the streams on
    it go to the bundle's `Rescue`, or raise the error, and new streams go to new lanes. `AsyncStreamPool` has a rescue.
    """

    def __init__(
        self,
        infer: Callable[..., Awaitable[Any]],
        lanes: int,
        *,
        gather_sec: float = GATHER_SEC,
        rescue: Rescue | None = None,
    ) -> None:
        """`infer` is tritonclient's with the model given, and raises ClientError. `lanes` is the number of instances.
        Made by `AsyncClient.bundle`."""
        self._rescue = rescue
        self._infer, self._wanted, self._gather_sec = infer, lanes, gather_sec
        self._lanes: dict[Lane, asyncio.Task[None]] = {}
        self._woken: dict[Lane, asyncio.Event] = {}
        self._streams: dict[LaneStream, AsyncBundledStream] = {}
        self._opening = asyncio.Lock()
        self._failed_at = -_LOST_SEC
        self._failure: ClientError | None = None
        self._closing = False
        self.num_requests = self.num_rows = 0

    @property
    def is_lost(self) -> bool:
        """Whether its lanes are lost or have ended with their server, and no new one has been opened."""
        return self._failure is not None and not self._lanes

    @property
    def lanes(self) -> list[Lane]:
        """The lanes that are open."""
        return list(self._lanes)

    @property
    def is_draining(self) -> bool:
        """Whether the server is about to end, and takes no new streams."""
        return bool(self._lanes) and all(lane.is_draining for lane in self._lanes)

    @property
    def num_streams(self) -> int:
        """Streams that are open."""
        return len(self._streams)

    @property
    def room(self) -> int:
        """Free places of the server, as far as the last replies tell."""
        return sum(max(0, lane.room) for lane in self._lanes)

    @property
    def load(self) -> float:
        """The share of the server's places that are taken, 0 to 1, as far as the last replies tell."""
        capacity = sum(lane.capacity for lane in self._lanes)
        return 1.0 - self.room / capacity if capacity else 0.0

    async def open(self, **options: Any) -> AsyncBundledStream:
        """A stream on the instance with most room. `options` are those of `StreamOptions`. The server checks them and
        finds it a place with the first samples. Raises ClientError where no lane can be opened."""
        if self._closing:
            raise closed_error()
        if len(self._lanes) < self._wanted:
            await self.open_lanes()
        lane = self._roomiest()
        if lane.is_draining:
            raise ServerUnavailable(
                "The server is stopping, and takes no new streams", hint="open it on another server"
            )
        stream = LaneStream(options or None)
        if self._rescue is not None:
            stream.replay = Replay(self._rescue.memory, options)
        opened = self._streams[stream] = AsyncBundledStream(self, stream, lane)
        lane.start(stream)
        return opened

    def adopt(self, opened: AsyncBundledStream) -> None:
        """Start a stream here that a `Rescue` has taken over; it must have rows. There must be a lane."""
        stream, lane = opened.lane_stream, self._roomiest()
        opened._bundle, opened.lane = self, lane
        self._streams[stream] = opened
        lane.start(stream)
        self._wake(lane, stream)

    async def close(self) -> None:
        """End all lanes, and with them the streams that are open."""
        self._closing = True
        for event in self._woken.values():
            event.set()
        tasks = list(self._lanes.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_CLOSE_SEC)
            for task in late:
                task.cancel()

    # ------------------------------------------------------------------------------------------------------------ lanes

    def _roomiest(self) -> Lane:
        return max(self._lanes, key=lambda lane: (not lane.is_draining, lane.room))

    async def open_lanes(self) -> None:
        """Open lanes until every instance has one. Raises ClientError where there is none after that."""
        async with self._opening:
            now = asyncio.get_running_loop().time()
            if len(self._lanes) >= self._wanted:
                return
            if now - self._failed_at >= _LOST_SEC:
                await self._try_to_open()
            if not self._lanes:
                raise self._failure or closed_error()

    async def _try_to_open(self) -> None:
        covered, spare = {lane.instance for lane in self._lanes}, []
        for _ in range(_MOST_TRIES * self._wanted):
            if len(covered) >= self._wanted or self._closing:
                break
            lane = Lane()
            try:
                await self._exchange(lane)
            except ClientError as error:
                self._failed_at, self._failure = asyncio.get_running_loop().time(), error
                break
            if lane.instance in covered:
                spare.append(lane)  # kept meanwhile, or Triton would choose this instance again
                continue
            covered.add(lane.instance)
            self._failure = None
            self._woken[lane] = asyncio.Event()
            self._lanes[lane] = asyncio.create_task(self._run(lane))
        for lane in spare:
            with suppress(ClientError):
                await self._exchange(lane, end=True)
        if spare and len(self._lanes) < self._wanted:  # fewer instances than was said
            self._wanted = max(1, len(self._lanes))

    async def _run(self, lane: Lane) -> None:
        """Send the lane's bundles until it is lost or all are closed."""
        woken, now = self._woken[lane], asyncio.get_running_loop().time
        next_at = now()
        try:
            while not (self._closing or (lane.is_draining and not lane.streams)):
                if not lane.has_rows and not lane.is_behind:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_ALIVE_SEC):
                            await woken.wait()
                # What comes while the last bundle is young gathers; after a while of silence nothing needs to wait.
                if not (lane.is_full or self._closing) and (wait_sec := next_at - now()) > 0:
                    await asyncio.sleep(wait_sec)
                woken.clear()
                next_at = now() + self._gather_sec
                await self._exchange(lane)
            await self._exchange(lane, end=True)
            self._failure = closed_error() if self._closing else ServerUnavailable("The server has stopped")
            self._lose(lane, self._failure)  # with its streams, and those that came meanwhile to one that drains
        except ClientError as error:
            self._failure = error
            if not isinstance(error.__cause__, RequestRefused):  # else the server answers
                self._failed_at = now()
            self._lose(lane, error)
        except BaseException:
            self._lose(lane, closed_error())
            raise

    async def _exchange(self, lane: Lane, *, end: bool = False) -> None:
        """Send a bundle and tell the streams. Raises ClientError; the lane is to be given up then."""
        request = lane.request(end=end)
        self.num_requests += 1
        self.num_rows += lane.num_under_way
        try:
            result = await self._infer(**request)
        except RequestRefused as error:
            raise lane.refused(error) from error
        changed, homeless = lane.reply(result)
        for stream in changed:
            self._tell(stream)
        for stream in homeless:
            self._start_elsewhere(stream, lane)

    def _start_elsewhere(self, stream: LaneStream, refused: Lane) -> None:
        """Find another instance for a stream that had no place on one."""
        stream.refused.add(refused.instance)
        others = [lane for lane in self._lanes if lane.instance not in stream.refused and lane.room > 0]
        if not others:
            opened, error = self._streams.pop(stream), stream.error or ServerBusy("All streams are in use")
            stream.error = None
            if self._rescue is None or not self._rescue.take(opened, self, error):
                opened.fail(error)
            return
        stream.error = None
        lane = max(others, key=lambda lane: lane.room)
        self._streams[stream].lane = lane
        lane.start(stream)
        self._wake(lane, stream)

    def _lose(self, lane: Lane, error: ClientError) -> None:
        self._lanes.pop(lane, None)
        self._woken.pop(lane, None)
        for stream in lane.lose():
            opened = self._streams.pop(stream, None)
            if opened is None or stream.ended:
                continue
            if self._rescue is None or self._closing or not self._rescue.take_lost(opened, error):
                opened.fail(error)

    def _tell(self, stream: LaneStream) -> None:
        opened = self._streams.get(stream)
        if opened is not None:
            opened.tell()
            if stream.ended:
                del self._streams[stream]

    def _wake(self, lane: Lane, stream: LaneStream) -> None:
        lane.wake(stream)
        if lane in self._woken:
            self._woken[lane].set()

    async def __aenter__(self) -> AsyncStreamBundle:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


def closed_error() -> ClientError:
    """The error of a bundle that has been closed."""
    return ClientError("The bundle has been closed")


def _int16(samples: ArrayLike) -> NDArray[np.int16]:
    array = np.asarray(samples)
    if array.dtype == np.int16 and array.ndim == 1:
        return array
    return in_16_bits(check_waveform(array if array.size else np.zeros(0, np.float32), what="samples"))
