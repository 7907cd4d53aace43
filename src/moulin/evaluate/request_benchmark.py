"""Runs of whole recordings, a request each, in a closed or an open loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from moulin.errors import OptionsError
from moulin.evaluate.request_load import WARMUP_SEC, Arrivals, Workers, run_requests
from moulin.evaluate.run import Generate, Generated, Plan
from moulin.evaluate.shared_load import shared_among
from moulin.evaluate.streaming_clips import Clip
from moulin.evaluate.targets.target import Connect


def requests_plan(
    clips: Sequence[Clip],
    shape: Workers | Arrivals,
    *,
    seconds: float,
    warmup_sec: float = WARMUP_SEC,
    seed: int = 0,
    generators: int = 1,
) -> Plan:
    """`shape` for `seconds` after a warm-up that is not measured, shared among `generators` processes.

    Raises OptionsError where there are fewer workers than processes.
    """
    if isinstance(shape, Workers) and shape.count < generators:
        raise OptionsError(f"Expected a worker at least for each of {generators} generators, got {shape.count}")

    def window(begin: float) -> tuple[float, float]:
        return begin + warmup_sec, begin + warmup_sec + seconds

    def prepare(connect: Connect) -> _Requests:
        return _Requests(connect, clips, shape, seconds, warmup_sec, seed, generators)

    unit, load = ("workers", shape.count) if isinstance(shape, Workers) else ("requests_per_sec", shape.per_sec)
    return Plan(unit, load, window, shared_among(generators, prepare))


@dataclass(frozen=True, slots=True)
class _Requests:
    """The load, of which each of `generators` generators makes a share."""

    connect: Connect
    clips: Sequence[Clip]
    shape: Workers | Arrivals
    seconds: float
    warmup_sec: float
    seed: int
    generators: int

    async def __call__(self, number: int) -> Generate:
        connection = self.connect(self.clips, number)

        async def generate(begin: float) -> Generated:
            try:
                load = await run_requests(
                    connection,
                    self.clips,
                    self._share(number),
                    seconds=self.seconds,
                    warmup_sec=self.warmup_sec,
                    seed=self.seed + number,
                    begin=begin,
                )
            finally:
                await connection.close()
            return Generated(load, connection.num_requests)

        return generate

    def _share(self, number: int) -> Workers | Arrivals:
        if isinstance(self.shape, Workers):
            return Workers(len(range(number, self.shape.count, self.generators)))
        return replace(self.shape, per_sec=self.shape.per_sec / self.generators)
