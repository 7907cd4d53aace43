"""Runs of whole recordings, a request each, in a closed or an open loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from moulin.evaluate.request_load import WARMUP_SEC, Arrivals, Workers, run_requests
from moulin.evaluate.run import Generate, Generated, Plan
from moulin.evaluate.streaming_clips import Clip
from moulin.evaluate.targets.target import RunningTarget


def requests_plan(
    clips: Sequence[Clip], shape: Workers | Arrivals, *, seconds: float, warmup_sec: float = WARMUP_SEC, seed: int = 0
) -> Plan:
    """`shape` for `seconds` after a warm-up that is not measured."""

    @asynccontextmanager
    async def generator(running: RunningTarget) -> AsyncIterator[Generate]:
        connection = running.connect(clips, 0)

        async def generate(begin: float) -> Generated:
            try:
                load = await run_requests(
                    connection, clips, shape, seconds=seconds, warmup_sec=warmup_sec, seed=seed, begin=begin
                )
            finally:
                await connection.close()
            return Generated(load, connection.num_requests)

        yield generate

    def window(begin: float) -> tuple[float, float]:
        return begin + warmup_sec, begin + warmup_sec + seconds

    match shape:
        case Workers(count):
            return Plan("workers", count, window, generator)
        case Arrivals(per_sec):
            return Plan("requests_per_sec", per_sec, window, generator)
