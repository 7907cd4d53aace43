"""A stream of speech over an asyncio connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from numpy.typing import ArrayLike

from moulin.client.stream_session import StreamSession
from moulin.errors import ClientError
from moulin.live_transcript import LiveTranscript, StreamUpdate
from moulin.transcript import Transcript


class AsyncLiveStream:
    """`LiveStream` for asyncio, created by `AsyncClient.stream`. One call at a time; other streams run on."""

    def __init__(self, infer: Callable[..., Awaitable[Any]], session: StreamSession) -> None:
        """`infer` is tritonclient's with the model given, and raises ClientError."""
        self._infer, self._session = infer, session

    @property
    def live(self) -> LiveTranscript:
        """The transcript so far."""
        return self._session.live

    async def send(self, samples: ArrayLike, *, end: bool = False) -> StreamUpdate:
        """See `LiveStream.send`."""
        return self._session.update(await self._infer(**self._session.request(samples, end=end)))

    async def finish(self, samples: ArrayLike = ()) -> Transcript:
        """See `LiveStream.finish`."""
        await self.send(samples, end=True)
        return self.live.transcript()

    async def close(self) -> None:
        """See `LiveStream.close`."""
        farewell = self._session.farewell()
        if farewell is not None:
            with suppress(ClientError):
                await self._infer(**farewell)
