"""One run of a load against a target: its figures, and its records."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Any

from moulin.audio.waveform import SAMPLE_RATE
from moulin.bundle.spec import ModelSpec
from moulin.evaluate.connection import Record
from moulin.evaluate.latencies import rounded
from moulin.evaluate.measurement import Counts, Measurement, evaluate
from moulin.evaluate.streaming_load import Load
from moulin.evaluate.target_usage import watch
from moulin.evaluate.targets.target import RunningTarget, ServerSettings, Start
from moulin.evaluate.wer import Normalizer

_LEAD_SEC = 0.1
"""Time from when all generators are ready to the beginning, so that each is told in time."""

TRIES = 3
"""Runs at most of one load, where other processes disturb them."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run's figures, and the record of each of its streams or requests."""

    measurement: Measurement
    records: Sequence[Record]
    first_sec: float

    def lines(self) -> list[dict[str, Any]]:
        """A JSON-ready object for each record. Times are seconds from the beginning of the measured window."""
        measurement = self.measurement
        setting = {"target": measurement.target, measurement.unit: measurement.load}
        return [{**setting, **record_line(record, self.first_sec)} for record in self.records]


@dataclass(frozen=True, slots=True)
class Generated:
    """The work of the load generator, in one process or several."""

    load: Load
    num_requests: int


Generate = Callable[[float], Awaitable[Generated]]
"""Makes the load's traffic, beginning at a time of the event loop's clock."""


@dataclass(frozen=True, slots=True)
class Plan:
    """`load` counted in `unit`; `window(begin)` is the measured interval; `generator(target)` makes the traffic."""

    unit: str
    load: float
    window: Callable[[float], tuple[float, float]]
    generator: Callable[[RunningTarget], AbstractAsyncContextManager[Generate]]
    """Starts the generator for a target and waits until it is ready."""


def measure_plan(
    name: str,
    start: Start,
    spec: ModelSpec | None,
    settings: ServerSettings,
    plan: Plan,
    normalize: Normalizer,
    *,
    tries: int = TRIES,
) -> Run:
    """Start a target and run the plan; a run that other processes disturbed is made again, up to `tries` in all."""
    attempt = 0
    while True:
        attempt += 1
        with start(spec, settings) as running:
            run = asyncio.run(run_plan(name, running, plan, normalize))
        if attempt >= tries or not run.measurement.disturbed:
            return replace(run, measurement=replace(run.measurement, attempts=attempt))


async def run_plan(name: str, running: RunningTarget, plan: Plan, normalize: Normalizer) -> Run:
    """Run the plan on a target that is running."""
    before = await asyncio.to_thread(running.statistics) if running.statistics else None
    async with plan.generator(running) as generate:
        begin = asyncio.get_running_loop().time() + _LEAD_SEC
        watching = asyncio.create_task(watch(running.pids, *plan.window(begin)))
        try:
            generated = await generate(begin)
            usage = await watching
        finally:
            watching.cancel()
    after = await asyncio.to_thread(running.statistics) if running.statistics else None
    measurement = evaluate(
        name,
        plan.unit,
        plan.load,
        generated.load,
        usage,
        normalize,
        in_process=running.in_process,
        counts=Counts(generated.num_requests, after - before if after and before else None),
    )
    return Run(measurement, generated.load.records, generated.load.first_sec)


def record_line(record: Record, first_sec: float) -> Mapping[str, Any]:
    """A record as a JSON line. `latency_ms` has a value for each piece, null for one never sent or never answered."""
    return {
        "id": record.clip.id,
        "audio_sec": round(record.clip.num_samples / SAMPLE_RATE, 3),
        "begin_sec": rounded(record.begin - first_sec, 4),
        "due_sec": [rounded(due - first_sec, 4) for due in record.due],
        "latency_ms": [
            rounded((replied - due) * 1e3, 2) for due, replied in zip(record.due, record.replied, strict=True)
        ],
        "measured": [bool(measured) for measured in record.measured],
        "partials": [[rounded(at - first_sec, 4), text] for at, text in record.partials],
        "text": record.text,
        "failure": record.failure,
    }
