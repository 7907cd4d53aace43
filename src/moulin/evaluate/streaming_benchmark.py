"""Runs of real-time streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from moulin.errors import OptionsError
from moulin.evaluate.generator_processes import generator_processes
from moulin.evaluate.run import Generate, Generated, Plan
from moulin.evaluate.streaming_clips import Clip
from moulin.evaluate.streaming_load import Load, Pace, run_load
from moulin.evaluate.targets.target import Connect, RunningTarget


def streams_plan(clips: Sequence[Clip], streams: int, pace: Pace, generators: int = 1) -> Plan:
    """`streams` streams, shared among `generators` processes; a target in this process has one."""

    @asynccontextmanager
    async def here(running: RunningTarget) -> AsyncIterator[Generate]:
        yield await _Lines(running.connect, clips, streams, pace, 1)(0)

    @asynccontextmanager
    async def beside(running: RunningTarget) -> AsyncIterator[Generate]:
        if running.in_process:
            raise OptionsError("A target in this process takes one load generator", hint="leave --generators out")
        lines = _Lines(running.connect, clips, streams, pace, generators)
        async with generator_processes(lines, generators) as generates:

            async def generate(begin: float) -> Generated:
                return _joined(await asyncio.gather(*(generate(begin) for generate in generates)))

            yield generate

    return Plan("streams", streams, pace.window, here if generators == 1 else beside)


@dataclass(frozen=True, slots=True)
class _Lines:
    """The share of the lines that each of `generators` generators has."""

    connect: Connect
    clips: Sequence[Clip]
    streams: int
    pace: Pace
    generators: int

    async def __call__(self, number: int) -> Generate:
        connection = self.connect(self.clips, number)
        lines = range(number, self.streams, self.generators)

        async def generate(begin: float) -> Generated:
            try:
                load = await run_load(connection, self.clips, self.pace, streams=self.streams, lines=lines, begin=begin)
            finally:
                await connection.close()
            return Generated(load, connection.num_requests)

        return generate


def _joined(parts: Sequence[Generated]) -> Generated:
    loads = [part.load for part in parts]
    return Generated(
        Load(
            [record for load in loads for record in load.records],
            loads[0].first_sec,
            loads[0].end_sec,
            sum(load.cpu_sec for load in loads),
            sum(load.thread_cpu_sec for load in loads),
            [late for load in loads for late in load.lateness_sec],
        ),
        sum(part.num_requests for part in parts),
    )
