"""Engines in the load generator's own process: moulin's and sherpa-onnx, offline and streaming.

Their threads do the work, and what comes of it is handed to the event loop.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from moulin.audio.waveform import SAMPLE_RATE
from moulin.bundle.spec import CheckpointSpec, ModelSpec, OnnxModelSpec
from moulin.decoding.options import DecodingOptions
from moulin.engine.features import TAIL_PADDING_SEC
from moulin.engine.recognizer import Recognizer
from moulin.engine.step_scheduler import StepScheduler
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.errors import EngineError, MoulinError, OptionsError, first_line
from moulin.evaluate.connection import Record
from moulin.evaluate.targets.target import RunningTarget, ServerSettings, needed, onnx
from moulin.extras import install_hint
from moulin.models.engine_choice import EngineChoice
from moulin.models.open_recognizer import open_recognizer
from moulin.models.open_stream_recognizer import open_stream_recognizer
from moulin.spacing import join_texts
from moulin.streaming.options import StreamOptions

_MAX_BATCH = 64


@contextmanager
def moulin_recordings(spec: ModelSpec | None, settings: ServerSettings) -> Iterator[RunningTarget]:
    """moulin's offline engine: what has come while a batch was under way is the next one."""
    with open_offline(needed(spec), settings) as recognizer:
        yield RunningTarget(os.getpid(), lambda *_: _Batches(recognizer), in_process=True)


@contextmanager
def sherpa_recordings(spec: ModelSpec | None, settings: ServerSettings) -> Iterator[RunningTarget]:
    """sherpa-onnx offline in the fastest way found: a thread for each core, one recording a call."""
    recognizer = sherpa_offline(onnx(spec), 1, settings)
    with ThreadPoolExecutor(settings.threads) as pool:
        yield RunningTarget(os.getpid(), lambda *_: _Calls(recognizer, pool), in_process=True)


@contextmanager
def moulin_streams(spec: ModelSpec | None, settings: ServerSettings) -> Iterator[RunningTarget]:
    """moulin's streaming engine with the service's scheduler, without Triton."""
    recognizer = open_stream_recognizer(
        needed(spec).file,
        _engine(needed(spec), settings),
        options=StreamOptions().updated(settings.decoding),
    )
    recognizer.warm_up()
    scheduler = StepScheduler(recognizer)
    try:
        yield RunningTarget(os.getpid(), lambda *_: _MoulinStreams(recognizer, scheduler), in_process=True)
    finally:
        scheduler.close()


@contextmanager
def sherpa_streams(spec: ModelSpec | None, settings: ServerSettings) -> Iterator[RunningTarget]:
    """sherpa-onnx streaming: a thread that decodes all streams that are ready, as its own servers do."""
    recognizer = _sherpa_online(onnx(spec), settings)
    worker = _SherpaWorker(recognizer)
    try:
        yield RunningTarget(os.getpid(), lambda *_: _SherpaStreams(worker), in_process=True)
    finally:
        worker.close()


def open_offline(spec: ModelSpec, settings: ServerSettings) -> Recognizer:
    """moulin's offline recognizer."""
    return open_recognizer(
        spec.file,
        _engine(spec, settings),
        options=DecodingOptions().updated(settings.decoding),
    )


def sherpa_offline(spec: OnnxModelSpec, threads: int, settings: ServerSettings) -> Any:
    """sherpa-onnx's offline recognizer. Raises EngineError where it is not installed, OptionsError with a GPU."""
    return _sherpa_onnx(settings.device).OfflineRecognizer.from_transducer(
        **_sherpa_files(spec), num_threads=threads, **_sherpa_decoding(settings)
    )


class _Batches:
    """moulin's offline engine as a `Connection`."""

    def __init__(self, recognizer: Recognizer) -> None:
        self._recognizer = recognizer
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[Record | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="moulin-bench", daemon=True)
        self._thread.start()
        self.num_requests = 0

    def open(self, record: Record) -> _Queued:
        self.num_requests += 1
        return _Queued(record, self._loop, self._queue.put)

    async def close(self) -> None:
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        while (first := self._queue.get()) is not None:
            records: list[Record] = [first]
            while len(records) < _MAX_BATCH and not self._queue.empty():
                if (record := self._queue.get()) is None:
                    return
                records.append(record)
            self._transcribe([record for record in records if self._usable(record)])

    def _usable(self, record: Record) -> bool:
        try:
            self._recognizer.check(record.clip.chunks[0])
        except MoulinError as error:
            _tell(self._loop, record.fail, str(error))
            return False
        return True

    def _transcribe(self, records: Sequence[Record]) -> None:
        try:
            transcripts = self._recognizer.transcribe([record.clip.chunks[0] for record in records])
        except Exception as error:  # what goes wrong is a failure of these requests, not the end of the thread
            for record in records:
                _tell(self._loop, record.fail, first_line(error))
            return
        for record, transcript in zip(records, transcripts, strict=True):
            _tell(self._loop, _answer, record, 0, transcript.text)


class _Calls:
    """sherpa-onnx's offline recognizer as a `Connection`: a call for each recording, on the threads of `pool`."""

    def __init__(self, recognizer: Any, pool: ThreadPoolExecutor) -> None:
        self._recognizer, self._pool = recognizer, pool
        self._loop = asyncio.get_running_loop()
        self.num_requests = 0

    def open(self, record: Record) -> _Queued:
        self.num_requests += 1
        return _Queued(record, self._loop, lambda record: self._pool.submit(self._call, record))

    async def close(self) -> None:
        """What is under way ends by itself."""

    def _call(self, record: Record) -> None:
        stream = self._recognizer.create_stream()
        # The same tail of silence that moulin adds, so that both do the same work.
        tail = np.zeros(round(TAIL_PADDING_SEC * SAMPLE_RATE), dtype=np.float32)
        stream.accept_waveform(SAMPLE_RATE, np.concatenate([record.clip.chunks[0], tail]))
        self._recognizer.decode_stream(stream)
        _tell(self._loop, _answer, record, 0, stream.result.text.strip())


class _Queued:
    """A stream of one piece that goes into a queue."""

    def __init__(self, record: Record, loop: asyncio.AbstractEventLoop, put: Callable[[Record], object]) -> None:
        self._record, self._loop, self._put = record, loop, put

    def send(self, index: int) -> None:
        self._record.sent[index] = self._loop.time()
        self._put(self._record)

    def abandon(self) -> None:
        """A call cannot be taken back."""


class _MoulinStreams:
    """moulin's streaming engine as a `Connection`."""

    def __init__(self, recognizer: StreamRecognizer, scheduler: StepScheduler) -> None:
        self.recognizer, self.scheduler = recognizer, scheduler
        self.num_requests = 0

    def open(self, record: Record) -> _MoulinStream:
        return _MoulinStream(self, record)

    async def close(self) -> None:
        """Streams close themselves."""


class _MoulinStream:
    """One stream; its chunks go one after the other, as in a sequence of Triton's."""

    def __init__(self, engine: _MoulinStreams, record: Record) -> None:
        self._engine, self._record = engine, record
        self._recognizer = engine.recognizer
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[int] = deque()
        self._under_way: int | None = None
        self._abandoned = False
        self._stream: Any = None

    def send(self, index: int) -> None:
        self._waiting.append(index)
        if self._under_way is None:
            self._next()

    def abandon(self) -> None:
        self._abandoned = True
        self._waiting.clear()
        if self._under_way is None:
            self._close()

    def _next(self) -> None:
        index = self._under_way = self._waiting.popleft()
        record, chunks = self._record, self._record.clip.chunks
        self._engine.num_requests += 1
        record.sent[index] = self._loop.time()
        try:
            if self._stream is None:
                self._stream = self._recognizer.open()
            self._recognizer.accept(self._stream, chunks[index])
            if index == len(chunks) - 1:
                self._recognizer.finish(self._stream)
        except MoulinError as error:
            self._done(error)
            return
        if self._recognizer.is_ready(self._stream):
            self._engine.scheduler.submit(self._stream, self._stepped)
        else:
            self._done(None)

    def _stepped(self, error: Exception | None) -> None:
        """On a worker's thread."""
        _tell(self._loop, self._done, error)

    def _done(self, error: Exception | None) -> None:
        index, record = self._under_way, self._record
        assert index is not None
        self._under_way = None
        if error is not None:
            record.fail(first_line(error))
        elif not self._abandoned:
            _answer(record, index, self._recognizer.text(self._stream))
        if record.ended or self._abandoned:
            self._close()
        elif self._waiting:
            self._next()

    def _close(self) -> None:
        if self._stream is not None:
            self._recognizer.close(self._stream)
            self._stream = None


class _SherpaStreams:
    """sherpa-onnx's online recognizer as a `Connection`."""

    def __init__(self, worker: _SherpaWorker) -> None:
        self._worker = worker
        self.num_requests = 0

    def open(self, record: Record) -> _SherpaStream:
        self.num_requests += len(record.clip.chunks)
        return _SherpaStream(self._worker, record)

    async def close(self) -> None:
        """The worker outlives it."""


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
                    _tell(stream.loop, _answer_to, stream.record, index, self._text(stream))

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


def _tell(loop: asyncio.AbstractEventLoop, call: Callable[..., object], *arguments: object) -> None:
    """Call it in the event loop; where that has ended meanwhile, nobody wants to know."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(call, *arguments)


def _answer_to(record: Record, index: int, text: str) -> None:
    """Answers chunk `index` and all before it that are not answered yet."""
    for earlier in range(index):
        if np.isnan(record.replied[earlier]):
            record.replied[earlier] = asyncio.get_running_loop().time()
    _answer(record, index, text)


def _answer(record: Record, index: int, text: str) -> None:
    now = asyncio.get_running_loop().time()
    record.replied[index] = now
    record.heard(text, now)
    if index == len(record.replied) - 1:
        record.finish(text)


def _engine(spec: ModelSpec, settings: ServerSettings) -> EngineChoice:
    """In the precision of the files that were chosen; of a checkpoint in the one that was asked for, if any. TensorRT
    makes its own of fp32 files."""
    precision = spec.run_in if isinstance(spec, CheckpointSpec) else spec.precision
    if settings.engine == "tensorrt":
        precision = None
    return EngineChoice(settings.engine, settings.device, precision=precision, threads=settings.threads)


def _sherpa_online(spec: OnnxModelSpec, settings: ServerSettings) -> Any:
    return _sherpa_onnx(settings.device).OnlineRecognizer.from_transducer(
        **_sherpa_files(spec),
        num_threads=settings.threads,
        enable_endpoint_detection=True,
        **_sherpa_decoding(settings),
    )


def _sherpa_onnx(device: str) -> Any:
    if device != "cpu":
        raise OptionsError("sherpa-onnx as PyPI has it runs on the CPU only", hint="leave it out of --targets")
    try:
        import sherpa_onnx
    except ModuleNotFoundError as error:
        raise EngineError("The peer sherpa-onnx is not installed", hint=install_hint("bench")) from error
    return sherpa_onnx


def _sherpa_files(spec: OnnxModelSpec) -> dict[str, str]:
    return {name: str(getattr(spec.files, name)) for name in ("encoder", "decoder", "joiner", "tokens")}


def _sherpa_decoding(settings: ServerSettings) -> dict[str, Any]:
    """moulin's names in sherpa-onnx's words."""
    options = DecodingOptions().updated(settings.decoding)
    method = {"greedy": "greedy_search"}.get(options.method, options.method)
    return {"decoding_method": method, "max_active_paths": options.beam}
