"""Latency and throughput of encoders alone, several runners in one run.

Every batch goes to all runners in turn, round after round, so that other load on the machine affects all of them alike.
`encoder_runners.py` defines what the clock includes.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from moulin.errors import EngineError, OptionsError, first_line
from moulin.evaluate.encoder_runners import MeasuredEncoder
from moulin.evaluate.results.encoder import EncoderRun

_WARMUP_CALLS = 2


@dataclass(frozen=True, slots=True)
class Latencies:
    """Seconds of every call of one runner with one batch size; none where it failed, with the reason."""

    runner: str
    batch: int
    seconds: list[float] = field(default_factory=list)
    failure: str | None = None

    @property
    def median_ms(self) -> float:
        return 1000 * statistics.median(self.seconds)

    @property
    def qps(self) -> float:
        """Utterances a second, at the median latency."""
        return 1000 * self.batch / self.median_ms

    def figures(self) -> EncoderRun:
        if self.failure is not None:
            return EncoderRun(self.runner, self.batch, failure=self.failure)
        return EncoderRun(
            self.runner,
            self.batch,
            calls=len(self.seconds),
            median_ms=round(self.median_ms, 3),
            best_ms=round(1000 * min(self.seconds), 3),
            worst_ms=round(1000 * max(self.seconds), 3),
            qps=round(self.qps, 1),
        )


def benchmark_encoders(
    runners: Mapping[str, MeasuredEncoder],
    batches: Sequence[int],
    *,
    num_frames: int,
    feature_dim: int,
    rounds: int,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[list[Latencies]]:
    """The latencies of all `runners` for each batch size, with utterances of `num_frames` features.

    Each round calls a runner for `seconds`, at least once. A runner that fails, for example because memory does not
    suffice, is left out for that batch size.
    """
    if num_frames < 1 or min(batches, default=0) < 1:
        raise OptionsError(f"Expected batches and frames of at least 1, got {list(batches)} and {num_frames}")
    rng = np.random.default_rng(0)
    for batch in batches:
        x = rng.normal(-6, 4, (batch, num_frames, feature_dim)).astype(np.float32)
        x_lens = np.full(batch, num_frames)
        found = {name: Latencies(name, batch) for name in runners}
        calls: dict[str, Callable[[], object]] = {}
        for turn in range(-1, rounds):
            for name, runner in runners.items():
                if found[name].failure is not None:
                    continue
                try:
                    if turn < 0:
                        calls[name] = runner.prepare(x, x_lens)
                        for _ in range(_WARMUP_CALLS):
                            calls[name]()
                    else:
                        found[name].seconds.extend(_call_for(seconds, calls[name], clock))
                except EngineError as error:
                    found[name] = Latencies(name, batch, failure=first_line(error))
        yield list(found.values())


def _call_for(seconds: float, call: Callable[[], object], clock: Callable[[], float]) -> Iterator[float]:
    """The seconds of each call."""
    end = clock() + seconds
    while True:
        started = clock()
        call()
        finished = clock()
        yield finished - started
        if finished >= end:
            return
