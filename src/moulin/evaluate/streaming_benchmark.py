"""Runs of real-time streams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moulin.evaluate.run import Generate, Generated, Plan
from moulin.evaluate.shared_load import shared_among
from moulin.evaluate.streaming_clips import Clip
from moulin.evaluate.streaming_load import Pace, run_load
from moulin.evaluate.targets.target import Connect


def streams_plan(clips: Sequence[Clip], streams: int, pace: Pace, generators: int = 1) -> Plan:
    """`streams` streams, shared among `generators` processes; a target in this process has one."""
    share = shared_among(generators, lambda connect: _Lines(connect, clips, streams, pace, generators))
    return Plan("streams", streams, pace.window, share)


@dataclass(frozen=True, slots=True)
class _Lines:
    """The lines, of which each of `generators` generators has a share."""

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
