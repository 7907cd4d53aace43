"""CPU time and memory of a target while it is measured."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moulin.evaluate.gpu_usage import GpuUsage, GpuWatch
from moulin.evaluate.process_usage import cpu_sec_by_process, machine_cpu_sec, memory_bytes

_INTERVAL_SEC = 1.0


@dataclass(frozen=True, slots=True)
class TargetUsage:
    """Usage within the measured window; that of a server elsewhere is unknown (`server_cpu_sec` None)."""

    server_cpu_sec: float | None
    machine_cpu_sec: float
    peak_memory_bytes: int
    gpus: tuple[GpuUsage, ...] = ()
    processes_cpu_sec: tuple[float, ...] = ()
    """CPU seconds of the server's first process and of each that it started, the busiest first; then, where it has
    one, of its gateway's in the same way."""


async def watch(pids: Sequence[int], first_sec: float, end_sec: float) -> TargetUsage:
    """The usage of the processes `pids` and their descendants, between two times of the event loop's clock."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(first_sec - loop.time())
    before, machine, peak = [cpu_sec_by_process(pid) for pid in pids], machine_cpu_sec(), 0
    gpus = GpuWatch()
    gpus.start()
    try:
        while (left := end_sec - loop.time()) > 0:
            peak = max(peak, sum(map(memory_bytes, pids)))
            await asyncio.sleep(min(left, _INTERVAL_SEC))
        machine = machine_cpu_sec() - machine
        used = [
            {process: sec - earlier.get(process, 0.0) for process, sec in cpu_sec_by_process(pid).items()}
            for pid, earlier in zip(pids, before, strict=True)
        ]
        each = [sec for pid, of in zip(pids, used, strict=True) for sec in _busiest_first(pid, of)]
        return TargetUsage(sum(each) if pids else None, machine, peak, tuple(gpus.stop()), tuple(each))
    finally:
        gpus.stop()


def _busiest_first(pid: int, used: Mapping[int, float]) -> list[float]:
    return [used.get(pid, 0.0), *sorted((sec for process, sec in used.items() if process != pid), reverse=True)]
