"""Audio piece by piece through a server or through a model in this process, and what is heard meanwhile."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moulin.audio.waveform import SAMPLE_RATE
from moulin.live_transcript import StreamUpdate
from moulin.models.engine_choice import USUAL_ENGINE, EngineChoice

Updates = Generator[StreamUpdate, None, None]

Chunks = Iterable[NDArray[np.float32]]
"""Consecutive pieces of one recording: float32 [N], 16 kHz mono, of any lengths."""


def cut(waveform: NDArray[np.float32], chunk_ms: int) -> Iterator[NDArray[np.float32]]:
    """Pieces of `chunk_ms`; the last may be shorter."""
    step = chunk_ms * SAMPLE_RATE // 1000
    for begin in range(0, len(waveform), step):
        yield waveform[begin : begin + step]


def in_real_time(chunks: Chunks) -> Iterator[NDArray[np.float32]]:
    """Each chunk when its last sample would have been spoken.

    Counted from the first, so that delays do not add up; who is late gets the next ones at once.
    """
    spoken = 0
    start = time.monotonic()
    for chunk in chunks:
        spoken += len(chunk)
        time.sleep(max(0.0, start + spoken / SAMPLE_RATE - time.monotonic()))
        yield chunk


def stream_to_server(chunks: Chunks, url: str, *, model: str, options: Mapping[str, Any]) -> Updates:
    """The update of each chunk, then that of the end. Closing the iterator ends the stream on the server.

    Raises what `LiveStream` does.
    """
    from moulin.client.sync_client import Client

    with Client(url, model=model, int16=True) as client, client.stream(**options) as stream:
        for chunk in chunks:
            yield stream.send(chunk)
        # A request of its own: whether a chunk is the last is only known when the next does not come.
        yield stream.send((), end=True)


def stream_in_process(
    chunks: Chunks,
    model: Path,
    engine: EngineChoice = USUAL_ENGINE,
    *,
    options: Mapping[str, Any],
) -> Updates:
    """`stream_to_server` without a server. Raises BundleError or EngineError where the model cannot be used."""
    from moulin.models.open_stream_recognizer import open_stream_recognizer
    from moulin.streaming.options import StreamOptions

    defaults = StreamOptions().updated(options)
    with open_stream_recognizer(model, engine, max_streams=1, options=defaults) as recognizer:
        stream = recognizer.open()
        try:
            for chunk in chunks:
                recognizer.accept(stream, chunk)
                yield recognizer.advance(stream)
            recognizer.finish(stream)
            yield recognizer.advance(stream)
        finally:
            recognizer.close(stream)
