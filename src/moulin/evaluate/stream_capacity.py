"""Capacity of a recognizer in this process: real-time streams without a network, a gateway or Triton.

Every stream's next chunk is due a chunk's time after its last, each at a phase of its own. `StepLimits.num_workers`
threads take all chunks that are due by the clock, as many as a step may have. A chunk's latency counts from when it was
due to the end of its step, so that delays count too. No Python runs for each stream, or a turn would measure that.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from moulin.audio.fbank import FbankOptions
from moulin.audio.waveform import SAMPLE_RATE
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.evaluate.due_chunks import DueChunks
from moulin.evaluate.gpu_usage import GpuUsage, GpuWatch
from moulin.evaluate.latencies import Latencies, rounded
from moulin.evaluate.results.live_streams import CapacityRun
from moulin.evaluate.stream_engines import Audio
from moulin.streaming.stream import Stream
from moulin.streaming.window_layout import WindowLayout

WARMUP_SEC = 2.0
_HOPELESS_SEC = 2.0
"""Lateness after the warm-up at which a run is ended: it will not hold."""


class PacedStreams:
    """Streams of one recognizer that go on from run to run, so that each run opens only the missing ones."""

    def __init__(
        self, recognizer: StreamRecognizer, audio: Audio, *, threads: int | None = None, seed: int = 0
    ) -> None:
        """All streams repeat `audio`, int16 or float32 [n], each from another chunk on. `threads` step them, by default
        `StepLimits.num_workers`."""
        assert recognizer.spec.streaming is not None
        self.recognizer, self._random = recognizer, np.random.default_rng(seed)
        streaming = recognizer.spec.streaming
        layout = WindowLayout.of(FbankOptions(), streaming.window_frames, streaming.chunk_frames)
        self._chunk_samples = layout.chunk
        self._lead_samples = layout.samples - layout.overhang - layout.chunk  # of the first window, before its chunk
        self._limits = recognizer.limits
        self._max_batch, self._threads = self._limits.max_batch, threads
        # A batch is a slice of rows, so that no turn copies audio: each next stream is a chunk ahead in the audio.
        chunks = audio[: len(audio) // self._chunk_samples * self._chunk_samples].reshape(-1, self._chunk_samples)
        self._num_rows = len(chunks)
        self._rows = np.resize(chunks, (self._num_rows + self._max_batch, self._chunk_samples))
        self._streams: list[Stream] = []

    @property
    def chunk_sec(self) -> float:
        return self._chunk_samples / SAMPLE_RATE

    @property
    def streams(self) -> Sequence[Stream]:
        """The open streams."""
        return self._streams

    def run(self, count: int, *, seconds: float, p95_ms: float, warmup_sec: float = WARMUP_SEC) -> CapacityRun:
        """Run the first `count` streams, and measure `seconds` after a warm-up: whether 95 % of the chunks are within
        `p95_ms`. Raises StreamsFull."""
        self.open(count)
        collecting = gc.isenabled()
        gc.collect()
        gc.disable()  # a collection would walk through the objects of all streams
        watch = GpuWatch()
        watch.start()
        try:
            turns = self._speak(count, warmup_sec + seconds, warmup_sec)
        finally:
            gpus = watch.stop()
            if collecting:
                gc.enable()
        return turns.measured(count, warmup_sec, p95_ms, gpus)

    def speak(self, streams: Sequence[Stream], first_chunk: int) -> None:
        """Hand over a chunk for each of `streams`, at most a batch; the first one's is number `first_chunk`."""
        row = first_chunk % self._num_rows
        self.recognizer.accept_many(streams, self._rows[row : row + len(streams)])

    def close(self) -> None:
        """Close all streams, finished or not."""
        for stream in self._streams:
            self.recognizer.close(stream)
        self._streams.clear()

    def open(self, count: int) -> None:
        """Open streams until there are `count` at least. New ones get enough audio for every next chunk to complete a
        window. Raises StreamsFull."""
        first = len(self._streams)
        self._streams += [self.recognizer.open() for _ in range(first, count)]
        for at in range(first, count, self._max_batch):
            new = self._streams[at : min(at + self._max_batch, count)]
            for lead in range(self._lead_samples, 0, -self._chunk_samples):
                self.recognizer.accept_many(new, self._rows[: len(new), :lead])

    def _speak(self, count: int, total_sec: float, warmup_sec: float) -> _Turns:
        dues = DueChunks(np.sort(self._random.uniform(0, self.chunk_sec, count)), self.chunk_sec, self._max_batch)
        turns, clock = _Turns(), time.perf_counter
        begin = clock()

        def work() -> None:
            while not turns.hopeless and (now := clock() - begin) < total_sec:
                due = dues.take(now)
                if due is None:
                    time.sleep(dues.wait_sec(now))
                    continue
                streams = self._streams[due.first : due.last]
                self.speak(streams, due.round + due.first)
                accepted = clock() - begin
                self.recognizer.step(streams)
                ended = clock() - begin
                dues.have_stepped(due)
                turns.add(due.sec, now, accepted, ended)
                if now > warmup_sec and ended - due.sec[0] > _HOPELESS_SEC:
                    turns.hopeless = True

        workers = self._threads or self._limits.num_workers
        with ThreadPoolExecutor(workers) as pool:
            under_way = [pool.submit(work) for _ in range(workers)]
            try:
                for worker in under_way:
                    worker.result()
            except BaseException:  # Ctrl-C, or what a step raised: the other workers are not to go on
                turns.hopeless = True
                raise
        turns.end_sec = min(clock() - begin, total_sec)
        return turns


class _Turns:
    """Times of the steps, in seconds from the beginning of a run."""

    def __init__(self) -> None:
        self._due: list[NDArray[np.float64]] = []
        self._times: list[tuple[float, float, float]] = []  # begun, accepted, ended
        self.end_sec = 0.0
        self.hopeless = False

    def add(self, due: NDArray[np.float64], begun: float, accepted: float, ended: float) -> None:
        self._due.append(due)
        self._times.append((begun, accepted, ended))

    def measured(self, streams: int, warmup_sec: float, p95_ms: float, gpus: Sequence[GpuUsage]) -> CapacityRun:
        """The figures of chunks due, and of steps begun, after the warm-up; of fewer seconds than asked for where the
        run was hopeless."""
        batches = np.array([len(due) for due in self._due], dtype=np.int64)
        begun, accepted, ended = np.array(self._times, dtype=np.float64).reshape(-1, 3).T
        due = np.concatenate([*self._due, np.zeros(0)])
        late = Latencies(due - warmup_sec, (np.repeat(ended, batches) - due) * 1e3).since(0.0)
        seconds, counted = max(0.0, self.end_sec - warmup_sec), accepted >= warmup_sec
        last = late.since(seconds * 3 / 4).percentile(95)  # of a queue that grows; NaN where none of them was heard
        step_sec, batches = (ended - accepted)[counted], batches[counted]
        return CapacityRun(
            streams=streams,
            seconds=round(seconds, 2),
            chunk_latency_ms=late.percentiles(),
            last_quarter_p95_ms=rounded(last, 1),
            step_ms=Latencies(accepted[counted] - warmup_sec, step_sec * 1e3).percentiles(),
            chunks=len(late),
            steps=len(batches),
            mean_batch=round(float(batches.mean()), 1) if len(batches) else None,
            largest_batch=int(batches.max(initial=0)),
            step_share=round(float(step_sec.sum()) / seconds, 3) if seconds else None,
            accept_share=round(float((accepted - begun)[counted].sum()) / seconds, 3) if seconds else None,
            gpus=[gpu.rounded() for gpu in gpus],
            hopeless=self.hopeless,
            held=not self.hopeless and late.percentile(95) < p95_ms and last < p95_ms,
        )
