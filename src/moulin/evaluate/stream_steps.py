"""Steps of many streams, one after the other: from samples in host memory to text there."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np

from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.evaluate.results.live_streams import StepRun
from moulin.evaluate.stream_capacity import PacedStreams
from moulin.evaluate.stream_engines import Audio, gpu_step_ms, memory_in_use

ROUNDS, WARMUP_ROUNDS = 30, 5


def measure_steps(recognizer: StreamRecognizer, audio: Audio, batches: Sequence[int], device: str) -> Iterator[StepRun]:
    """Measure steps of each number of streams in `batches`, in random order of their slots.

    As many streams are open as the recognizer takes. Batches above its `max_batch` are left out.
    """
    bounds, spec = recognizer.limits, recognizer.spec
    streams = PacedStreams(recognizer, audio)
    streams.open(bounds.capacity)
    random = np.random.default_rng(0)
    for batch in (batch for batch in batches if batch <= min(bounds.max_batch, bounds.capacity)):
        ms = []
        for turn in range(WARMUP_ROUNDS + ROUNDS):
            some = [streams.streams[place] for place in random.permutation(bounds.capacity)[:batch]]
            streams.speak(some, turn)
            begin = time.perf_counter()
            recognizer.step(some)
            ms.append((time.perf_counter() - begin) * 1e3)
        p50, p95 = np.percentile(ms[WARMUP_ROUNDS:], (50, 95)).round(3).tolist()
        memory = memory_in_use(device)
        used = memory.get("card_tensors", memory["resident"])
        yield StepRun(f"{spec.family} {spec.precision}", batch, p50, p95, gpu_step_ms(recognizer, batch), used)
    streams.close()
