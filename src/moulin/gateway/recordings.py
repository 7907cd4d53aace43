"""Transcription of recordings of any length by Triton: decoded, cut and sent piece by piece, several at once."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from moulin.gateway.metrics import Metrics
from moulin.gateway.tracing import Attributes, Tracing
from moulin.gateway.triton_servers import TritonServers
from moulin.long_audio.cutter import Piece
from moulin.long_audio.recording_pieces import RecordingPieces
from moulin.transcript import Transcript

# Limits of memory: a piece of 30 s has 2 MB, and as much again in each of two copies on its way to Triton.
_RECORDINGS_AT_ONCE = 32
_PIECES_AT_ONCE = 32
_PIECES_OF_ONE = 8
_DECODERS = 8


class Recordings:
    """Shares the servers fairly: every recording makes progress, none has more than its share of pieces in flight."""

    def __init__(self, triton: TritonServers, metrics: Metrics, tracing: Tracing) -> None:
        self._triton, self._metrics, self._tracing = triton, metrics, tracing
        self._turns = asyncio.Semaphore(_RECORDINGS_AT_ONCE)
        self._places = asyncio.Semaphore(_PIECES_AT_ONCE)
        self._decoders = ThreadPoolExecutor(
            min(_DECODERS, len(os.sched_getaffinity(0))), thread_name_prefix="moulin-decode"
        )

    def close(self) -> None:
        self._decoders.shutdown(wait=False, cancel_futures=True)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until a recording may begin."""
        with self._metrics.queued.track_inprogress():
            await self._turns.acquire()
        try:
            with self._metrics.transcribing.track_inprogress():
                yield
        finally:
            self._turns.release()

    async def heard(
        self, pieces: RecordingPieces, model: str, options: Mapping[str, Any], request_id: str
    ) -> AsyncIterator[tuple[Piece, Transcript]]:
        """Each piece with its transcript, in order, as soon as it is available.

        Raises AudioError where the recording cannot be decoded, and what `TritonServers.transcribe` raises.
        """
        started, loop = time.monotonic(), asyncio.get_running_loop()
        running: deque[asyncio.Task[tuple[Piece, Transcript]]] = deque()
        more = True
        try:
            while more or running:
                while more and len(running) < _PIECES_OF_ONE:
                    await self._places.acquire()
                    try:
                        piece = await loop.run_in_executor(self._decoders, next, pieces, None)
                    except BaseException:
                        self._places.release()
                        raise
                    if piece is None:
                        self._places.release()
                        more = False
                    else:
                        running.append(asyncio.create_task(self._one(piece, model, options, request_id)))
                if running:
                    yield await running.popleft()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        self._metrics.audio_seconds.labels("recording").inc(pieces.decoded_sec)
        self._metrics.rtfx.observe(pieces.decoded_sec / max(time.monotonic() - started, 1e-3))

    async def _one(
        self, piece: Piece, model: str, options: Mapping[str, Any], request_id: str
    ) -> tuple[Piece, Transcript]:
        """Transcribe a piece, and release its place afterwards."""
        about: Attributes = {
            "moulin.model": model,
            "moulin.start_sec": piece.start_sec,
            "moulin.end_sec": piece.end_sec,
        }
        try:
            with self._tracing.span("triton infer", about):
                return piece, await self._triton.transcribe(model, piece.waveform, options, request_id=request_id)
        finally:
            self._places.release()
