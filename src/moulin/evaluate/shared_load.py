"""A load in this process, or shared among several."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from moulin.errors import OptionsError
from moulin.evaluate.generator_processes import Prepare, generator_processes
from moulin.evaluate.run import Generate, Generated
from moulin.evaluate.streaming_load import Load
from moulin.evaluate.targets.target import Connect, RunningTarget


def shared_among(
    generators: int, prepare: Callable[[Connect], Prepare]
) -> Callable[[RunningTarget], AbstractAsyncContextManager[Generate]]:
    """A `Plan`'s generator: the load that `prepare` makes for a connection, from several processes or in this one."""

    @asynccontextmanager
    async def here(running: RunningTarget) -> AsyncIterator[Generate]:
        yield await prepare(running.connect)(0)

    @asynccontextmanager
    async def beside(running: RunningTarget) -> AsyncIterator[Generate]:
        if running.in_process:
            raise OptionsError("A target in this process takes one load generator", hint="leave --generators out")
        async with generator_processes(prepare(running.connect), generators) as generates:

            async def generate(begin: float) -> Generated:
                return _joined(await asyncio.gather(*(generate(begin) for generate in generates)))

            yield generate

    return here if generators == 1 else beside


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
