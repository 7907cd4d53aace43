"""Live recognition of audio in chunks, by a server or by a model in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from moulin.audio.waveform import SAMPLE_RATE
from moulin.live_transcript import StreamUpdate
from moulin.models.engine_choice import USUAL_ENGINE, EngineChoice
from moulin.models.language_model_files import NO_FILES, LanguageModelFiles

if TYPE_CHECKING:
    from moulin.client.gateway_address import GatewayAddress

Updates = Generator[StreamUpdate, None, None]

Chunks = Iterable[NDArray[np.float32]]
"""Consecutive chunks of one recording: float32 [N], 16 kHz mono, of any lengths."""


def cut(waveform: NDArray[np.float32], chunk_ms: int) -> Iterator[NDArray[np.float32]]:
    """Chunks of `chunk_ms`; the last may be shorter."""
    step = chunk_ms * SAMPLE_RATE // 1000
    for begin in range(0, len(waveform), step):
        yield waveform[begin : begin + step]


def gathered(blocks: Chunks, chunk_ms: int) -> Iterator[NDArray[np.float32]]:
    """Blocks of any lengths joined to chunks of at least `chunk_ms`, as soon as there are so many samples, and at most
    1 s; the last may be shorter."""
    least = chunk_ms * SAMPLE_RATE // 1000
    most = max(least, SAMPLE_RATE)
    waiting, count = [], 0
    for block in blocks:
        waiting.append(block)
        count += len(block)
        if count >= least:
            joined = np.concatenate(waiting)
            for begin in range(0, count - least + 1, most):
                yield joined[begin : begin + most]
            rest = joined[(count - least) // most * most + most :]
            waiting, count = [rest], len(rest)
    if count:
        yield np.concatenate(waiting)


def in_real_time(chunks: Chunks) -> Iterator[NDArray[np.float32]]:
    """The chunks, each delayed until its last sample would have been spoken.

    Times count from the first chunk, so that delays do not add up; a late consumer gets the next chunks at once.
    """
    spoken = 0
    start = time.monotonic()
    for chunk in chunks:
        spoken += len(chunk)
        time.sleep(max(0.0, start + spoken / SAMPLE_RATE - time.monotonic()))
        yield chunk


def stream_to_server(chunks: Chunks, url: str, *, model: str, options: Mapping[str, Any]) -> Updates:
    """The update for each chunk, then one for the end. Closing the iterator ends the stream on the server.

    Raises what `LiveStream` does.
    """
    from moulin.client.sync_client import Client

    with Client(url, model=model, int16=True) as client, client.stream(**options) as stream:
        for chunk in chunks:
            yield stream.send(chunk)
        # A separate request, because a chunk is known to be the last only when no other follows.
        yield stream.send((), end=True)


def stream_to_gateway(
    chunks: Chunks,
    address: GatewayAddress,
    *,
    model: str | None,
    options: Mapping[str, Any],
    on_warning: Callable[[str], None] = lambda _sentence: None,
) -> Updates:
    """`stream_to_server` through a gateway's WebSocket, for which None is its default model.

    Updates come with the chunk after them. Raises what `GatewayStream` does.
    """
    from moulin.client.gateway_stream import GatewayStream

    with GatewayStream(address, model=model, options=options, on_warning=on_warning) as stream:
        for chunk in chunks:
            yield from stream.send(chunk)
        yield from stream.finish()


def stream_in_process(
    chunks: Chunks,
    model: Path,
    engine: EngineChoice = USUAL_ENGINE,
    *,
    options: Mapping[str, Any],
    lm: LanguageModelFiles = NO_FILES,
) -> Updates:
    """`stream_to_server` without a server. Raises BundleError or EngineError where the model cannot be used."""
    from moulin.models.open_stream_recognizer import open_stream_recognizer
    from moulin.streaming.options import StreamOptions

    defaults = StreamOptions().updated(options)
    # With one worker a single call of the encoder uses all threads.
    one = replace(engine, workers=1)
    with open_stream_recognizer(model, one, max_streams=1, options=defaults, lm=lm) as recognizer:
        stream = recognizer.open()
        try:
            for chunk in chunks:
                recognizer.accept(stream, chunk)
                yield recognizer.advance(stream)
            recognizer.finish(stream)
            yield recognizer.advance(stream)
        finally:
            recognizer.close(stream)
