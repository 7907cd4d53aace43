"""What `moulin bench offline` can measure: moulin in this process and through Triton, and sherpa-onnx beside them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moulin.audio.waveform import SAMPLE_RATE
from moulin.bundle.spec import ModelSpec
from moulin.decoding.options import DecodingOptions
from moulin.engine.features import TAIL_PADDING_SEC
from moulin.errors import OptionsError
from moulin.evaluate.targets.in_process import open_offline, sherpa_offline
from moulin.evaluate.targets.target import ServerSettings, onnx
from moulin.models.engine_choice import EngineChoice
from moulin.models.engines import choose_engine

CONCURRENCY = 64
"""Requests under way through Triton: as many as one batch holds, so that the server never waits for the client."""

Waveforms = Sequence[NDArray[np.float32]]
Transcribe = Callable[[Waveforms], list[str]]
"""All the recordings to their texts, as fast as the target can: this call is what the clock runs for."""


@contextmanager
def in_process(spec: ModelSpec, settings: ServerSettings) -> Iterator[Transcribe]:
    """moulin's engine in this process, all recordings in one call."""
    with open_offline(spec, settings) as recognizer:
        yield lambda waveforms: [transcript.text for transcript in recognizer.transcribe(waveforms)]


@contextmanager
def through_triton(spec: ModelSpec, settings: ServerSettings) -> Iterator[Transcribe]:
    """moulin's service: a request for each recording over gRPC, CONCURRENCY of them under way (closed loop).

    The client shares the machine with the server.
    """
    from moulin.client import AsyncClient
    from moulin.launch.server import TritonServer
    from moulin.launch.server_options import ServerOptions
    from moulin.launch.tritonserver import find_tritonserver
    from moulin.launch.workspace import workspace
    from moulin.triton_repo.offline_options import OfflineOptions
    from moulin.triton_repo.repository import build_offline_repository

    async def send_all(url: str, waveforms: Waveforms) -> list[str]:
        slots = asyncio.Semaphore(CONCURRENCY)
        async with AsyncClient(url) as client:

            async def send(waveform: NDArray[np.float32]) -> str:
                async with slots:
                    return (await client.transcribe(waveform)).text

            return list(await asyncio.gather(*map(send, waveforms)))

    with workspace("bench") as repository:
        options = OfflineOptions(
            engine=EngineChoice(settings.engine, settings.device, threads=settings.threads),
            decoding=DecodingOptions().updated(settings.decoding),
        )
        build_offline_repository(spec, repository, options, link=True)
        triton = find_tritonserver(engines={choose_engine(spec, settings.engine)}, say=partial(print, file=sys.stderr))
        ports = ServerOptions(http_port=0, grpc_port=0, metrics_port=0)
        with TritonServer(repository, ports, installation=triton) as server:
            server.wait_ready()
            yield lambda waveforms: asyncio.run(send_all(server.grpc_url, waveforms))


@contextmanager
def sherpa_onnx_batches(spec: ModelSpec, settings: ServerSettings, *, batch: int) -> Iterator[Transcribe]:
    """sherpa-onnx as its API suggests: num_threads for all, recordings sorted by length, decoded in batches."""
    recognizer = sherpa_offline(onnx(spec), settings.threads, settings)

    def transcribe(waveforms: Waveforms) -> list[str]:
        texts = [""] * len(waveforms)
        order = sorted(range(len(waveforms)), key=lambda i: len(waveforms[i]), reverse=True)
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            streams = [_stream(recognizer, waveforms[row]) for row in rows]
            recognizer.decode_streams(streams)
            for row, stream in zip(rows, streams, strict=True):
                texts[row] = stream.result.text.strip()
        return texts

    yield transcribe


@contextmanager
def sherpa_onnx_threads(spec: ModelSpec, settings: ServerSettings) -> Iterator[Transcribe]:
    """sherpa-onnx with num_threads=1, called from `settings.threads` Python threads at once, a recording a call."""
    recognizer = sherpa_offline(onnx(spec), 1, settings)

    def one(waveform: NDArray[np.float32]) -> str:
        stream = _stream(recognizer, waveform)
        recognizer.decode_stream(stream)
        return str(stream.result.text).strip()

    with ThreadPoolExecutor(settings.threads) as pool:
        yield lambda waveforms: list(pool.map(one, waveforms))


OfflineTarget = Callable[[ModelSpec, ServerSettings], AbstractContextManager[Transcribe]]
"""A model and how to run it to a target that is ready, and goes away with the context."""

TARGETS: dict[str, OfflineTarget] = {
    "moulin": in_process,
    "moulin-triton": through_triton,
    "sherpa-onnx-batch1": partial(sherpa_onnx_batches, batch=1),
    "sherpa-onnx-batch4": partial(sherpa_onnx_batches, batch=4),
    "sherpa-onnx-batch16": partial(sherpa_onnx_batches, batch=16),
    "sherpa-onnx-threads": sherpa_onnx_threads,
}


def target(name: str) -> OfflineTarget:
    """The target called `name`. Raises OptionsError."""
    if name not in TARGETS:
        raise OptionsError(f"There is no target {name!r}", hint=f"the targets are {', '.join(TARGETS)}")
    return TARGETS[name]


def _stream(recognizer: Any, waveform: NDArray[np.float32]) -> Any:
    stream = recognizer.create_stream()
    # The same tail of silence that moulin adds, so that both do the same work.
    tail = np.zeros(round(TAIL_PADDING_SEC * SAMPLE_RATE), dtype=np.float32)
    stream.accept_waveform(SAMPLE_RATE, np.concatenate([waveform, tail]))
    return stream
