"""Transcription of recordings of any length by Triton: decoded, cut and sent piece by piece, several at once."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self

from moulin.audio.selection import Selection
from moulin.gateway.adaptive_limit import AdaptiveLimit
from moulin.gateway.api_error import RETRY_AFTER_SEC, ApiError
from moulin.gateway.fair_places import FairPlaces
from moulin.gateway.metrics import Metrics
from moulin.gateway.tracing import Attributes, Tracing
from moulin.gateway.triton_servers import TritonServers
from moulin.gateway.upload import Recording
from moulin.isolated_decoding.messages import DecodingLimits
from moulin.isolated_decoding.processes import Decoding, DecodingProcesses
from moulin.long_audio.cutter import Piece
from moulin.transcript import Transcript

# Limits of memory: a piece of 30 s has 2 MB, and as much again in each of two copies on its way to Triton.
_RECORDINGS_AT_ONCE = 32
_PIECES_AT_ONCE = 32
_PIECES_OF_ONE = 8
_LIVE_AT_ONCE = 64
"""Live streams in containers, each with a process."""


class Recordings:
    """Shares the servers fairly by callers: every recording makes progress, and none has more than its share of pieces
    in flight. Recordings are decoded in processes of their own, which end with the request.

    An asynchronous context manager, to be entered in the event loop.
    """

    def __init__(
        self, triton: TritonServers, metrics: Metrics, tracing: Tracing, limits: DecodingLimits | None = None
    ) -> None:
        self._triton, self._metrics, self._tracing = triton, metrics, tracing
        self._turns = FairPlaces(_RECORDINGS_AT_ONCE)
        self._limit = AdaptiveLimit(at_least=2 * triton.count, at_most=_PIECES_AT_ONCE)
        self._places = FairPlaces(self._limit.value)
        self._processes = DecodingProcesses(limits)
        self._live = 0

    async def __aenter__(self) -> Self:
        self._starting = asyncio.create_task(self._processes.start())  # the first recording need not wait for it
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(self._starting, return_exceptions=True)  # a recording has had or will have its error
        await self._processes.close()

    @asynccontextmanager
    async def decoding(
        self,
        recording: Recording,
        selection: Selection,
        caller: str,
        *,
        max_audio_sec: float,
        max_utterance_sec: float | None,
        peaks: bool = False,
    ) -> AsyncIterator[Decoding]:
        """Wait for the caller's turn, and decode the recording; see `DecodingProcesses`."""
        with self._metrics.queued.track_inprogress():
            await self._turns.wait(caller)
        try:
            with self._metrics.transcribing.track_inprogress():
                async with self._processes.decoding(
                    recording.descriptor,
                    recording.name,
                    selection,
                    max_audio_sec=max_audio_sec,
                    max_utterance_sec=max_utterance_sec,
                    peaks=peaks,
                ) as decoding:
                    yield decoding
        finally:
            self._turns.release(caller)

    @asynccontextmanager
    async def decoding_live(self, name: str) -> AsyncIterator[tuple[Decoding, socket.socket]]:
        """See `DecodingProcesses`. Raises ApiError 429 where as many live containers are decoded as may be."""
        if self._live >= _LIVE_AT_ONCE:
            raise ApiError(
                429,
                f"{self._live} live streams in containers are open, which is the limit",
                code="server_busy",
                hint="try again later, or send samples",
                retry_after_sec=RETRY_AFTER_SEC,
            )
        self._live += 1
        try:
            async with self._processes.decoding_live(name) as (decoding, feed):
                yield decoding, feed
        finally:
            self._live -= 1

    async def heard(
        self, pieces: Decoding, caller: str, model: str, options: Mapping[str, Any], request_id: str
    ) -> AsyncIterator[tuple[Piece, Transcript]]:
        """Each piece with its transcript, in order, as soon as it is available.

        Raises AudioError where the recording cannot be decoded, and what `TritonServers.transcribe` raises.
        """
        started = time.monotonic()
        running: deque[asyncio.Task[tuple[Piece, Transcript]]] = deque()
        more = True
        try:
            while more or running:
                while more and len(running) < _PIECES_OF_ONE:
                    await self._places.wait(caller)
                    piece = None
                    try:
                        piece = await anext(pieces, None)
                    finally:
                        if piece is None:
                            self._places.release(caller)
                    if piece is None:
                        more = False
                    else:
                        asked = self._transcript(piece, model, options, request_id)
                        task = asyncio.create_task(asked)
                        # Also of a task that is cancelled before it begins.
                        task.add_done_callback(lambda _: self._places.release(caller))
                        running.append(task)
                if running:
                    yield await running.popleft()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        self._metrics.count_audio("recording", pieces.decoded_sec)
        self._metrics.rtfx.observe(pieces.decoded_sec / max(time.monotonic() - started, 1e-3))

    async def _transcript(
        self, piece: Piece, model: str, options: Mapping[str, Any], request_id: str
    ) -> tuple[Piece, Transcript]:
        about: Attributes = {
            "moulin.model": model,
            "moulin.start_sec": piece.start_sec,
            "moulin.end_sec": piece.end_sec,
        }
        with self._tracing.span("triton infer", about):
            sent, full = time.monotonic(), self._places.full
            transcript = await self._triton.transcribe(model, piece.waveform, options, request_id=request_id)
            self._places.resize(self._limit.after(time.monotonic() - sent, full=full))
            return piece, transcript
