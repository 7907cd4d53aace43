"""moulin's engines in the load generator's own process: whole recordings, at once or as requests, and streams."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from moulin.bundle.spec import ModelSpec
from moulin.decoding.options import DecodingOptions
from moulin.errors import MoulinError, first_line
from moulin.evaluate.connection import Record
from moulin.evaluate.targets.in_process import Queued, answer, tell
from moulin.evaluate.targets.target import RunningTarget, ServerSettings, Transcribe, needed
from moulin.streaming.options import StreamOptions

if TYPE_CHECKING:
    from moulin.engine.recognizer import Recognizer
    from moulin.engine.step_scheduler import StepScheduler
    from moulin.engine.stream_recognizer import StreamRecognizer

_MAX_BATCH = 64


@contextmanager
def at_once(spec: ModelSpec, settings: ServerSettings) -> Iterator[Transcribe]:
    """All recordings in one call of the offline engine."""
    with _open_offline(spec, settings) as recognizer:
        yield lambda waveforms: [transcript.text for transcript in recognizer.transcribe(waveforms)]


@contextmanager
def requests(spec: ModelSpec | None, settings: ServerSettings) -> Iterator[RunningTarget]:
    """The offline engine: the recordings that arrived while a batch was under way are the next batch."""
    with _open_offline(needed(spec), settings) as recognizer:
        yield RunningTarget(os.getpid(), lambda *_: _Batches(recognizer), in_process=True)


@contextmanager
def streams(spec: ModelSpec | None, settings: ServerSettings) -> Iterator[RunningTarget]:
    """The streaming engine with the service's scheduler, without Triton."""
    from moulin.engine.step_scheduler import StepScheduler
    from moulin.models.open_stream_recognizer import open_stream_recognizer

    recognizer = open_stream_recognizer(
        needed(spec).file,
        settings.engine,
        options=StreamOptions().updated(settings.decoding),
        lm=settings.lm,
    )
    recognizer.warm_up()
    scheduler = StepScheduler(recognizer)
    try:
        yield RunningTarget(os.getpid(), lambda *_: _MoulinStreams(recognizer, scheduler), in_process=True)
    finally:
        scheduler.close()


def _open_offline(spec: ModelSpec, settings: ServerSettings) -> Recognizer:
    from moulin.models.open_recognizer import open_recognizer

    options = DecodingOptions().updated(settings.decoding)
    return open_recognizer(spec.file, settings.engine, options=options, lm=settings.lm)


class _Batches:
    """moulin's offline engine as a `Connection`."""

    def __init__(self, recognizer: Recognizer) -> None:
        self._recognizer = recognizer
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[Record | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="moulin-bench", daemon=True)
        self._thread.start()
        self.num_requests = 0

    def open(self, record: Record) -> Queued:
        self.num_requests += 1
        return Queued(record, self._loop, self._queue.put)

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
            tell(self._loop, record.fail, str(error))
            return False
        return True

    def _transcribe(self, records: Sequence[Record]) -> None:
        try:
            transcripts = self._recognizer.transcribe([record.clip.chunks[0] for record in records])
        except Exception as error:  # what goes wrong is a failure of these requests, not the end of the thread
            for record in records:
                tell(self._loop, record.fail, first_line(error))
            return
        for record, transcript in zip(records, transcripts, strict=True):
            tell(self._loop, answer, record, 0, transcript.text)


class _MoulinStreams:
    """moulin's streaming engine as a `Connection`."""

    def __init__(self, recognizer: StreamRecognizer, scheduler: StepScheduler) -> None:
        self.recognizer, self.scheduler = recognizer, scheduler
        self.num_requests = 0

    def open(self, record: Record) -> _MoulinStream:
        return _MoulinStream(self, record)

    async def close(self) -> None:
        """Do nothing: streams close themselves."""


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
        """Hand a step's result to the event loop; called on a worker's thread."""
        tell(self._loop, self._done, error)

    def _done(self, error: Exception | None) -> None:
        index, record = self._under_way, self._record
        assert index is not None
        self._under_way = None
        if error is not None:
            record.fail(first_line(error))
        elif not self._abandoned:
            answer(record, index, self._recognizer.text(self._stream))
        if record.ended or self._abandoned:
            self._close()
        elif self._waiting:
            self._next()

    def _close(self) -> None:
        if self._stream is not None:
            self._recognizer.close(self._stream)
            self._stream = None
