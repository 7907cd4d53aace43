"""A live client's consecutive streams on Triton, and their metrics."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack

from moulin.audio.waveform import SAMPLE_RATE
from moulin.client import AsyncBundledStream, AsyncLiveStream
from moulin.gateway.live_steps import Hear
from moulin.gateway.services import Services
from moulin.live_transcript import StreamUpdate

_COUNTED_SEC = 2.0
"""The audio of an open stream that metrics may not know of yet."""


class LiveRecognition:
    """Opens a stream with the first piece and closes it with the last, on failure, or by `forget`."""

    def __init__(self, services: Services, request_id: str) -> None:
        self._services, self._request_id = services, request_id
        self._open = AsyncExitStack()
        self._stream: AsyncLiveStream | AsyncBundledStream | None = None
        self._arrivals: list[tuple[float, float]] | None = []
        """Pieces before the first text: the end of each in the stream, and its time of arrival."""
        self.audio_sec = self._counted_sec = 0.0
        self.moves = 0
        """How often its streams have gone on with another server."""

    @property
    def log(self) -> dict[str, object]:
        """Fields for the line in the log."""
        return log_fields(self.audio_sec, self.moves)

    async def hear(self, step: Hear) -> StreamUpdate:
        """Send the piece. Raises what `TritonServers.stream` does, and the stream is closed then."""
        came = time.monotonic()
        try:
            if self._stream is None:
                self._arrivals = []
                self._stream = await self._open.enter_async_context(
                    self._services.triton.stream(step.model, request_id=self._request_id, **step.options)
                )
            update = await self._stream.send(step.samples, end=step.end is not None)
        except BaseException as error:
            await self._leave(error)
            raise
        self._measure(step, update, came)
        if step.end is not None:
            await self.forget()
        return update

    async def forget(self) -> None:
        """End the stream, if one is open."""
        await self._leave(None)

    async def _leave(self, error: BaseException | None) -> None:
        """Close the stream with `error`, from which `TritonServers` chooses the server for the next one."""
        if self.audio_sec > self._counted_sec:
            self._count()
        if isinstance(self._stream, AsyncBundledStream):
            self.moves += self._stream.moves
        self._stream, stack, self._open = None, self._open, AsyncExitStack()
        await stack.__aexit__(type(error) if error else None, error, error.__traceback__ if error else None)

    def _count(self) -> None:
        self._services.metrics.count_audio("stream", self.audio_sec - self._counted_sec)
        self._counted_sec = self.audio_sec

    def _measure(self, step: Hear, update: StreamUpdate, came: float) -> None:
        metrics, now = self._services.metrics, time.monotonic()
        seconds = len(step.samples) / SAMPLE_RATE
        self.audio_sec += seconds
        if self.audio_sec - self._counted_sec >= _COUNTED_SEC:
            self._count()
        if step.end is not None:
            metrics.final_seconds.observe(now - came)
        if self._arrivals is None:
            return
        self._arrivals.append((update.duration_sec, came))
        if update.segments and update.segments[0].words:
            spoken = update.segments[0].words[0].start_sec
            arrived = next((at for end_sec, at in self._arrivals if end_sec > spoken), came)
            metrics.first_partial_seconds.observe(now - arrived)
            self._arrivals = None


def log_fields(audio_sec: float, moves: int) -> dict[str, object]:
    """What the line of a live connection says in the log."""
    return {"audio_sec": round(audio_sec, 3), **({"moves": moves} if moves else {})}
