"""Many streams of speech to one server in few requests, for threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, TypeVar

from numpy.typing import ArrayLike

from moulin.client.async_bundle import GATHER_SEC, AsyncBundledStream, AsyncStreamBundle, closed_error
from moulin.client.async_client import AsyncClient
from moulin.client.async_pool import AsyncStreamPool
from moulin.client.protocol import DEFAULT_MODEL, DEFAULT_URL
from moulin.live_transcript import LiveTranscript, StreamUpdate
from moulin.transcript import Transcript

_Result = TypeVar("_Result")


class BundledStream:
    """A stream made by `StreamBundle.open`, for one thread at a time; see `AsyncBundledStream`."""

    def __init__(self, bundle: StreamBundle, stream: AsyncBundledStream) -> None:
        self._bundle, self._stream = bundle, stream

    @property
    def live(self) -> LiveTranscript:
        """The transcript so far."""
        return self._stream.live

    def push(self, samples: ArrayLike, *, end: bool = False) -> None:
        """See `AsyncBundledStream.push`."""

        async def push() -> None:
            self._stream.push(samples, end=end)

        self._bundle._run(push())

    def send(self, samples: ArrayLike, *, end: bool = False) -> StreamUpdate:
        """See `AsyncBundledStream.send`."""
        return self._bundle._run(self._stream.send(samples, end=end))

    def settled(self) -> StreamUpdate:
        """See `AsyncBundledStream.settled`."""
        return self._bundle._run(self._stream.settled())

    def finish(self, samples: ArrayLike = ()) -> Transcript:
        """See `AsyncBundledStream.finish`."""
        return self._bundle._run(self._stream.finish(samples))

    def finalize(self) -> StreamUpdate:
        """See `AsyncBundledStream.finalize`."""
        return self._bundle._run(self._stream.finalize())

    def change_options(self, **options: Any) -> None:
        """See `AsyncBundledStream.change_options`."""

        async def change() -> None:
            self._stream.change_options(**options)

        self._bundle._run(change())

    def close(self) -> None:
        """See `AsyncBundledStream.close`."""
        if not self._stream.ended:
            self._bundle._run(self._stream.close())


class StreamBundle:
    """`AsyncStreamBundle` for threads, on an event loop in a thread of its own, which also keeps the lanes alive.

    with StreamBundle("localhost:8001") as bundle:
        streams = [bundle.open() for _ in range(100)]
        for stream, samples in zip(streams, chunks):
            stream.push(samples)
        for stream in streams:
            print(stream.settled())
    """

    def __init__(
        self,
        url: str | Sequence[str] = DEFAULT_URL,
        *,
        model: str = DEFAULT_MODEL,
        lanes: int | None = None,
        gather_sec: float = GATHER_SEC,
        timeout_sec: float | None = None,
    ) -> None:
        """`model` as for `Client`: its streaming model beside it is taken where there is one. With several addresses
        streams are shared out and moved as by `AsyncStreamPool`. Raises as `AsyncClient.bundle`."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="moulin-bundle", daemon=True)
        self._thread.start()
        self._open = AsyncExitStack()
        try:
            self._bundle = self._run(self._connect(url, model, lanes, gather_sec, timeout_sec))
        except BaseException:
            self._stop()
            raise

    def open(self, **options: Any) -> BundledStream:
        """See `AsyncStreamBundle.open`."""
        return BundledStream(self, self._run(self._bundle.open(**options)))

    def close(self) -> None:
        """End all lanes, and with them the streams that are open."""
        if not self._loop.is_closed():
            self._stop()

    async def _connect(
        self, url: str | Sequence[str], model: str, lanes: int | None, gather_sec: float, timeout_sec: float | None
    ) -> AsyncStreamBundle | AsyncStreamPool:
        if not isinstance(url, str):
            pool = AsyncStreamPool(url, model=model, lanes=lanes, gather_sec=gather_sec, timeout_sec=timeout_sec)
            return await self._open.enter_async_context(pool)
        client = await self._open.enter_async_context(AsyncClient(url, model=model, timeout_sec=timeout_sec))
        return await self._open.enter_async_context(client.bundle(lanes=lanes, gather_sec=gather_sec))

    def _run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        if self._loop.is_closed():
            work.close()
            raise closed_error()
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _stop(self) -> None:
        try:
            self._run(self._open.aclose())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def __enter__(self) -> StreamBundle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
