"""Runs of real-time streams."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from moulin.bundle.spec import ModelSpec
from moulin.errors import OptionsError
from moulin.evaluate.run import TRIES, Generated, Plan, Run, measure_plan
from moulin.evaluate.streaming_clips import Clip
from moulin.evaluate.streaming_load import Load, Pace, run_load
from moulin.evaluate.targets.stream_targets import target
from moulin.evaluate.targets.target import Connect, RunningTarget, ServerSettings
from moulin.evaluate.wer import Normalizer

_START_PROCESSES_SEC = 6.0


def measure_streams(
    name: str,
    spec: ModelSpec | None,
    settings: ServerSettings,
    clips: Sequence[Clip],
    streams: int,
    pace: Pace,
    normalize: Normalizer,
    *,
    generators: int = 1,
    tries: int = TRIES,
) -> Run:
    """Start the target called `name`, run `streams` streams against it, and stop it.

    The streams are shared among `generators` processes; a target in this process has one.
    """
    load = plan(clips, streams, pace, generators)
    return measure_plan(name, target(name), spec, settings, load, normalize, tries=tries)


def plan(clips: Sequence[Clip], streams: int, pace: Pace, generators: int = 1) -> Plan:
    """`streams` lines from `generators` processes."""

    async def here(running: RunningTarget, begin: float) -> Generated:
        return await _drive(running.connect, clips, streams, pace, range(streams), begin, 0)

    async def beside(running: RunningTarget, begin: float) -> Generated:
        if running.in_process:
            raise OptionsError("A target in this process takes one load generator", hint="leave --generators out")
        loop = asyncio.get_running_loop()
        with ProcessPoolExecutor(generators, mp_context=get_context("spawn")) as pool:
            parts = await asyncio.gather(
                *(
                    loop.run_in_executor(
                        pool,
                        _generate,
                        running.connect,
                        clips,
                        streams,
                        pace,
                        range(number, streams, generators),
                        begin,
                        number,
                    )
                    for number in range(generators)
                )
            )
        return _joined(parts)

    alone = generators == 1
    return Plan("streams", streams, pace.window, here if alone else beside, 0.0 if alone else _START_PROCESSES_SEC)


def _generate(
    connect: Connect, clips: Sequence[Clip], streams: int, pace: Pace, lines: range, begin: float, number: int
) -> Generated:
    """In a process of its own. The event loops' clocks are the machine's monotonic one, so that times agree."""
    return asyncio.run(_drive(connect, clips, streams, pace, lines, begin, number))


async def _drive(
    connect: Connect, clips: Sequence[Clip], streams: int, pace: Pace, lines: range, begin: float, number: int
) -> Generated:
    connection = connect(clips, number)
    try:
        load = await run_load(connection, clips, pace, streams=streams, lines=lines, begin=begin)
    finally:
        await connection.close()
    return Generated(load, connection.num_requests)


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
