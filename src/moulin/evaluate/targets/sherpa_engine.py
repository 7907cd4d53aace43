"""sherpa-onnx, the peer, in the load generator's own process: whole recordings, at once or as requests, and streams."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moulin.audio.waveform import SAMPLE_RATE
from moulin.bundle.spec import ModelSpec, OnnxModelSpec
from moulin.errors import EngineError
from moulin.evaluate.connection import Record
from moulin.evaluate.targets.in_process import Queued, answer, answer_to, tell, with_tail
from moulin.evaluate.targets.sherpa_options import check_cpu, decoding_of, onnx
from moulin.evaluate.targets.target import RunningTarget, ServerSettings, Transcribe, Waveforms
from moulin.extras import install_hint
from moulin.spacing import join_texts


@contextmanager
def batches_at_once(batch: int, spec: ModelSpec, settings: ServerSettings) -> Iterator[Transcribe]:
    """The peer as its API suggests: num_threads for all, recordings sorted by length, in batches of `batch`."""
    recognizer = _offline(spec, settings.threads, settings)

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
def threads_at_once(spec: ModelSpec, settings: ServerSettings) -> Iterator[Transcribe]:
    """The peer with num_threads=1, called from `settings.threads` Python threads at once, a recording a call."""
    recognizer = _offline(spec, 1, settings)
    with ThreadPoolExecutor(settings.threads) as pool:
        yield lambda waveforms: list(pool.map(lambda samples: _text(recognizer, samples), waveforms))


@contextmanager
def requests(spec: ModelSpec | None, settings: ServerSettings) -> Iterator[RunningTarget]:
    """The offline peer in the fastest way found: a thread for each core, one recording a call."""
    recognizer = _offline(spec, 1, settings)
    with ThreadPoolExecutor(settings.threads) as pool:
        yield RunningTarget(os.getpid(), lambda *_: _Calls(recognizer, pool), in_process=True)


@contextmanager
def streams(spec: ModelSpec | None, settings: ServerSettings) -> Iterator[RunningTarget]:
    """The online peer with a thread that decodes all streams that are ready, as its own servers do."""
    recognizer = _sherpa_onnx(settings.engine.device).OnlineRecognizer.from_transducer(
        **_files(onnx(spec)), num_threads=settings.threads, enable_endpoint_detection=True, **_decoding(settings)
    )
    worker = _SherpaWorker(recognizer)
    try:
        yield RunningTarget(os.getpid(), lambda *_: _SherpaStreams(worker), in_process=True)
    finally:
        worker.close()


def _offline(spec: ModelSpec | None, threads: int, settings: ServerSettings) -> Any:
    """The offline recognizer. Raises EngineError where it is not installed, OptionsError with a GPU."""
    return _sherpa_onnx(settings.engine.device).OfflineRecognizer.from_transducer(
        **_files(onnx(spec)), num_threads=threads, **_decoding(settings)
    )


def _sherpa_onnx(device: str) -> Any:
    check_cpu(device)
    try:
        import sherpa_onnx
    except ModuleNotFoundError as error:
        raise EngineError("The peer sherpa-onnx is not installed", hint=install_hint("bench")) from error
    return sherpa_onnx


def _files(spec: OnnxModelSpec) -> dict[str, str]:
    return {name: str(getattr(spec.files, name)) for name in ("encoder", "decoder", "joiner", "tokens")}


def _decoding(settings: ServerSettings) -> dict[str, Any]:
    method, beam = decoding_of(settings)
    return {"decoding_method": method, "max_active_paths": beam}


def _stream(recognizer: Any, samples: NDArray[np.float32]) -> Any:
    stream = recognizer.create_stream()
    stream.accept_waveform(SAMPLE_RATE, with_tail(samples))
    return stream


def _text(recognizer: Any, samples: NDArray[np.float32]) -> str:
    stream = _stream(recognizer, samples)
    recognizer.decode_stream(stream)
    return str(stream.result.text).strip()


class _Calls:
    """sherpa-onnx's offline recognizer as a `Connection`: a call for each recording, on the threads of `pool`."""

    def __init__(self, recognizer: Any, pool: ThreadPoolExecutor) -> None:
        self._recognizer, self._pool = recognizer, pool
        self._loop = asyncio.get_running_loop()
        self.num_requests = 0

    def open(self, record: Record) -> Queued:
        self.num_requests += 1
        return Queued(record, self._loop, lambda record: self._pool.submit(self._call, record))

    async def close(self) -> None:
        """Do nothing: calls under way end by themselves."""

    def _call(self, record: Record) -> None:
        tell(self._loop, answer, record, 0, _text(self._recognizer, record.clip.chunks[0]))


class _SherpaStreams:
    """sherpa-onnx's online recognizer as a `Connection`."""

    def __init__(self, worker: _SherpaWorker) -> None:
        self._worker = worker
        self.num_requests = 0

    def open(self, record: Record) -> _SherpaStream:
        self.num_requests += len(record.clip.chunks)
        return _SherpaStream(self._worker, record)

    async def close(self) -> None:
        """Do nothing: the worker outlives the connection."""


class _SherpaStream:
    def __init__(self, worker: _SherpaWorker, record: Record) -> None:
        self._worker, self.record = worker, record
        self.loop = asyncio.get_running_loop()
        self.native = worker.recognizer.create_stream()
        self.closed_text = ""
        self.abandoned = False

    def send(self, index: int) -> None:
        self.record.sent[index] = self.loop.time()
        self._worker.put((self, index))

    def abandon(self) -> None:
        self.abandoned = True


class _SherpaWorker:
    """The thread that decodes."""

    def __init__(self, recognizer: Any) -> None:
        self.recognizer = recognizer
        self._queue: queue.SimpleQueue[tuple[_SherpaStream, int] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="sherpa-bench", daemon=True)
        self._thread.start()
        self.put = self._queue.put

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        open_chunks: dict[_SherpaStream, int] = {}  # the last chunk of each that has come and is not answered
        while True:
            while not open_chunks or not self._queue.empty():
                if (item := self._queue.get()) is None:
                    return
                self._accept(*item)
                open_chunks[item[0]] = item[1]
            ready = [stream for stream in open_chunks if self.recognizer.is_ready(stream.native)]
            if ready:
                self.recognizer.decode_streams([stream.native for stream in ready[:16]])
            for stream in [stream for stream in open_chunks if not self.recognizer.is_ready(stream.native)]:
                index = open_chunks.pop(stream)
                if not stream.abandoned:
                    tell(stream.loop, answer_to, stream.record, index, self._text(stream))

    def _accept(self, stream: _SherpaStream, index: int) -> None:
        clip = stream.record.clip
        last = index == len(clip.chunks) - 1
        samples = np.concatenate([clip.chunks[index], clip.tail]) if last else clip.chunks[index]
        stream.native.accept_waveform(SAMPLE_RATE, samples)
        if last:
            stream.native.input_finished()

    def _text(self, stream: _SherpaStream) -> str:
        text = join_texts(stream.closed_text, self.recognizer.get_result(stream.native).strip())
        if self.recognizer.is_endpoint(stream.native):
            stream.closed_text = text
            self.recognizer.reset(stream.native)
        return text
