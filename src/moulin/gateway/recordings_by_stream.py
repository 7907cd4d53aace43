"""Transcription of recordings by a streaming model: through a stream, as fast as it goes, without cutting.

Endpoints make the segments. A recording has one request under way, and in every step of the server it is one stream
among the others, however fast it sends: live streams wait for no more than that.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import numpy as np

from moulin.arrays import Floats
from moulin.gateway.metrics import Metrics
from moulin.gateway.triton_servers import TritonServers
from moulin.isolated_decoding.processes import Decoding
from moulin.live_transcript import StreamUpdate
from moulin.long_audio.cutter import Piece
from moulin.long_audio.recording_blocks import Run
from moulin.transcript import Transcript

_REQUEST_BLOCKS = 5
"""Blocks, of about a second each, in a request."""


class RecordingsByStream:
    """The seam of `Recordings.heard`, for streaming models."""

    def __init__(self, triton: TritonServers, metrics: Metrics) -> None:
        self._triton, self._metrics = triton, metrics

    async def heard(
        self, blocks: Decoding, _caller: str, model: str, options: Mapping[str, Any], request_id: str
    ) -> AsyncIterator[tuple[Piece, Transcript]]:
        """Each closed segment, as the transcript of a run of the recording, which has a stream of its own.

        `blocks` are decoded without `max_utterance_sec`. Raises AudioError where the recording cannot be decoded, and
        what `TritonServers.stream` raises.
        """
        started = time.monotonic()
        block = await anext(blocks, None)
        while block is not None:
            run: Run | None = Run.of(block)
            async with self._triton.stream(model, request_id=request_id, **options) as stream:
                waiting: list[Floats] = []
                while block is not None and run is not None:
                    whole, waiting = run, [*waiting, block.waveform]
                    if len(waiting) == _REQUEST_BLOCKS:
                        for transcript in _closed(await stream.send(np.concatenate(waiting))):
                            yield whole.piece, transcript
                        waiting = []
                    block = await anext(blocks, None)
                    run = None if block is None else whole.followed_by(block)
                last = np.concatenate(waiting) if waiting else ()
                for transcript in _closed(await stream.send(last, end=True)):
                    yield whole.piece, transcript
        self._metrics.count_audio("recording", blocks.decoded_sec)
        self._metrics.rtfx.observe(blocks.decoded_sec / max(time.monotonic() - started, 1e-3))


def _closed(update: StreamUpdate) -> list[Transcript]:
    return [
        Transcript(segment.text, segment.words, 0.0, alternatives=segment.alternatives)
        for segment in update.segments
        if segment.is_final
    ]
